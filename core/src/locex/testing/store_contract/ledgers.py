"""Privacy ledgers."""
# A test's name says what it shows.
# ruff: noqa: D102

from __future__ import annotations

import asyncio

from locex.store.protocol import Store
from locex.testing.store_contract.examples import COMPETITORS


class LedgerContract:
    """No charge is lost, none made twice."""

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
