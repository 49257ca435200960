"""Jobs that are stopped, killed or hindered at the worst moments: none hangs, none is lost, no worker is left."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from locex.jobs.workers import Worker
from locex.schemas.record import FailureKind, JobState


async def test_a_fault_of_the_service_ends_the_job_instead_of_leaving_it_active(node, eventually, children):
    (node.settings.state_folder / "runs").write_text("a file where a folder is needed")
    await node.submit()
    record = await node.end()
    assert record.failure.kind is FailureKind.RAISED
    assert "NotADirectoryError" in record.failure.message
    assert record.failure.remedy
    await eventually(lambda: not node.jobs.running)
    assert not children()
    assert (await node.submit()).record.run_id != record.run_id


@pytest.mark.parametrize("delay", [0, 0.03, 0.3])
async def test_stop_while_a_dead_worker_is_being_replaced(node, delay, children):
    await node.submit(server_address="endless:1")
    await node.until("WAITING")
    os.kill((await node.jobs.latest("t")).worker["pid"], signal.SIGKILL)
    await asyncio.sleep(delay)
    assert (await node.jobs.stop("t")).state is JobState.STOPPED
    assert node.jobs.running == 0
    assert not children()


async def test_a_stop_between_acceptance_and_launch_leaves_no_worker(node, settings, eventually):
    record = (await node.submit(server_address="endless:1")).record
    await node.jobs.stop("t")
    worker = await Worker.start(settings)
    await node.jobs._enqueue(record.run_id, worker)
    await eventually(lambda: not node.jobs.running)
    assert worker.child.exit_code == -signal.SIGKILL
    assert (await node.jobs.latest("t")).state is JobState.STOPPED


async def test_many_stops_at_once_agree(node):
    await node.submit(server_address="endless:1")
    await node.until("WAITING")
    records = await asyncio.gather(*(node.jobs.stop("t") for _ in range(5)))
    assert {record.state for record in records} == {JobState.STOPPED}


async def test_a_submission_that_is_cancelled_leaves_no_worker(node, eventually, children):
    submission = asyncio.create_task(node.submit())
    await eventually(children)
    submission.cancel()
    with pytest.raises(asyncio.CancelledError):
        await submission
    assert not children()
    assert (await node.submit()).record.state is JobState.QUEUED


async def test_a_worker_that_ends_with_its_children_still_alive_is_noticed(open_node, monkeypatch, children):
    """A grandchild holds the dead worker's standard error: the end must be seen all the same."""
    async with open_node(max_resumes=0) as node:
        await node.submit(server_address="family:1")
        record = await node.end()
    assert record.failure.kind is FailureKind.CRASHED
    assert record.failure.exit_code == 5
    assert not children()
