"""Models over HTTP: metadata and bytes in a store, with the paths that nodes and the FL Repository share."""

from __future__ import annotations

import time
from dataclasses import dataclass

from aiohttp import web
from pydantic import Field

from locex.errors import DuplicateModel, StoreUnavailable, TooLarge, UnknownModel
from locex.schemas.base import Configuration
from locex.schemas.model import ModelMetadata, Name, StoredModel
from locex.store.protocol import Store
from locex.web.routes import Routes, Scope
from locex.web.upload import CONSUMES, upload_chunks


@dataclass(frozen=True)
class ModelStore:
    """Where the models of an application are, and the most bytes that one may have."""

    store: Store
    max_bytes: int


MODELS: web.AppKey[ModelStore] = web.AppKey("models", ModelStore)


class ModelQuery(Configuration):
    """A model by name and version."""

    model_name: Name = Field(description="The model's name.")
    model_version: Name = Field(description="The model's version.")


routes = Routes()


async def post_model(request: web.Request, body: ModelMetadata) -> StoredModel:
    """Receive new training model metadata for local storage.

    Its bytes follow with PUT /model/{name}/{version}.
    """
    now = time.time()
    model = StoredModel(**body.model_dump(), created=now, updated=now)
    if not await request.app[MODELS].store.put_model(model, replace=False):
        raise DuplicateModel(body.model_name, body.model_version)
    return model


def model_routes(*, created: int) -> list[Routes]:
    """Return the routes; ``created``: the status of POST, which is 200 at a node and 201 at the FL Repository."""
    posting = Routes()
    posting.post(
        "/model/",
        tag="models",
        scope=Scope.RUN,
        body=ModelMetadata,
        response=StoredModel,
        status=created,
        errors=(DuplicateModel, StoreUnavailable),
    )(post_model)
    return [posting, routes]


@routes.get("/model/", tag="models", response=list[StoredModel], errors=(StoreUnavailable,))
async def list_models(request: web.Request) -> list[StoredModel]:
    """Return the metadata of all models."""
    return await request.app[MODELS].store.list_models()


@routes.get(
    "/model/meta", tag="models", query=ModelQuery, response=StoredModel, errors=(UnknownModel, StoreUnavailable)
)
async def get_model_metadata(request: web.Request, query: ModelQuery) -> StoredModel:
    """Return a model's metadata."""
    return await _known(request, query.model_name, query.model_version)


@routes.put(
    "/model/{name}/{version}",
    tag="models",
    scope=Scope.RUN,
    consumes=CONSUMES,
    status=204,
    errors=(UnknownModel, TooLarge, StoreUnavailable),
)
async def put_model(request: web.Request, name: str, version: str) -> None:
    """Update the weights and structure of the locally stored model."""
    models = request.app[MODELS]
    model = await _known(request, name, version)
    blob = await models.store.write_blob(upload_chunks(request, limit=models.max_bytes), limit=models.max_bytes)
    changed = {"digest": blob.digest, "size": blob.size, "updated": time.time()}
    await models.store.put_model(model.model_copy(update=changed))


@routes.get(
    "/model/{name}/{version}",
    tag="models",
    produces="application/octet-stream",
    errors=(UnknownModel, StoreUnavailable),
)
async def get_model(request: web.Request, name: str, version: str) -> web.StreamResponse:
    """Return a model's bytes."""
    model = await _known(request, name, version)
    return await blob_response(request, model.digest, f"{name}-{version}")


@routes.get(
    "/model/{name}/{version}/files/{file}",
    tag="models",
    produces="application/octet-stream",
    errors=(UnknownModel, StoreUnavailable),
)
async def get_model_file(request: web.Request, name: str, version: str, file: str) -> web.StreamResponse:
    """Return a file that a training kept beside the model: those that the model's lineage names.

    An export in ONNX, for instance, which inference serves.
    """
    files = (await _known(request, name, version)).lineage.get("files", {})
    if file not in files:
        raise UnknownModel(name, version, f"the store with a file {file!r}")
    return await blob_response(request, files[file], f"{name}-{version}-{file}")


@routes.delete(
    "/model/{name}/{version}",
    tag="models",
    scope=Scope.ADMIN,
    errors=(UnknownModel, StoreUnavailable),
)
async def delete_model(request: web.Request, name: str, version: str) -> None:
    """Delete a model from the local store."""
    if not await request.app[MODELS].store.delete_model(name, version):
        raise UnknownModel(name, version, "the store")


async def blob_response(request: web.Request, digest: str | None, name: str) -> web.StreamResponse:
    """Return stored bytes as a download; raise `UnknownModel` where there are none."""
    path = await request.app[MODELS].store.blob_path(digest) if digest else None
    if path is None:
        raise UnknownModel(name, "", "the store: its bytes have not arrived")
    headers = {"Content-Disposition": f'attachment; filename="{name}"', "ETag": f'"{digest}"'}
    return web.FileResponse(path, headers=headers)


async def _known(request: web.Request, name: str, version: str) -> StoredModel:
    model = await request.app[MODELS].store.get_model(name, version)
    if model is None:
        raise UnknownModel(name, version, "the store")
    return model
