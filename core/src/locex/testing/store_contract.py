"""What every store must do.

Subclass `StoreContract` in a test module and give it two fixtures::

    class TestMyStore(StoreContract):
        @pytest.fixture
        async def store(self, tmp_path): ...    # open, empty, sweeping without grace
        @pytest.fixture
        def reopen(self): ...                   # async (store) -> store: closes it, opens the same data again

Tests are asynchronous (pytest-asyncio in auto mode) and use nothing but the Protocol. `LargeBlobs` takes a while: mark
its subclass, ``@pytest.mark.slow`` or as you call it.
"""
# A test's name says what it shows, and expected values are literal.
# ruff: noqa: D102, PLR2004

from __future__ import annotations

import asyncio
import hashlib
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeAlias

import psutil
import pytest

from locex.errors import StoreUnavailable, TooLarge
from locex.schemas.model import ModelMeta, StoredModel
from locex.schemas.record import JobEvent, JobRecord, JobState, RoundRecord
from locex.store import records
from locex.store.protocol import Store

Reopen: TypeAlias = Callable[[Store], Awaitable[Store]]

COMPETITORS = 20


def job(run_id: str, training_id: str = "t", *, created: float = 1.0, **content: Any) -> JobRecord:
    """Return a record of a queued run, with ``content`` in place of the defaults."""
    fields = {"state": JobState.QUEUED, "updated": created, "configuration": {"epochs": 1}, "library": "any"}
    return JobRecord(run_id=run_id, training_id=training_id, created=created, **(fields | content))


def model(name: str, version: str = "1", **content: Any) -> StoredModel:
    """Return a model's metadata."""
    meta = ModelMeta(library="any", description="example")
    return StoredModel(model_name=name, model_version=version, meta=meta, created=1.0, updated=1.0, **content)


async def chunks(*parts: bytes) -> AsyncIterator[bytes]:
    """Yield bytes as a request would bring them."""
    for part in parts:
        await asyncio.sleep(0)
        yield part


async def checkpoint(store: Store, run_id: str) -> bytes:
    """Return a checkpoint that must be there."""
    path = await store.checkpoint_path(run_id)
    assert path is not None
    return path.read_bytes()


class StoreContract:
    """The tests; see the module."""

    # --- jobs

    async def test_a_record_comes_back_as_it_was(self, store: Store) -> None:
        record = job("r1", model={"name": "m", "files": []}, warnings=["ünïcode \x00 and ' quotes"])
        await store.put_job(record)
        assert await store.get_job("r1") == record
        assert await store.get_job("absent") is None

    async def test_metrics_that_are_not_finite_come_back(self, store: Store) -> None:
        await store.put_job(job("r1", history=[RoundRecord(round=1, train={"loss": math.nan, "norm": math.inf})]))
        stored = await store.get_job("r1")
        assert stored is not None
        assert math.isnan(stored.history[0].train["loss"])
        assert stored.history[0].train["norm"] == math.inf

    async def test_a_run_has_one_record(self, store: Store) -> None:
        await asyncio.gather(*(store.put_job(job("r1", round=number)) for number in range(COMPETITORS)))
        assert (await store.list_jobs()).total == 1

    async def test_the_latest_run_of_a_training_is_the_newest(self, store: Store) -> None:
        for run_id, created in (("old", 1.0), ("new", 3.0), ("middle", 2.0)):
            await store.put_job(job(run_id, created=created))
        await store.put_job(job("other", "u", created=9.0))
        latest = await store.latest_job("t")
        assert latest is not None
        assert latest.run_id == "new"
        assert await store.latest_job("absent") is None

    async def test_of_runs_created_at_once_the_last_put_is_the_newest(self, store: Store) -> None:
        for run_id in ("b", "c", "a"):
            await store.put_job(job(run_id, created=1.0))
        await store.put_job(job("b", created=1.0, state=JobState.FINISHED))
        assert [record.run_id for record in (await store.list_jobs()).records] == ["a", "c", "b"]

    async def test_pages_are_newest_first_and_count_all(self, store: Store) -> None:
        for number in range(5):
            await store.put_job(job(f"r{number}", created=float(number)))
        page = await store.list_jobs(offset=1, limit=2)
        assert ([record.run_id for record in page.records], page.total) == (["r3", "r2"], 5)
        assert (await store.list_jobs(offset=9)).records == []

    async def test_filters_by_state_and_training(self, store: Store) -> None:
        await store.put_job(job("r1", "t", state=JobState.FINISHED))
        await store.put_job(job("r2", "t", state=JobState.FAILED))
        await store.put_job(job("r3", "u", state=JobState.FAILED))
        over = await store.list_jobs(states=[JobState.FINISHED, JobState.FAILED])
        assert over.total == len(over.records) == 3
        page = await store.list_jobs(states=[JobState.FAILED], training_id="t")
        assert ([record.run_id for record in page.records], page.total) == (["r2"], 1)
        assert (await store.list_jobs(states=[JobState.QUEUED])).total == 0

    async def test_a_replaced_record_is_found_by_its_new_state(self, store: Store) -> None:
        await store.put_job(job("r1"))
        await store.put_job(job("r1", state=JobState.STOPPED))
        assert (await store.list_jobs(states=[JobState.QUEUED])).total == 0
        assert (await store.list_jobs(states=[JobState.STOPPED])).total == 1

    async def test_one_of_many_claims_wins(self, store: Store) -> None:
        await store.put_job(job("r1"))
        claims = [job("r1", state=JobState.CONFIGURING, worker={"pid": pid}) for pid in range(COMPETITORS)]
        won = await asyncio.gather(*(store.claim_job("r1", JobState.QUEUED, claim) for claim in claims))
        assert won.count(True) == 1
        assert await store.get_job("r1") == claims[won.index(True)]
        assert (await store.list_jobs(states=[JobState.CONFIGURING])).total == 1

    async def test_what_does_not_exist_is_not_claimed(self, store: Store) -> None:
        assert not await store.claim_job("absent", JobState.QUEUED, job("absent"))
        assert await store.get_job("absent") is None

    async def test_a_claim_whose_answer_was_lost_is_won_again(self, store: Store) -> None:
        await store.put_job(job("r1"))
        claim = job("r1", state=JobState.CONFIGURING, worker={"pid": 1})
        assert await store.claim_job("r1", JobState.QUEUED, claim)
        assert await store.claim_job("r1", JobState.QUEUED, claim)
        assert not await store.claim_job("r1", JobState.QUEUED, job("r1", worker={"pid": 2}))

    async def test_a_record_and_its_event_are_saved_together(self, store: Store) -> None:
        first = await store.save_job(job("r1"), "state", {"state": "QUEUED"})
        second = await store.save_job(job("r1", state=JobState.STOPPED), "state", {"state": "STOPPED"})
        assert [event.id for event in (first, second)] == [1, 2]
        assert await store.events("r1") == [first, second]
        assert await store.get_job("r1") == job("r1", state=JobState.STOPPED)

    async def test_of_many_saved_at_once_none_is_lost(self, store: Store) -> None:
        await asyncio.gather(
            *(store.save_job(job("r1", round=number), "round", {"round": number}) for number in range(COMPETITORS)),
            *(store.append_event("r1", "log", {}) for _ in range(COMPETITORS)),
        )
        events = await store.events("r1")
        assert [event.id for event in events] == list(range(1, 2 * COMPETITORS + 1))
        rounds = [event.content["round"] for event in events if event.kind == "round"]
        assert sorted(rounds) == list(range(COMPETITORS))
        stored = await store.get_job("r1")
        assert stored is not None
        assert stored.round == rounds[-1], "the record is the one that the last event tells of"

    async def test_a_large_record_comes_back(self, store: Store) -> None:
        rounds = [RoundRecord(round=number, train={"loss": 1 / number}) for number in range(1, 15_000)]
        await store.save_job(job("r1", history=rounds), "round", {})
        stored = await store.get_job("r1")
        assert stored is not None
        assert stored.history == rounds

    async def test_older_records_are_brought_up_to_date_when_read(
        self, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await store.put_job(job("r1", library="old"))
        await store.put_model(model("m"))
        monkeypatch.setattr(records, "CURRENT", 3)
        steps = {1: {"version": 2, "library": "older"}, 2: {"version": 3, "training_id": "third"}}
        monkeypatch.setattr(
            records, "MIGRATIONS", {at: lambda old, step=step: old | step for at, step in steps.items()}
        )
        monkeypatch.setattr(records, "CURRENT_MODEL", 2)
        monkeypatch.setattr(records, "MODEL_MIGRATIONS", {1: lambda old: old | {"version": 2, "size": 7}})
        migrated = job("r1", "third", version=3, library="older")
        assert await store.get_job("r1") == migrated
        assert (await store.list_jobs()).records == [migrated]
        assert await store.get_model("m", "1") == model("m", size=7)

    async def test_records_of_a_newer_locex_are_refused(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        await store.put_job(job("r1", version=99))
        with pytest.raises(StoreUnavailable, match="version 99") as caught:
            await store.get_job("r1")
        assert "upgrade" in caught.value.remedy
        monkeypatch.setattr(records, "CURRENT_MODEL", 99)
        await store.put_model(model("m"))
        monkeypatch.undo()
        with pytest.raises(StoreUnavailable, match="version 99"):
            await store.list_models()

    # --- events

    async def test_events_of_another_store_are_restored_once(self, store: Store) -> None:
        events = [JobEvent(id=at, run_id="r1", time=at / 2, kind="log", content={"n": at}) for at in (1, 2, 3)]
        await store.restore_events(events[:2])
        await store.restore_events(events)
        assert await store.events("r1") == events
        assert (await store.append_event("r1", "log", {})).id == 4
        await store.restore_events([])

    async def test_events_are_numbered_by_run_without_gaps(self, store: Store) -> None:
        appended = await asyncio.gather(
            *(store.append_event(f"r{number % 2}", "log", {"n": number}) for number in range(2 * COMPETITORS))
        )
        for run_id in ("r0", "r1"):
            events = await store.events(run_id)
            assert [event.id for event in events] == list(range(1, COMPETITORS + 1))
            assert sorted((e for e in appended if e.run_id == run_id), key=lambda event: event.id) == events

    async def test_events_resume_after_an_id(self, store: Store) -> None:
        for number in range(5):
            await store.append_event("r1", "round", {"round": number})
        assert [event.id for event in await store.events("r1", after=2, limit=2)] == [3, 4]
        assert await store.events("r1", after=5) == []
        assert await store.events("absent") == []

    # --- models

    async def test_models_are_kept_listed_and_deleted(self, store: Store) -> None:
        for name, version in (("b", "1"), ("a", "2"), ("a", "1")):
            assert await store.put_model(model(name, version))
        assert [(m.model_name, m.model_version) for m in await store.list_models()] == [
            ("a", "1"),
            ("a", "2"),
            ("b", "1"),
        ]
        assert await store.get_model("a", "2") == model("a", "2")
        assert await store.delete_model("a", "2")
        assert not await store.delete_model("a", "2")
        assert await store.get_model("a", "2") is None

    async def test_a_model_is_replaced_only_where_asked(self, store: Store) -> None:
        kept, other = model("m", size=1), model("m", size=2)
        assert await store.put_model(kept, replace=False)
        assert not await store.put_model(other, replace=False)
        assert await store.put_model(kept, replace=False), "asked again after a lost answer"
        assert await store.get_model("m", "1") == kept
        assert await store.put_model(other)
        assert await store.get_model("m", "1") == other

    async def test_one_of_many_new_models_wins(self, store: Store) -> None:
        candidates = [model("m", size=size) for size in range(COMPETITORS)]
        won = await asyncio.gather(*(store.put_model(candidate, replace=False) for candidate in candidates))
        assert won.count(True) == 1
        assert await store.get_model("m", "1") == candidates[won.index(True)]

    # --- blobs

    async def test_bytes_come_back_under_their_digest(self, store: Store) -> None:
        parts = [bytes([number]) * 700_000 for number in range(5)]
        blob = await store.write_blob(chunks(*parts), limit=10_000_000)
        assert blob.digest == hashlib.sha256(b"".join(parts)).hexdigest()
        assert blob.size == 3_500_000
        path = await store.blob_path(blob.digest)
        assert path is not None
        assert path.read_bytes() == b"".join(parts)

    async def test_what_is_stored_can_be_checked(self, store: Store) -> None:
        blob = await store.write_blob(chunks(b"weights" * 1000), limit=10_000)
        assert await store.check_blob(blob.digest)
        assert not await store.check_blob("0" * 64)

    async def test_equal_bytes_are_one_blob(self, store: Store) -> None:
        blobs = await asyncio.gather(*(store.write_blob(chunks(b"same"), limit=4) for _ in range(COMPETITORS)))
        assert len(set(blobs)) == 1
        assert await store.sweep() == 1

    async def test_no_bytes_are_a_blob(self, store: Store) -> None:
        blob = await store.write_blob(chunks(), limit=1)
        path = await store.blob_path(blob.digest)
        assert path is not None
        assert path.read_bytes() == b""

    @pytest.mark.parametrize("digest", ["0" * 64, "", "..", "../../etc/passwd", "A" * 64])
    async def test_unknown_digests_have_no_path(self, store: Store, digest: str) -> None:
        assert await store.blob_path(digest) is None

    async def test_bytes_beyond_the_limit_leave_nothing(self, store: Store) -> None:
        with pytest.raises(TooLarge):
            await store.write_blob(chunks(b"12345", b"67890"), limit=9)
        assert await store.blob_path(hashlib.sha256(b"1234567890").hexdigest()) is None
        assert await store.sweep() == 0

    async def test_a_broken_upload_leaves_nothing(self, store: Store) -> None:
        async def broken() -> AsyncIterator[bytes]:
            yield b"x" * 2_000_000
            raise ConnectionResetError

        with pytest.raises(ConnectionResetError):
            await store.write_blob(broken(), limit=10_000_000)
        assert await store.sweep() == 0

    async def test_a_cancelled_upload_leaves_nothing(self, store: Store) -> None:
        arrived = asyncio.Event()

        async def stalled() -> AsyncIterator[bytes]:
            yield b"x" * 2_000_000
            arrived.set()
            await asyncio.Event().wait()

        task = asyncio.create_task(store.write_blob(stalled(), limit=10_000_000))
        await arrived.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await store.sweep() == 0

    async def test_a_sweep_takes_what_nothing_refers_to(self, store: Store) -> None:
        digests = [(await store.write_blob(chunks(data), limit=9)).digest for data in (b"a", b"b", b"c")]
        await store.put_model(model("m", digest=digests[0]))
        await store.put_job(job("r1", model={"files": [{"digest": digests[1]}]}))
        assert await store.sweep() == 1
        assert [await store.blob_path(digest) is not None for digest in digests] == [True, True, False]
        await store.delete_model("m", "1")
        assert await store.sweep() == 1
        assert await store.blob_path(digests[0]) is None

    async def test_a_sweep_spares_what_is_being_written(self, store: Store) -> None:
        swept = asyncio.Event()

        async def slow() -> AsyncIterator[bytes]:
            yield b"x" * 2_000_000
            assert await store.sweep() == 0
            swept.set()
            yield b"y"

        blob = await store.write_blob(slow(), limit=10_000_000)
        assert swept.is_set()
        path = await store.blob_path(blob.digest)
        assert path is not None
        assert path.stat().st_size == 2_000_001

    # --- checkpoints

    async def test_a_checkpoint_takes_the_place_of_the_older_whose_bytes_go(self, store: Store) -> None:
        assert await store.checkpoint_path("r1") is None
        for data in (b"first" * 500_000, b"second", b"second"):
            await store.put_checkpoint("r1", chunks(data[:7], data[7:]), limit=3_000_000)
            assert await checkpoint(store, "r1") == data
            assert await store.sweep() == 0, "the older bytes are gone already"

    async def test_the_older_checkpoint_stays_until_the_newer_is_whole(self, store: Store) -> None:
        async def slow() -> AsyncIterator[bytes]:
            yield b"x" * 2_000_000
            assert await checkpoint(store, "r1") == b"older"
            yield b"y"

        async def broken() -> AsyncIterator[bytes]:
            yield b"x" * 2_000_000
            raise ConnectionResetError

        await store.put_checkpoint("r1", chunks(b"older"), limit=9)
        with pytest.raises(TooLarge):
            await store.put_checkpoint("r1", chunks(b"12345", b"67890"), limit=9)
        with pytest.raises(ConnectionResetError):
            await store.put_checkpoint("r1", broken(), limit=10_000_000)
        assert await checkpoint(store, "r1") == b"older"
        assert await store.sweep() == 0
        await store.put_checkpoint("r1", slow(), limit=10_000_000)
        assert await checkpoint(store, "r1") == b"x" * 2_000_000 + b"y"

    async def test_of_many_checkpoints_at_once_one_stays(self, store: Store) -> None:
        contents = [bytes([number // 2]) * 1000 for number in range(COMPETITORS)]  # each twice
        await asyncio.gather(*(store.put_checkpoint("r1", chunks(data), limit=1000) for data in contents))
        assert await checkpoint(store, "r1") in contents
        assert await store.sweep() == 0

    async def test_equal_checkpoints_and_blobs_go_one_by_one(self, store: Store) -> None:
        blob = await store.write_blob(chunks(b"same"), limit=9)
        await store.put_model(model("m", digest=blob.digest))
        for run_id in ("r1", "r2"):
            await store.put_checkpoint(run_id, chunks(b"same"), limit=9)
        for _ in range(2):
            await store.delete_checkpoint("r1")
            assert await store.checkpoint_path("r1") is None
        assert await checkpoint(store, "r2") == b"same"
        await store.delete_checkpoint("r2")
        assert await store.sweep() == 0, "the bytes are gone already"
        assert await store.check_blob(blob.digest)

    async def test_a_sweep_takes_the_checkpoints_of_runs_that_are_over(self, store: Store) -> None:
        await store.put_job(job("r1", state=JobState.INTERRUPTED))
        await store.put_job(job("r2", state=JobState.FINISHED))
        for run_id in ("r1", "r2"):
            await store.put_checkpoint(run_id, chunks(run_id.encode()), limit=9)
        assert await store.sweep() == 1
        assert await checkpoint(store, "r1") == b"r1"
        assert await store.checkpoint_path("r2") is None

    # --- ledgers

    async def test_a_ledger_grows_by_version(self, store: Store) -> None:
        assert await store.read_ledger("d", "example") == (0, [])
        assert await store.append_ledger("d", "example", 0, {"sigma": 1.5})
        assert not await store.append_ledger("d", "example", 0, {"sigma": 9.0})
        assert not await store.append_ledger("d", "example", 2, {"sigma": 9.0})
        assert await store.append_ledger("d", "example", 1, {"sigma": 2.5})
        assert await store.read_ledger("d", "example") == (2, [{"sigma": 1.5}, {"sigma": 2.5}])

    async def test_ledgers_are_apart_by_data_set_and_unit(self, store: Store) -> None:
        assert await store.append_ledger("d", "example", 0, {"n": 1})
        assert await store.append_ledger("d", "client", 0, {"n": 2})
        assert await store.append_ledger("e", "example", 0, {"n": 3})
        assert await store.read_ledger("d", "client") == (1, [{"n": 2}])

    async def test_no_charge_is_lost_in_competition(self, store: Store) -> None:
        async def charge(number: int) -> None:
            while True:
                version, _ = await store.read_ledger("d", "example")
                if await store.append_ledger("d", "example", version, {"n": number}):
                    return

        await asyncio.gather(*(charge(number) for number in range(COMPETITORS)))
        version, events = await store.read_ledger("d", "example")
        assert version == COMPETITORS
        assert sorted(event["n"] for event in events) == list(range(COMPETITORS))

    async def test_ledgers_are_listed(self, store: Store) -> None:
        assert await store.list_ledgers() == []
        for dataset, unit, version in (
            ("e", "example", 0),
            ("d", "example", 0),
            ("d", "client", 0),
            ("d", "client", 1),
        ):
            await store.append_ledger(dataset, unit, version, {})
        assert await store.list_ledgers() == [("d", "client"), ("d", "example"), ("e", "example")]

    # --- durability

    async def test_everything_is_there_after_a_restart(self, store: Store, reopen: Reopen) -> None:
        await store.put_job(job("r1"))
        event = await store.append_event("r1", "state", {"state": "QUEUED"})
        await store.put_model(model("m"))
        blob = await store.write_blob(chunks(b"weights"), limit=100)
        await store.put_checkpoint("r1", chunks(b"momentum"), limit=100)
        await store.append_ledger("d", "example", 0, {"n": 1})

        store = await reopen(store)

        assert await store.get_job("r1") == job("r1")
        assert await store.events("r1") == [event]
        assert (await store.append_event("r1", "log", {})).id == event.id + 1
        assert await store.list_models() == [model("m")]
        path = await store.blob_path(blob.digest)
        assert path is not None
        assert path.read_bytes() == b"weights"
        assert await checkpoint(store, "r1") == b"momentum"
        assert await store.read_ledger("d", "example") == (1, [{"n": 1}])


class LargeBlobs:
    """1 GiB is streamed, not held."""

    SIZE = 1 << 30
    MEMORY = 320 << 20
    """Bytes by which the process may grow meanwhile; the allocator keeps some for each thread."""

    async def test_a_blob_of_1_gib_is_streamed(self, store: Store) -> None:
        process, part, expected, peaks = psutil.Process(), bytes(range(256)) * 4096, hashlib.sha256(), list[int]()

        async def large() -> AsyncIterator[bytes]:
            for number in range(self.SIZE // len(part)):
                chunk = number.to_bytes(8, "big") + part[8:]
                expected.update(chunk)
                yield chunk

        async def watch() -> None:
            while True:
                peaks.append(process.memory_info().rss)
                await asyncio.sleep(0.05)

        before = process.memory_info().rss
        watching = asyncio.create_task(watch())
        try:
            blob = await store.write_blob(large(), limit=self.SIZE)
            assert await store.check_blob(blob.digest)
            path = await store.blob_path(blob.digest)
        finally:
            watching.cancel()
        assert blob.digest == expected.hexdigest()
        assert blob.size == self.SIZE
        assert path is not None
        assert path.stat().st_size == self.SIZE
        assert max(peaks) - before < self.MEMORY
