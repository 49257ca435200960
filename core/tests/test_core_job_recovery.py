"""What dies, hangs or takes too much while a job runs, and how jobs go on."""

from __future__ import annotations

import asyncio
import os
import signal

from locex.processes.child import identity_of
from locex.schemas.record import FailureKind, JobState


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


async def test_a_silent_worker_is_ended(open_node, monkeypatch):
    async with open_node(heartbeat_timeout=8.0) as node:
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
