"""Runs of jobs and their events."""
# A test's name says what it shows, and expected values are literal.
# ruff: noqa: D102, PLR2004

from __future__ import annotations

import asyncio
import math

from locex.schemas.record import JobEvent, JobState, RoundRecord
from locex.store.protocol import Store
from locex.testing.store_contract.examples import COMPETITORS, job


class JobContract:
    """A run has one record, of which one of many claims wins."""

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


class EventContract:
    """Events are numbered by run, in order."""

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
