"""Jobs that want more memory or time than they may have."""

from __future__ import annotations

import re

import pytest

from locex.errors import BrokenPlugin
from locex.schemas.record import FailureKind, JobState


async def test_a_worker_over_its_memory_is_ended(node, monkeypatch):
    monkeypatch.setenv("FIXTURE_ALLOCATE", "600")
    await node.submit(resources={"memory_mb": 400})
    record = await node.end()
    assert record.failure.kind is FailureKind.OUT_OF_MEMORY
    assert "memory_mb" in record.failure.remedy


@pytest.mark.parametrize("site", [True, False])
async def test_a_model_that_takes_too_much_memory_is_refused_while_it_is_loaded(site, open_node, monkeypatch):
    """Before the service, which looks once a second, could see it: the memory was never there to be seen."""
    monkeypatch.setenv("FIXTURE_BUILD_ALLOCATE", "2000")
    async with open_node(worker_memory_mb=300 if site else None) as node:
        await node.submit(resources={} if site else {"memory_mb": 300})
        record = await node.end()
    assert record.failure.kind is FailureKind.OUT_OF_MEMORY
    assert record.failure.exit_code is None
    assert "Unable to allocate" in record.failure.message
    assert "LOCEX_WORKER_MEMORY_MB" in record.failure.remedy


async def test_a_plugin_that_takes_all_memory_on_import_is_refused(open_node):
    denied = ["locex-fixture-exiting", "locex-fixture-hanging"]
    async with open_node(denied_distributions=denied, plugin_memory_mb=256) as node:
        with pytest.raises(BrokenPlugin, match="transform 'greedy' of locex-fixture-greedy") as caught:
            await node.submit(transformations={"train": [{"id": "greedy"}]})
        assert int(re.search(r"MemoryError: after (\d+) MiB", caught.value.message)[1]) <= 256
        await node.submit()
        assert (await node.end()).state is JobState.FINISHED


async def test_memory_is_bounded_only_while_the_model_is_loaded(node, monkeypatch):
    monkeypatch.setenv("FIXTURE_BUILD_ALLOCATE", "100")
    await node.submit(resources={"memory_mb": 2000})
    assert (await node.end()).state is JobState.FINISHED


async def test_a_preparation_that_does_not_end_is_ended(open_node, monkeypatch):
    monkeypatch.setenv("FIXTURE_BUILD_SECONDS", "30")
    async with open_node(prepare_timeout=0.5) as node:
        await node.submit()
        record = await node.end()
    assert record.failure.kind is FailureKind.TIMED_OUT
    assert "LOCEX_PREPARE_TIMEOUT" in record.failure.remedy


async def test_a_round_over_its_time_is_ended(node, monkeypatch):
    monkeypatch.setenv("FIXTURE_EPOCH_SECONDS", "30")
    await node.submit(resources={"round_timeout": 0.5})
    record = await node.end()
    assert record.failure.kind is FailureKind.TIMED_OUT
    assert "round_timeout" in record.failure.remedy
