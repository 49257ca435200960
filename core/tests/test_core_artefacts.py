from __future__ import annotations

import io
import json
import pickle
import resource
import stat
import struct
import zipfile
from importlib.metadata import version
from itertools import chain
from types import SimpleNamespace

import numpy as np
import pytest
from pydantic import TypeAdapter

from locex.artefacts.architecture import create, write_initial, write_trained
from locex.artefacts.archive import MAX_ENTRIES, open_archive, read_entry
from locex.artefacts.batches import BatchPlan
from locex.artefacts.formats import name_of, wrong_format
from locex.artefacts.manifest import MANIFEST, WEIGHTS, Manifest, read_manifest, require_fitting, write_artefact
from locex.artefacts.memory import require_room
from locex.artefacts.programs import require_programs
from locex.artefacts.state import require_version
from locex.errors import InvalidConfiguration, InvalidModel, LocexError, UnknownPlugin
from locex.processes.memory import allocated, hard_limit, room
from locex.schemas.architecture import OutputConfig
from locex.schemas.base import validate
from locex.schemas.job import TrainConfig
from locex.schemas.objectives import CommonLoss, MetricName, plain_name
from locex.settings import NodeSettings, SiteSettings, worker_environment

CONTENT = {"format": "architecture", "library": "tiny", "architecture": "net", "config": {"units": 3}}


def packed(entries, compression=zipfile.ZIP_STORED):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return file


# --- archives ---------------------------------------------------------------------------------------------------------


def test_entries_are_read():
    assert read_entry(open_archive(packed({"a/b": b"x"})), "a/b") == b"x"


@pytest.mark.parametrize("percent", range(0, 100, 10))
def test_a_truncated_archive_is_refused(percent):
    whole = packed({f"{number}": bytes(range(256)) for number in range(20)}).getvalue()
    with pytest.raises(InvalidModel, match="corrupt zip archive"):
        open_archive(io.BytesIO(whole[: len(whole) * percent // 100]))


def test_a_damaged_entry_is_refused():
    content = bytearray(packed({"a": bytes(1000)}).getvalue())
    content[500] ^= 0xFF
    with pytest.raises(InvalidModel, match="cannot be read: Bad CRC-32"):
        read_entry(open_archive(io.BytesIO(content)), "a")


def test_a_thousandfold_expansion_is_refused():
    bomb = packed({"a": bytes(10_000_000)}, zipfile.ZIP_DEFLATED)
    assert bomb.seek(0, 2) < 12_000
    with pytest.raises(InvalidModel, match="compression ratio over 100"):
        open_archive(bomb)


def test_an_archive_in_an_archive_does_not_expand_twice():
    inner = packed({"a": bytes(10_000)}, zipfile.ZIP_DEFLATED)
    with pytest.raises(InvalidModel, match="compression ratio"):
        open_archive(inner, packed=99)
    assert open_archive(inner, packed=101).namelist() == ["a"]


def test_no_more_is_unpacked_than_was_declared():
    content = packed({"a": bytes(100_000)}, zipfile.ZIP_DEFLATED).getvalue()
    lying = content.replace(struct.pack("<L", 100_000), struct.pack("<L", 100))
    assert lying != content
    with pytest.raises(InvalidModel, match="cannot be read"):
        read_entry(open_archive(io.BytesIO(lying)), "a")


@pytest.mark.parametrize("entries", [MAX_ENTRIES + 1, 100_000])
def test_too_many_entries_are_refused(entries):
    with pytest.raises(InvalidModel, match=f"{entries} entries"):
        open_archive(packed({f"{number}": b"" for number in range(entries)}))


def test_entries_that_share_bytes_are_refused():
    content = packed({"a": bytes(1000), "b": bytes(1000)}).getvalue()
    second = content.index(b"PK\x03\x04", 4)
    directory = content.rindex(b"PK\x01\x02")
    offset = directory + 42
    assert content[offset : offset + 4] == struct.pack("<L", second)
    overlapping = content[:offset] + struct.pack("<L", 10) + content[offset + 4 :]
    with pytest.raises(InvalidModel, match="overlap"):
        open_archive(io.BytesIO(overlapping))


def test_encrypted_entries_are_refused():
    content = bytearray(packed({"a": b"xxxx"}).getvalue())
    for header, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(header) + flags] |= 1
    with pytest.raises(InvalidModel, match="password required") as caught:
        read_entry(open_archive(io.BytesIO(content)), "a")
    assert "unencrypted" in caught.value.remedy


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "a/../../evil", "a\\..\\evil", "C:/evil", "a\0b"])
def test_unsafe_names_are_refused(name):
    content = packed({name.replace("\0", "?"): b"x"}).getvalue().replace(b"a?b", b"a\0b")
    with pytest.raises(InvalidModel, match="unsafe entry"):
        open_archive(io.BytesIO(content))


def test_one_name_twice_is_refused():
    content = packed({"a1": b"x", "a2": b"y"}).getvalue().replace(b"a2", b"a1")
    with pytest.raises(InvalidModel, match="unsafe entry 'a1'"):
        open_archive(io.BytesIO(content))


def test_links_are_refused():
    link = zipfile.ZipInfo("weights")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(InvalidModel, match="unsafe entry"):
        open_archive(file)


# --- manifests --------------------------------------------------------------------------------------------------------


def test_what_is_written_is_read(tmp_path):
    for name in "ab":
        write_artefact(tmp_path / name, Manifest.model_validate(CONTENT), b"weights")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    with (tmp_path / "a").open("rb") as file:
        archive = open_archive(file)
        assert read_manifest(archive, "tiny") == Manifest.model_validate(CONTENT)
        assert read_entry(archive, WEIGHTS) == b"weights"


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[]", "wrong"),
        (json.dumps(CONTENT | {"more": 1}), "unknown key"),
        (" " * 2**20 + "{}", "larger than"),
    ],
)
def test_a_wrong_manifest_is_refused(manifest, message):
    with pytest.raises(InvalidModel, match=message):
        read_manifest(open_archive(packed({MANIFEST: manifest})), "tiny")


def test_the_manifest_of_another_library_is_refused():
    with pytest.raises(InvalidModel, match="of the library 'tiny', its metadata says 'other'") as caught:
        read_manifest(open_archive(packed({MANIFEST: json.dumps(CONTENT)})), "other")
    assert "meta.library" in caught.value.remedy


def test_every_tensor_that_does_not_fit_is_named():
    with pytest.raises(InvalidModel) as caught:
        require_fitting({"a": (16, 8), "b": (3,)}, {"a": (16, 9), "c": (1,)})
    for part in ("a has shape [16, 9], not [16, 8]", "b is missing", "c is not of the architecture"):
        assert part in caught.value.message
    assert "every tensor" in caught.value.remedy
    require_fitting({"a": (16, 8)}, {"a": [16, 8]})


# --- architectures ----------------------------------------------------------------------------------------------------


def test_an_architecture_is_made_as_its_manifest_says():
    def refuse(name, config, seed):
        raise InvalidConfiguration("/units: too many")

    manifest = Manifest.model_validate(CONTENT | {"seed": 7})
    assert create(manifest, SimpleNamespace(architecture=lambda *given: given)) == ("net", {"units": 3}, 7)
    with pytest.raises(InvalidModel, match="does not fit the architecture 'net': /units: too many") as caught:
        create(manifest, SimpleNamespace(architecture=refuse))
    assert "correct the manifest's config" in caught.value.remedy


def test_an_architecture_that_is_not_installed_is_not_written(tmp_path):
    with pytest.raises(UnknownPlugin, match=r"no architecture named 'tiny\.net' is installed"):
        write_initial(tmp_path / "a", library="tiny", architecture="net", config={}, seed=0, weights_of=bytes)
    assert not (tmp_path / "a").exists()


def test_trained_weights_are_not_those_of_the_seed(tmp_path):
    path = write_trained(tmp_path, Manifest.model_validate(CONTENT | {"seed": 7}), b"trained")
    assert path == tmp_path / "model.zip"
    with path.open("rb") as file:
        archive = open_archive(file)
        assert read_manifest(archive, "tiny").seed is None
        assert read_entry(archive, WEIGHTS) == b"trained"


@pytest.mark.parametrize(
    ("given", "units"),
    [
        ({"num_classes": 10}, 10),
        ({"outputs": 3}, 3),
        ({"num_classes": 2, "outputs": 1}, 1),
        ({"num_classes": 4, "outputs": 4}, 4),
        ({}, "must be given"),
        ({"num_classes": 3, "outputs": 1}, "outputs must equal num_classes"),
        ({"num_classes": 1}, "greater than or equal to 2"),
        ({"outputs": 0}, "greater than 0"),
    ],
)
def test_an_architecture_has_as_many_units_as_classes_or_as_it_says(given, units):
    if isinstance(units, int):
        assert validate(OutputConfig, given).units == units
    else:
        with pytest.raises(InvalidConfiguration, match=units):
            validate(OutputConfig, given)


# --- names of losses and metrics --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "plain", "kind"),
    [
        ("CategoricalCrossentropy", "categorical_crossentropy", CommonLoss),
        ("BCEWithLogitsLoss", "bce_with_logits", CommonLoss),
        (" MSE ", "mse", MetricName),
        ("RootMeanSquaredError", "root_mean_squared_error", MetricName),
        ("AUC", "auc", MetricName),
    ],
)
def test_names_of_classes_are_names(name, plain, kind):
    assert plain_name(name) == plain
    assert TypeAdapter(kind).validate_python(plain_name(name)) == plain


# --- batches ----------------------------------------------------------------------------------------------------------


class Plan(BatchPlan):
    def _shuffled(self, seed):
        return np.random.default_rng(seed).permutation(self._examples)


def batches_of(epochs, *, steps=None, server_round=1):
    plan = Plan(10, TrainConfig(batch_size=4, steps_per_epoch=steps), seed=0, server_round=server_round)
    return [[list(batch) for batch in plan.epoch(number)] for number in range(epochs)]


def test_every_pass_takes_each_example_once_in_an_order_of_its_own():
    passes = batches_of(2)
    assert [[len(batch) for batch in one] for one in passes] == [[4, 4, 2]] * 2
    assert all(sorted(chain(*one)) == list(range(10)) for one in passes)
    assert passes[0] != passes[1]
    assert passes == batches_of(2)
    assert passes != batches_of(2, server_round=2)


def test_a_short_epoch_goes_on_where_the_last_one_ended():
    whole, short = batches_of(2), batches_of(3, steps=2)
    assert [*chain(*short)] == [*chain(*whole)]
    assert batches_of(1, steps=9) == batches_of(1)


# --- states -----------------------------------------------------------------------------------------------------------


def test_a_state_of_another_major_version_is_not_taken_up():
    installed = version("locex-core")
    require_version("locex-core", installed)
    require_version("locex-core", installed.partition(".")[0] + ".999")
    with pytest.raises(LocexError, match=f"of locex-core 999.0, installed is {installed}") as caught:
        require_version("locex-core", "999.0")
    assert caught.value.error_code == "state-incompatible"
    assert "start it anew" in caught.value.remedy


# --- formats ----------------------------------------------------------------------------------------------------------

HEADER = b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (packed({"config.json": "{}", "metadata.json": "{}", "model.weights.h5": b""}), "a Keras model (.keras)"),
        (packed({"m/saved_model.pb": b"", "m/variables/variables.index": b""}), "a TensorFlow SavedModel"),
        (packed({"m/data.pkl": b"", "m/constants.pkl": b"", "m/code/x.py": b""}), "a TorchScript program"),
        (packed({"a/b/scripted_model.pt": b""}), "a zipped TorchScript program"),
        (packed({"m/archive_format": b"pt2", "m/archive_version": b"0"}), "a torch.export archive (.pt2)"),
        (packed({"m/data.pkl": b"", "m/version": b"3"}), "a pickle, which could run any code when loaded (torch.save)"),
        (packed({"weights.pkl": b""}), "a pickle, which could run any code when loaded (in a zip)"),
        (packed({"manifest.json": b"{}"}), "a named architecture (manifest.json)"),
        (packed({"readme": b""}), "a zip archive that holds no known model"),
        (io.BytesIO(pickle.dumps([1])), "a pickle, which could run any code when loaded"),
        (io.BytesIO(b"\x89HDF\r\n\x1a\n" + bytes(100)), "an HDF5 file (.h5)"),
        (io.BytesIO(b"\x1c\0\0\0TFL3" + bytes(100)), "a TFLite model"),
        (io.BytesIO(b"\x08\x0a\x12\x07pytorch\x1a"), "an ONNX model"),
        (io.BytesIO(struct.pack("<Q", len(HEADER)) + HEADER + bytes(4)), "bare safetensors weights, without the arch"),
        (io.BytesIO(b"hello"), "of an unknown format"),
        (io.BytesIO(), "empty"),
    ],
)
def test_files_are_known_by_their_content(content, name):
    assert name_of(content).startswith(name)
    error = wrong_format(content, "tiny", "a tiny model")
    assert name in error.message
    assert error.remedy.startswith("upload a tiny model")


def test_the_wrong_library_is_told():
    error = wrong_format(packed({"saved_model.pb": b""}), "tiny", "a tiny model")
    assert (
        error.message == "the artefact is a TensorFlow SavedModel, which is none of the formats of the library 'tiny'"
    )
    assert "meta.library" in error.remedy


# --- memory and programs ----------------------------------------------------------------------------------------------


def test_what_does_not_fit_is_refused_before_it_is_made():
    require_room(1000, "the model")
    with pytest.raises(
        InvalidModel, match=r"the model needs 953,674,316 MiB of memory, there are [\d,]+ MiB"
    ) as caught:
        require_room(10**15, "the model")
    assert "memory_mb" in caught.value.remedy


def test_a_hard_limit_bounds_the_room_and_is_lifted_again():
    before = resource.getrlimit(resource.RLIMIT_DATA)
    with hard_limit(200):
        assert 0 < room() <= 200 * 2**20
        with pytest.raises(MemoryError):
            bytearray(300 * 2**20)
        with pytest.raises(InvalidModel, match="there are"):
            require_room(300 * 2**20, "the model")
    assert resource.getrlimit(resource.RLIMIT_DATA) == before
    assert len(bytearray(300 * 2**20)) == 300 * 2**20


def test_without_a_limit_no_more_is_given_than_the_machine_has():
    with hard_limit(None):
        limit, _ = resource.getrlimit(resource.RLIMIT_DATA)
        assert allocated() < limit < 2**50


@pytest.mark.parametrize("given", ["0", "false", "1", None])
def test_the_operator_says_whether_programs_are_taken(given, monkeypatch):
    if given is not None:
        monkeypatch.setenv("LOCEX_ALLOW_PROGRAMS", given)
    told = worker_environment(NodeSettings())
    monkeypatch.setenv("LOCEX_ALLOW_PROGRAMS", told["LOCEX_ALLOW_PROGRAMS"])
    context = SiteSettings()  # has the field of the same name
    if given in {"0", "false"}:
        with pytest.raises(InvalidModel, match=r"a program \(SavedModel\), which this site refuses") as caught:
            require_programs(context, "SavedModel", "a .keras file")
        assert caught.value.error_code == "program-refused"
        assert "a .keras file" in caught.value.remedy
    else:
        require_programs(context, "SavedModel", "a .keras file")
