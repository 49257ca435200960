"""Metadata of models."""
# A test's name says what it shows.
# ruff: noqa: D102

from __future__ import annotations

import asyncio

from locex.store.protocol import Store
from locex.testing.store_contract.examples import COMPETITORS, model


class ModelContract:
    """A name and a version have one model."""

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
