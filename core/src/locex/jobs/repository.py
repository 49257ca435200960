"""Models for jobs: in the node's own store, else in the FL Repository."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

import aiohttp
from pydantic import ValidationError

from locex.errors import InvalidModel, RepositoryUnavailable, UnknownModel
from locex.schemas.model import ModelMetadata, StoredModel
from locex.store.protocol import Store

_METADATA_TIMEOUT = aiohttp.ClientTimeout(total=5)
_DOWNLOAD_TIMEOUT = aiohttp.ClientTimeout(total=None, connect=5, sock_read=60)
_METADATA_BYTES = 2**16
_CHUNK = 2**20


class Models:
    """Looks models up and fetches their bytes into the store."""

    def __init__(self, store: Store, repository_address: str | None, *, max_bytes: int) -> None:
        """``repository_address``: host:port or URL of the FL Repository, if the site has one."""
        self._store = store
        self._repository = None
        if repository_address:
            url = repository_address if "://" in repository_address else f"http://{repository_address}"
            self._repository = url.rstrip("/")
        self._max_bytes = max_bytes

    async def versions(self) -> dict[str, list[str]]:
        """Return the versions of the models in the node's own store, by name."""
        found: dict[str, list[str]] = {}
        for model in await self._store.list_models():
            found.setdefault(model.model_name, []).append(model.model_version)
        return found

    async def metadata(self, name: str, version: str) -> ModelMetadata:
        """Return a model's metadata; raise `UnknownModel` or `RepositoryUnavailable`."""
        stored = await self._store.get_model(name, version)
        if stored is not None:
            return stored
        if self._repository is None:
            raise UnknownModel(name, version, "the node's store; no FL Repository is set (REPOSITORY_ADDRESS)")
        query = {"model_name": name, "model_version": version}
        try:
            async with (
                aiohttp.ClientSession(timeout=_METADATA_TIMEOUT) as session,
                session.get(f"{self._repository}/model/meta", params=query) as response,
            ):
                if response.status == 404:  # noqa: PLR2004 -- HTTP's own number
                    raise self._unknown(name, version)
                response.raise_for_status()
                content = await _bounded(response)
                if content.strip() in {b"", b"null"}:
                    raise self._unknown(name, version)
                metadata = ModelMetadata.model_validate_json(content)
        except ValidationError:
            raise self._unavailable("its answer is no model's metadata") from None
        except (aiohttp.ClientError, TimeoutError) as error:
            raise self._unavailable(str(error) or type(error).__name__) from None
        if (metadata.model_name, metadata.model_version) != (name, version):
            raise self._unavailable(f"asked for the model {name!r} it answered with another")
        return metadata

    async def fetch(self, metadata: ModelMetadata) -> StoredModel:
        """Return the model with its bytes in the store, from the repository where the store lacks them."""
        name, version = metadata.model_name, metadata.model_version
        stored = await self._store.get_model(name, version)
        if stored is not None and stored.digest is not None:
            return stored
        if self._repository is None:
            raise InvalidModel(
                f"model {name!r} version {version!r} has metadata but no bytes",
                remedy=f"PUT /model/{name}/{version} with the artefact",
            )
        blob = await self._store.write_blob(self._download(name, version), limit=self._max_bytes)
        now = time.time()
        fetched = StoredModel(
            **metadata.model_dump(include=set(ModelMetadata.model_fields)),
            digest=blob.digest,
            size=blob.size,
            created=now,
            updated=now,
        )
        await self._store.put_model(fetched)
        return fetched

    async def _download(self, name: str, version: str) -> AsyncIterator[bytes]:
        try:
            async with (
                aiohttp.ClientSession(timeout=_DOWNLOAD_TIMEOUT) as session,
                session.get(f"{self._repository}/model/{name}/{version}") as response,
            ):
                if response.status == 404:  # noqa: PLR2004 -- HTTP's own number
                    raise self._unknown(name, version)
                response.raise_for_status()
                async for chunk in response.content.iter_chunked(_CHUNK):
                    yield chunk
        except (aiohttp.ClientError, TimeoutError) as error:
            raise self._unavailable(str(error) or type(error).__name__) from None

    def _unknown(self, name: str, version: str) -> UnknownModel:
        return UnknownModel(name, version, f"the node's store and the FL Repository at {self._repository}")

    def _unavailable(self, reason: str) -> RepositoryUnavailable:
        return RepositoryUnavailable(str(self._repository), reason)


async def _bounded(response: aiohttp.ClientResponse) -> bytes:
    """Return the body, or as much of it as metadata may have."""
    content = b""
    while len(content) <= _METADATA_BYTES and (chunk := await response.content.readany()):
        content += chunk
    return content[:_METADATA_BYTES]
