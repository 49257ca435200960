"""Jobs from submission to their end, over real worker processes."""

from __future__ import annotations

import asyncio
import os
import signal

import numpy as np
import psutil
import pytest
from safetensors.numpy import load_file

from locex.errors import (
    ActiveJob,
    BrokenPlugin,
    CrashedPlugin,
    DuplicatePlugin,
    IncompatiblePlugin,
    InvalidConfiguration,
    QueueFull,
    RefusedPlugin,
    RepositoryUnavailable,
    ServerRefused,
    UnknownModel,
    UnknownPlugin,
)
from locex.processes.child import identity_of
from locex.schemas.record import FailureKind, JobState


async def test_a_job_trains_and_leaves_a_model(node):
    accepted = await node.submit()
    assert accepted.record.configuration["optimizer_config"] == {"optimizer": "sgd", "learning_rate": 0.3}
    record = await node.end()
    assert record.state is JobState.FINISHED, record.failure
    assert record.round == 3
    assert [entry.round for entry in record.history] == [1, 2, 3]
    assert record.history[-1].evaluation["accuracy"] > 0.9
    assert record.plugins == {"locex-fixture-tiny": "1.0.0"}
    states = await node.states()
    assert states[:4] == ["QUEUED", "CONFIGURING", "PREPARING", "WAITING"]
    assert states[-1] == "FINISHED"
    model = await node.store.get_model("m", record.model["model_version"])
    assert model.lineage["training_id"] == "t"
    weights = load_file(await node.store.blob_path(model.digest))
    assert weights["weights"].shape == (4, 3)
    assert int(weights["steps"]) == 6


async def test_strings_scalars_and_nulls_are_understood(node):
    optimizer = {"optimizer": "sgd", "learning_rate": "0.25"}
    config = {"batch_size": "16", "epochs": "1", "steps_per_epoch": None}
    accepted = await node.submit(optimizer_config=optimizer, config=config, num_rounds="1", eval_metrics="accuracy")
    configuration = accepted.record.configuration
    assert configuration["optimizer_config"]["learning_rate"] == 0.25
    assert configuration["config"] == [{"config_id": "default", "batch_size": 16, "epochs": 1}]
    assert (await node.end()).state is JobState.FINISHED


async def test_learning_rate_of_config_stands_in_for_the_optimizers(node):
    accepted = await node.submit(optimizer_config={"optimizer": "sgd"}, config=[{"learning_rate": 0.125}])
    assert accepted.record.configuration["optimizer_config"]["learning_rate"] == 0.125


async def test_unknown_top_level_keys_are_named_in_warnings(node):
    accepted = await node.submit(mystery=1)
    assert accepted.warnings == ["unknown key 'mystery' was ignored"]


@pytest.mark.parametrize(
    ("changes", "error", "parts"),
    [
        ({"optimizer_config": {"optimizer": "adamant"}}, UnknownPlugin, ["optimizer", "'adamant'", "sgd"]),
        ({"optimizer_config": {"optimizer": "sgd", "rho": 1}}, InvalidConfiguration, ["/optimizer_config/rho"]),
        ({"optimizer_config": {"optimizer": "sgd", "learning_rate": "x"}}, InvalidConfiguration, ["/learning_rate"]),
        ({"num_rounds": 0}, InvalidConfiguration, ["/num_rounds"]),
        ({"num_rounds": "many"}, InvalidConfiguration, ["/num_rounds", "integer"]),
        ({"config": [{"batch_size": -1}]}, InvalidConfiguration, ["/config/0/batch_size"]),
        ({"config": [{"learning_rate": float("inf")}]}, InvalidConfiguration, ["/config/0/learning_rate", "finite"]),
        ({"config": [{"epoch": 1}]}, InvalidConfiguration, ["/config/0/epoch"]),
        ({"server_address": "a b"}, InvalidConfiguration, ["/server_address"]),
        ({"model_name": "../etc"}, InvalidConfiguration, ["/model_name"]),
        ({"training_id": "other"}, InvalidConfiguration, ["'t' in the path", "'other'"]),
        ({"model_version": "2"}, UnknownModel, ["'m'", "'2'"]),
        ({"server_address": "169.254.169.254:80"}, ServerRefused, ["link-local"]),
        ({"privacy-mechanisms": {"shield": {}}}, UnknownPlugin, ["privacy", "'shield'", "round_off"]),
        ({"federation": "pigeons"}, UnknownPlugin, ["federation", "'pigeons'", "loopback"]),
    ],
)
async def test_a_wrong_job_is_refused_with_field_reason_and_remedy(node, changes, error, parts):
    with pytest.raises(error) as caught:
        await node.submit(**changes)
    for part in parts:
        assert part in str(caught.value)
    assert caught.value.remedy
    assert (await node.jobs.page()).total == 0


@pytest.mark.parametrize(
    ("step", "error", "parts"),
    [
        ("raising", BrokenPlugin, ["'raising'", "locex-fixture-raising 1.0.0", "this plugin never loads"]),
        ("too_old", IncompatiblePlugin, ["locex-fixture-too-old 0.3.0", "<1,>=0.1", "locex-core 1.0.0"]),
        ("doubled", DuplicatePlugin, ["locex-fixture-duplicate 2.0.0", "locex-fixture-duplicate-too 3.0.0"]),
        ("exiting", RefusedPlugin, ["locex-fixture-exiting", "LOCEX_DENIED_DISTRIBUTIONS"]),
        ("hookless", BrokenPlugin, ["locex_config_model", "@hookimpl"]),
        ("unknown_argument", BrokenPlugin, ["colour"]),
        ("no_model", BrokenPlugin, ["PluginConfig"]),
        ("system_exit", BrokenPlugin, ["SystemExit"]),
    ],
)
async def test_a_plugin_that_cannot_be_used_is_named(node, step, error, parts):
    with pytest.raises(error) as caught:
        await node.submit(transformations={"train": [{"id": step}], "test": [{"id": step}]})
    for part in parts:
        assert part in str(caught.value)


async def test_denying_one_of_two_duplicates_chooses_the_other(open_node, settings):
    denied = [*settings.denied_distributions, "locex-fixture-duplicate"]
    async with open_node(denied_distributions=denied) as node:
        node.settings.__dict__.pop("policy", None)
        record = await _failure_of(node, {"id": "doubled"})
    assert record.failure.kind is FailureKind.RAISED
    assert "NotImplementedError" in record.failure.message
    assert record.plugins["locex-fixture-duplicate-too"] == "3.0.0"


async def test_a_plugin_that_ends_the_process_costs_one_answer(open_node):
    async with open_node(denied_distributions=[]) as node:
        with pytest.raises(CrashedPlugin) as caught:
            await node.submit(transformations={"train": [{"id": "exiting"}]})
        assert "exit code 3" in str(caught.value)
        assert "the last words of a plugin" in str(caught.value)
        assert (await node.submit()).record.state is JobState.QUEUED


async def test_a_plugin_that_hangs_is_ended(open_node):
    async with open_node(denied_distributions=[], plugin_timeout=1.5) as node:
        with pytest.raises(CrashedPlugin, match=r"transform hanging.* did not end within 1\.5 s"):
            await node.submit(transformations={"train": [{"id": "hanging"}]})
    assert not psutil.Process().children(recursive=True)


async def test_a_plugin_that_prints_disturbs_nothing(node):
    record = await _failure_of(node, {"id": "printing"})
    assert "NotImplementedError" in record.failure.message
    assert (
        "what a message would look like"
        in (node.settings.state_folder / "runs" / record.run_id / "worker.log").read_text()
    )


async def _failure_of(node, step):
    await node.submit(transformations={"train": [step], "test": [step]})
    record = await node.end()
    assert record.state is JobState.FAILED
    return record


async def test_rank_and_size_mismatch_show_every_step(node):
    record = await _failure_of(node, {"id": "scale", "parameters": {"repeat": 2}})
    assert record.failure.code == "format-mismatch"
    assert "x has the size [8], the model takes [4]" in record.failure.message
    assert "0. source: x tabular [4] float32" in record.failure.message
    assert "1. scale: x tabular [8] float32" in record.failure.message
    assert "PREPARING" in await node.states()
    assert "WAITING" not in await node.states()


async def test_a_step_whose_data_break_its_own_rule_is_named(node):
    record = await _failure_of(node, {"id": "wrong_rule"})
    assert "step 1 (wrong_rule) gave x with size [4, 1] instead of [4]" in record.failure.message


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"shape": [5]}, "the job's shape is [5]"),
        ({"num_classes": 7}, "num_classes is 7"),
        ({"data": {"source": "gaussians", "classes": 5}}, "num_classes is 3, the training data has 5"),
    ],
)
async def test_shape_and_classes_are_held_against_data_and_model(node, changes, part):
    await node.submit(**({"num_classes": 3, "shape": [4]} | changes))
    record = await node.end()
    assert record.state is JobState.FAILED
    assert part in record.failure.message


async def test_a_poisoned_round_is_refused_and_the_next_goes_on(node):
    await node.submit(server_address="poison:1")
    record = await node.end()
    assert record.state is JobState.FINISHED, record.failure
    assert any("NaN" in warning and "round 2" in warning for warning in record.warnings)
    assert [entry.round for entry in record.history if entry.fit_seconds] == [1, 3]


async def test_a_training_that_the_server_ends_early_says_so(node):
    await node.submit(server_address="short:1")
    record = await node.end()
    assert record.state is JobState.FINISHED
    assert record.warnings == ["the server ended the training after round 1 of 3"]


async def test_a_federation_that_is_lost_is_its_own_failure(node):
    await node.submit(server_address="nowhere:1")
    record = await node.end()
    assert record.failure.kind is FailureKind.FEDERATION_LOST
    assert record.failure.remedy == "start the server"


async def test_the_ledger_of_a_data_set_outlives_jobs(node):
    mechanisms = {"round_off": {"budget": 5}}
    await node.submit("one", **{"privacy-mechanisms": mechanisms})
    first = await node.end("one")
    assert first.history[-1].epsilon == {"client": 3.0}
    await node.submit("two", **{"privacy-mechanisms": mechanisms})
    second = await node.end("two")
    assert second.state is JobState.FAILED
    assert second.failure.code == "privacy-refused"
    assert [entry.epsilon for entry in second.history] == [{"client": 4.0}, {"client": 5.0}]


async def test_stop_while_waiting(node):
    await node.submit(server_address="endless:1")
    await node.until("WAITING")
    record = await node.jobs.stop("t")
    assert record.state is JobState.STOPPED
    assert not psutil.Process().children(recursive=True)
    assert (await node.jobs.stop("t")).state is JobState.STOPPED


async def test_stop_during_training(node, monkeypatch):
    monkeypatch.setenv("FIXTURE_EPOCH_SECONDS", "0.1")
    await node.submit(config=[{"epochs": 1000}])
    await node.until("TRAINING")
    assert (await node.jobs.stop("t")).state is JobState.STOPPED


async def test_a_worker_killed_between_rounds_is_replaced_and_the_job_ends_well(node, monkeypatch):
    monkeypatch.setenv("FIXTURE_ROUND_SECONDS", "0.5")
    await node.submit()
    await node.until("EVALUATING")
    os.kill((await node.jobs.latest("t")).worker["pid"], signal.SIGKILL)
    record = await node.end()
    assert record.state is JobState.FINISHED, record.failure
    assert record.resumes == 1
    states = await node.states()
    at = states.index("INTERRUPTED")
    assert states[at : at + 4] == ["INTERRUPTED", "QUEUED", "CONFIGURING", "PREPARING"]


async def test_a_worker_that_dies_again_and_again_fails_with_its_signal(open_node, monkeypatch):
    monkeypatch.setenv("FIXTURE_ROUND_SECONDS", "30")
    async with open_node(max_resumes=0) as node:
        await node.submit()
        await node.until("WAITING")
        os.kill((await node.jobs.latest("t")).worker["pid"], signal.SIGSEGV)
        record = await node.end()
    assert record.failure.kind is FailureKind.CRASHED
    assert record.failure.exit_code == -signal.SIGSEGV
    assert "SIGSEGV" in record.failure.message


async def test_a_worker_over_its_memory_is_ended(node, monkeypatch):
    monkeypatch.setenv("FIXTURE_ALLOCATE", "600")
    await node.submit(resources={"memory_mb": 400})
    record = await node.end()
    assert record.failure.kind is FailureKind.OUT_OF_MEMORY
    assert "memory_mb" in record.failure.remedy


async def test_a_round_over_its_time_is_ended(node, monkeypatch):
    monkeypatch.setenv("FIXTURE_EPOCH_SECONDS", "30")
    await node.submit(resources={"round_timeout": 0.5})
    record = await node.end()
    assert record.failure.kind is FailureKind.TIMED_OUT
    assert "round_timeout" in record.failure.remedy


async def test_a_silent_worker_is_ended(open_node, monkeypatch):
    async with open_node(heartbeat_timeout=3.0) as node:
        await node.submit(server_address="endless:1")
        await node.until("WAITING")
        os.kill((await node.jobs.latest("t")).worker["pid"], signal.SIGSTOP)
        record = await node.end()
    assert record.failure.kind is FailureKind.TIMED_OUT


async def test_the_record_of_a_round_outlives_the_worker_that_told_it(node, monkeypatch):
    monkeypatch.setenv("FIXTURE_ROUND_SECONDS", "0.5")
    await node.submit(**{"privacy-mechanisms": {"round_off": {}}})
    record = await node.until("TRAINING")
    async for event in node.jobs.follow(record.run_id):
        if event.kind == "round":
            break
    os.kill((await node.jobs.latest("t")).worker["pid"], signal.SIGKILL)
    record = await node.end()
    assert record.state is JobState.FINISHED, record.failure
    assert record.deaths == 0
    assert record.round == 3
    assert all(entry.fit_seconds and entry.epsilon for entry in record.history)
    model = await node.store.get_model("m", record.model["model_version"])
    assert model.lineage["epsilon"]["client"] >= 3


async def test_a_job_that_takes_the_service_along_again_and_again_is_given_up(open_node):
    async with open_node() as node:
        await node.submit(server_address="endless:1")
        await node.until("WAITING")
        record = await node.jobs.latest("t")
    async with open_node(resume=False) as node:
        await node.store.put_job(record.model_copy(update={"state": JobState.TRAINING, "deaths": 5}))
    async with open_node(max_resumes=5) as node:
        record = await node.jobs.latest("t")
    assert record.failure.kind is FailureKind.CRASHED
    assert "LOCEX_WORKER_MEMORY_MB" in record.failure.remedy


async def test_a_resumed_run_wants_the_models_bytes_that_it_began_with(open_node):
    async with open_node() as node:
        await node.submit(server_address="endless:1")
        await node.until("WAITING")
        digest = (await node.store.get_model("m", "1")).digest
        record = await node.jobs.latest("t")
        assert record.artefact == digest
    async with open_node(resume=False) as node:
        await node.store.put_job((await node.jobs.latest("t")).model_copy(update={"artefact": "0" * 64}))
    async with open_node() as node:
        record = await node.end()
    assert record.failure.code == "model-changed"


async def test_an_export_never_replaces_a_model(node):
    with pytest.raises(InvalidConfiguration, match="version '1' already") as caught:
        await node.submit(export={"model_version": "1"})
    assert caught.value.errors[0]["path"] == "/export/model_version"


async def test_under_a_mechanism_a_node_keeps_no_weights_that_it_has_not_seen(node):
    """Else a later job could send them, as the initial weights of a model."""
    await node.submit(server_address="unevaluated:1", **{"privacy-mechanisms": {"round_off": {"decimals": 1}}})
    record = await node.end()
    assert record.state is JobState.FINISHED, record.failure
    weights = load_file(await node.store.blob_path(record.model["digest"]))["weights"]
    assert np.array_equal(weights, weights.round(1))
    assert "the model is the last global one" in record.warnings[-1]


async def test_a_field_given_by_two_names_is_refused(node):
    with pytest.raises(InvalidConfiguration, match="privacy-mechanisms and privacy_mechanisms are the same field"):
        await node.submit(privacy_mechanisms={"round_off": {}})
    with pytest.raises(InvalidConfiguration, match="num_rounds and number_of_rounds"):
        await node.submit(number_of_rounds=2)


async def test_a_job_goes_on_after_the_service_was_closed(open_node, monkeypatch):
    monkeypatch.setenv("FIXTURE_ROUND_SECONDS", "0.5")
    async with open_node() as node:
        await node.submit()
        await node.until("EVALUATING")
    async with open_node() as node:
        record = await node.end()
        assert record.state is JobState.FINISHED, record.failure
        assert "INTERRUPTED" in await node.states()


async def test_interrupted_jobs_stay_so_where_the_site_says(open_node):
    async with open_node() as node:
        await node.submit(server_address="endless:1")
        await node.until("WAITING")
    async with open_node(resume=False) as node:
        assert (await node.jobs.latest("t")).state is JobState.INTERRUPTED
        assert (await node.jobs.stop("t")).state is JobState.STOPPED


async def test_going_on_with_other_plugin_versions_is_refused(open_node):
    async with open_node() as node:
        await node.submit(server_address="endless:1")
        await node.until("WAITING")
        record = await node.jobs.latest("t")
    async with open_node(resume=False) as node:
        record = await node.jobs.latest("t")
        await node.store.put_job(record.model_copy(update={"plugins": {"locex-fixture-tiny": "0.9.0"}}))
    async with open_node() as node:
        record = await node.end()
    assert record.failure.code == "plugin-changed"
    assert "locex-fixture-tiny 0.9.0 then, 1.0.0 now" in record.failure.message


async def test_a_left_worker_is_ended_by_pid_and_start_time(open_node):
    """As after kill -9 of the service: the record still says that a worker runs."""
    async with open_node() as node:
        await node.submit(server_address="endless:1")
        await node.until("WAITING")
        record = await node.jobs.latest("t")
    left = await asyncio.create_subprocess_exec("sleep", "600", start_new_session=True)
    spared = await asyncio.create_subprocess_exec("sleep", "600", start_new_session=True)
    async with open_node(resume=False) as node:
        worker = {"pid": left.pid, "identity": identity_of(left.pid)}
        await node.store.put_job(record.model_copy(update={"state": JobState.WAITING, "worker": worker}))
        other = {"pid": spared.pid, "identity": "another boot:17"}
        update = {"state": JobState.WAITING, "worker": other, "run_id": "r2", "training_id": "u"}
        await node.store.put_job(record.model_copy(update=update))
    async with open_node(resume=False) as node:
        assert (await node.jobs.latest("t")).state is JobState.INTERRUPTED
        assert await left.wait() == -signal.SIGKILL
        assert spared.returncode is None
    spared.kill()
    await spared.wait()


async def test_jobs_wait_in_a_queue_and_beyond_it_are_refused(open_node):
    async with open_node(queue_limit=1) as node:
        await node.submit("first", server_address="endless:1")
        await node.submit("second")
        await node.until("WAITING", "first")
        assert (await node.jobs.latest("second")).state is JobState.QUEUED
        with pytest.raises(QueueFull) as caught:
            await node.submit("third")
        assert caught.value.retry_after
        await node.jobs.stop("first")
        assert (await node.end("second")).state is JobState.FINISHED


async def test_a_queued_job_can_be_stopped(node):
    await node.submit("first", server_address="endless:1")
    await node.submit("second")
    assert (await node.jobs.stop("second")).state is JobState.STOPPED
    await node.jobs.stop("first")
    assert (await node.jobs.latest("second")).state is JobState.STOPPED


async def test_a_training_id_is_free_again_only_when_its_job_is_over(node):
    await node.submit(server_address="endless:1")
    with pytest.raises(ActiveJob, match="is already"):
        await node.submit()
    first = await node.jobs.stop("t")
    await node.submit()
    second = await node.end()
    assert second.run_id != first.run_id
    assert (await node.jobs.page(training_id="t")).total == 2


async def test_a_repository_that_is_down_is_told_apart_from_an_unknown_model(open_node, unused_tcp_port):
    async with open_node(repository_address=f"127.0.0.1:{unused_tcp_port}") as node:
        with pytest.raises(RepositoryUnavailable, match=r"127\.0\.0\.1"):
            await node.submit(model_name="elsewhere")


async def test_servers_outside_the_allow_list_are_refused(open_node):
    async with open_node(allowed_servers=["loop"]) as node:
        with pytest.raises(ServerRefused, match="LOCEX_ALLOWED_SERVERS"):
            await node.submit(server_address="other:1")
        await node.submit()


async def _child():
    for _ in range(200):
        if children := psutil.Process().children():
            return children[0]
        await asyncio.sleep(0.05)
    raise AssertionError("no worker was started")


async def test_a_spare_worker_takes_the_job_and_is_replaced(open_node):
    async with open_node(spare_worker=True) as node:
        spare = await _child()
        accepted = await node.submit()
        record = await node.end()
        assert record.worker["pid"] == spare.pid
        assert accepted.record.run_id == record.run_id
        assert not np.isnan(record.history[-1].train["loss"])
