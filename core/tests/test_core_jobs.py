"""Jobs from submission to their end, over real worker processes."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from safetensors.numpy import load_file

from locex.errors import (
    ActiveJob,
    QueueFull,
)
from locex.pipelines.saved import SavedPipeline
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


async def test_the_pipeline_and_what_it_learnt_go_with_the_model(node):
    steps = [{"id": "scale", "parameters": {"factor": 2}}, {"id": "keeping_centre"}]
    await node.submit(transformations={"train": [*steps, {"id": "jitter"}], "test": steps})
    record = await node.end()
    assert record.state is JobState.FINISHED, record.failure
    model = await node.store.get_model("m", record.model["model_version"])
    kept = SavedPipeline.model_validate(model.lineage["pipeline"])
    assert [step.id for step in kept.steps] == ["scale", "keeping_centre"]
    assert kept.steps[1].state["mean"].array().shape == (1,)
    assert not [warning for warning in record.warnings if "pipeline" in warning]


async def test_a_model_whose_steps_keep_nothing_says_that_they_do_not(node):
    await node.submit(transformations={"train": [{"id": "centre"}], "test": [{"id": "centre"}]})
    record = await node.end()
    assert record.state is JobState.FINISHED, record.failure
    assert "pipeline" not in (await node.store.get_model("m", record.model["model_version"])).lineage
    assert any("the pipeline is not kept with the model" in warning for warning in record.warnings)


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


async def test_denying_one_of_two_duplicates_chooses_the_other(open_node, settings):
    denied = [*settings.denied_distributions, "locex-fixture-duplicate"]
    async with open_node(denied_distributions=denied) as node:
        node.settings.__dict__.pop("policy", None)
        record = await _failure_of(node, {"id": "doubled"})
    assert record.failure.kind is FailureKind.RAISED
    assert "NotImplementedError" in record.failure.message
    assert record.plugins["locex-fixture-duplicate-too"] == "3.0.0"


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


async def test_stop_while_waiting(node, children):
    await node.submit(server_address="endless:1")
    await node.until("WAITING")
    record = await node.jobs.stop("t")
    assert record.state is JobState.STOPPED
    assert not children()
    assert (await node.jobs.stop("t")).state is JobState.STOPPED


async def test_stop_during_training(node, monkeypatch):
    monkeypatch.setenv("FIXTURE_EPOCH_SECONDS", "0.1")
    await node.submit(config=[{"epochs": 1000}])
    await node.until("TRAINING")
    assert (await node.jobs.stop("t")).state is JobState.STOPPED


async def test_under_a_mechanism_a_node_keeps_no_weights_that_it_has_not_seen(node):
    """Else a later job could send them, as the initial weights of a model."""
    await node.submit(server_address="unevaluated:1", **{"privacy-mechanisms": {"round_off": {"decimals": 1}}})
    record = await node.end()
    assert record.state is JobState.FINISHED, record.failure
    weights = load_file(await node.store.blob_path(record.model["digest"]))["weights"]
    assert np.array_equal(weights, weights.round(1))
    assert "the model is the last global one" in record.warnings[-1]


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


async def _child(children):
    for _ in range(1200):
        if found := children():
            return found[0]
        await asyncio.sleep(0.05)
    raise AssertionError("no worker was started")


async def test_a_spare_worker_takes_the_job_and_is_replaced(open_node, children):
    async with open_node(spare_worker=True) as node:
        spare = await _child(children)
        accepted = await node.submit()
        record = await node.end()
        assert record.worker["pid"] == spare.pid
        assert accepted.record.run_id == record.run_id
        assert not np.isnan(record.history[-1].train["loss"])
