from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import textwrap

import h5py
import numpy as np
import pytest

from locex.errors import InvalidModel
from locex.schemas.job import TrainConfig

CONFIG = TrainConfig(batch_size=16, epochs=2)


def shaped(make):
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        make(file.create_group("layers/dense/vars"))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda group: group.create_dataset("0", (30_000, 30_000), "f4"), "declares 3600000000 bytes"),
        (lambda group: group.create_dataset("0", (30_000, 30_000), "f4", chunks=(100, 100)), "declares 3600000000"),
        (lambda group: group.create_dataset("0", (30_000,), "f4", external=[("/etc/passwd", 0, 120_000)]), "plain"),
        (lambda group: group.update({"0": h5py.ExternalLink("/tmp/other.h5", "/x")}), "link"),
        (lambda group: group.update({"0": h5py.SoftLink("/x")}), "link"),
        (lambda group: group.create_dataset("0", data=["words"]), "plain"),
        (
            lambda group: group.create_dataset("0", data=np.zeros(10**6), compression="gzip", chunks=(10**6,)),
            "declares",
        ),
    ],
    ids=["contiguous", "chunked", "external", "external link", "soft link", "words", "compressed"],
)
def test_hdf5_must_hold_what_it_declares(make, message, keras_file, tmp_path, make_session, kit):
    entries = kit.entries_of(keras_file) | {"model.weights.h5": shaped(make)}
    with pytest.raises(InvalidModel, match=message):
        make_session(kit.pack(tmp_path / "m.keras", entries))


def test_compressed_weights_are_taken(keras_file, tmp_path, make_session, kit):
    entries = kit.entries_of(keras_file)
    buffer = io.BytesIO()
    with h5py.File(io.BytesIO(entries["model.weights.h5"])) as old, h5py.File(buffer, "w") as new:

        def copy(name, found):
            if isinstance(found, h5py.Dataset):
                chunked = {"compression": "gzip"} if found.shape else {}
                new.create_dataset(name, data=found[()], **chunked)
            else:
                new.require_group(name).attrs.update(found.attrs)

        old.visititems(copy)
    session = make_session(kit.pack(tmp_path / "m.keras", entries | {"model.weights.h5": buffer.getvalue()}))
    assert session.evaluate(CONFIG) == make_session(keras_file).evaluate(CONFIG)


IN_A_PROCESS = """
    import os
    environment = dict(os.environ)
    import json, pathlib, resource, sys
    from importlib.metadata import entry_points
    from types import SimpleNamespace
    from locex.errors import InvalidModel
    from locex.schemas.base import validate
    from locex_keras_builder.artefact import load_model
    from locex_keras_builder.kerases import import_keras

    backend = import_keras("keras").module.backend.backend()
    import_keras("tf_keras")
    changed = [name for name in ("KERAS_BACKEND", "TF_CPP_MIN_LOG_LEVEL", "TF_USE_LEGACY_KERAS")
               if os.environ.get(name) != environment.get(name)]

    def architecture(name, fields, seed):
        (entry,) = entry_points(group="locex.architecture", name=f"keras.{name}")
        plugin = entry.load()()
        return plugin.locex_create_architecture(validate(plugin.locex_config_model(), dict(fields)), 0)

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    messages = []
    for path in sys.argv[1:]:
        artefact = SimpleNamespace(path=pathlib.Path(path))
        context = SimpleNamespace(artefact=artefact, architecture=architecture, allow_programs=True)
        try:
            load_model(context)
            messages.append("loaded")
        except InvalidModel as error:
            messages.append(error.message)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024
    print(json.dumps({"messages": messages, "grown": grown, "backend": backend, "changed": changed}))
"""


@pytest.fixture(scope="module")
def elsewhere(keras_file, saved_folder, tmp_path_factory, kit):
    """What a process with a hostile environment says of artefacts that declare 1.2 GB and more."""
    from tf_keras.protobuf import saved_metadata_pb2

    folder = tmp_path_factory.mktemp("bombs")
    huge = shaped(lambda group: group.create_dataset("0", (30_000, 30_000), "f4"))
    shapes = kit.pack(folder / "a.keras", kit.entries_of(keras_file) | {"model.weights.h5": huge})
    layers = kit.changed(
        keras_file, folder / "b.keras", lambda config: config["config"]["layers"][-1]["config"].update(units=10**8)
    )
    entries = kit.entries_of(kit.zipped(saved_folder, folder / "c.zip"))
    metadata = saved_metadata_pb2.SavedMetadata.FromString(entries["keras_metadata.pb"])
    for node in metadata.nodes:
        node.metadata = node.metadata.replace('"units": 3', f'"units": {10**8}')
    saved = kit.pack(folder / "c.zip", entries | {"keras_metadata.pb": metadata.SerializeToString()})
    config = {"input_size": [8], "hidden": [10**8, 10], "num_classes": 3}
    wide = {"format": "architecture", "library": "keras", "architecture": "mlp", "config": config}
    empty = kit.pack(folder / "e.zip", {"manifest.json": json.dumps(wide)})
    weights = {"weights.safetensors": b"\x02\0\0\0\0\0\0\0{}"}
    manifest = kit.pack(folder / "d.zip", kit.entries_of(empty) | weights)
    answer = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(IN_A_PROCESS), shapes, layers, saved, manifest, empty],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"TF_USE_LEGACY_KERAS": "1", "KERAS_BACKEND": "jax", "TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    return json.loads(answer.stdout)


def test_declared_sizes_allocate_nothing(elsewhere):
    first, *others = elsewhere["messages"]
    assert "declares 3600000000 bytes" in first
    assert len(others) == 4
    assert all("weights, the artefact holds" in message for message in others)
    assert elsewhere["grown"] < 300


def test_the_environment_neither_rules_nor_changes(elsewhere):
    assert elsewhere["backend"] == "tensorflow"
    assert elsewhere["changed"] == []


def test_truncated_weights_are_refused(keras_file, tmp_path, make_session, kit):
    entries = kit.entries_of(keras_file)
    entries["model.weights.h5"] = entries["model.weights.h5"][:-4000]
    with pytest.raises(InvalidModel, match=r"model\.weights\.h5") as caught:
        make_session(kit.pack(tmp_path / "m.keras", entries))
    assert caught.value.remedy
