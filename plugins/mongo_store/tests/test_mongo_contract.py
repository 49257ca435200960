"""The contract of stores, over a replica set and over a standalone server."""

from __future__ import annotations

import pytest

from locex.testing.store_contract import LargeBlobs, StoreContract


@pytest.fixture(params=["replica_set", "standalone"])
def server(request, emptied):
    return emptied(request.getfixturevalue(request.param))


@pytest.fixture
async def store(server, make_store):
    return await make_store(server.url)


class TestMongoStore(StoreContract):
    @pytest.fixture
    def reopen(self, server, make_store):
        async def reopen(store):
            await store.close()
            return await make_store(server.url)

        return reopen

    @pytest.fixture
    def another_machine(self, server, make_store):
        """Open the same data as the same node, but without the local copies."""

        async def reopen(store):
            await store.close()
            return await make_store(server.url, folder="elsewhere", node=store._node)

        return reopen

    async def test_everything_is_there_on_another_machine(self, store, another_machine):
        await self.test_everything_is_there_after_a_restart(store, another_machine)


@pytest.mark.slow
@pytest.mark.timeout(600)
class TestLargeMongoBlobs(LargeBlobs):
    pass
