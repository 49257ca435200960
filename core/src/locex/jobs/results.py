"""What remains of a training: the model and its further files, in the store, with their lineage."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from locex.schemas.job import JobConfiguration
from locex.schemas.model import StoredModel
from locex.schemas.record import JobRecord
from locex.store.files import write_file
from locex.store.protocol import Store


async def keep_model(
    store: Store,
    record: JobRecord,
    files: list[Path],
    pipeline: dict[str, Any] | None = None,
    *,
    interim: int | None = None,
) -> dict[str, Any]:
    """Store a run's files and the model's metadata; return what the job's record says of them.

    ``pipeline`` is what stood before the model (`locex.pipelines.saved`): serving takes it from the lineage.
    ``interim`` is the round whose global model it is, while the training goes on. Older such models of the run go.
    """
    job = JobConfiguration.model_validate(record.configuration)
    version = job.export.model_version or f"{job.model_version[:100]}-{record.run_id}"  # a name has at most 128
    if interim is not None:
        version = f"{version[:115]}-round{interim}"
    blobs = {path.name: await write_file(store, path) for path in files}
    first = blobs[files[0].name]
    last = record.history[-1] if record.history else None
    lineage: dict[str, Any] = {
        "training_id": record.training_id,
        "run_id": record.run_id,
        "parent": {"model_name": job.model_name, "model_version": job.model_version},
        "round": record.round if interim is None else interim,
        "interim": interim is not None,
        "metrics": last.evaluation if last else {},
        "epsilon": last.epsilon if last else {},
        "plugins": record.plugins,
        "files": {name: blob.digest for name, blob in blobs.items()},
    }
    if pipeline is not None:
        lineage["pipeline"] = pipeline
    now = time.time()
    model = StoredModel.model_validate(
        {
            "model_name": job.model_name,
            "model_version": version,
            "meta": {"library": record.library, "description": f"trained in {record.training_id}"},
            "digest": first.digest,
            "size": first.size,
            "created": now,
            "updated": now,
            "lineage": lineage,
        }
    )
    if not await store.put_model(model, replace=False) and not await _is_ours(store, model):
        # Another job took the version meanwhile.
        model = model.model_copy(update={"model_version": f"{version[:100]}-{record.run_id}"})
        await store.put_model(model)
    await _drop_interim(store, model)
    return {
        "model_name": model.model_name,
        "model_version": model.model_version,
        "digest": first.digest,
        "files": lineage["files"],
    }


async def _drop_interim(store: Store, newest: StoredModel) -> None:
    """Delete the run's models of earlier rounds."""
    for model in await store.list_models():
        ours = model.lineage.get("run_id") == newest.lineage["run_id"] and model.lineage.get("interim")
        if ours and model.model_version != newest.model_version:
            await store.delete_model(model.model_name, model.model_version)


async def _is_ours(store: Store, model: StoredModel) -> bool:
    """Tell whether the run stored the model already, and only the answer was lost."""
    known = await store.get_model(model.model_name, model.model_version)
    return known is not None and known.lineage.get("run_id") == model.lineage["run_id"]
