from __future__ import annotations

import io
import json
import pickle
import resource
import stat
import struct
import zipfile

import pytest

from locex.artefacts.archive import MAX_ENTRIES, open_archive, read_entry
from locex.artefacts.formats import name_of, wrong_format
from locex.artefacts.manifest import MANIFEST, WEIGHTS, Manifest, read_manifest, require_fitting, write_artefact
from locex.artefacts.memory import allocated, require_room, room
from locex.artefacts.programs import require_programs
from locex.errors import InvalidModel
from locex.settings import NodeSettings, SiteSettings, worker_environment
from locex.worker.memory import hard_limit

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
