"""Records that another version of locex wrote."""
# A test's name says what it shows.
# ruff: noqa: D102

from __future__ import annotations

import pytest

from locex.errors import StoreUnavailable
from locex.store import records
from locex.store.protocol import Store
from locex.testing.store_contract.examples import job, model


class VersionContract:
    """Older records are migrated when they are read, newer ones refused."""

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
