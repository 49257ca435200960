"""The data sources ``npz`` and ``hdf5`` on real files, good, broken and hostile."""

import zipfile

import h5py
import numpy as np
import pytest

from locex.errors import DataUnavailable

X, Y = np.arange(60, dtype=np.uint8).reshape(10, 3, 2), np.arange(10)


def refused(source, *complaints):
    for ask in ("format", "load"):
        with pytest.raises(DataUnavailable) as caught:
            getattr(source, ask)()
        for complaint in complaints:
            assert complaint in caught.value.message
        assert caught.value.remedy


# --- npz --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_an_archive_of_four_arrays(save, tmp_path, make_source):
    save(tmp_path / "data.npz", x_train=X, y_train=Y, x_test=X[:4], y_test=Y[:4])
    data = make_source("npz", tmp_path).load()
    np.testing.assert_array_equal(data.train.x, X, strict=True)
    np.testing.assert_array_equal(data.test.y, Y[:4], strict=True)
    assert data.format.x.data_types["image"].size == [3, 2]
    assert make_source("npz", tmp_path).format() == data.format


def test_arrays_may_have_other_names_and_hold_texts(tmp_path, make_source):
    np.savez(tmp_path / "a.npz", words=np.array(["ab", "cde", "f"]), which=np.arange(3))
    data = make_source("npz", tmp_path, file="a.npz", x_train="words", y_train="which", test_fraction=0.4).load()
    assert sorted([*data.train.x, *data.test.x]) == ["ab", "cde", "f"]
    assert data.format.x.model_dump(exclude_none=True) == {"data_types": {"text": {"size": []}}}


class Trap:
    def __reduce__(self):
        return (print, ("unpickled!",))


@pytest.mark.parametrize(
    ("x", "complaint"),
    [
        (np.array([Trap()] * 10, object), "|O"),
        (np.asfortranarray(np.zeros((10, 3))), "Fortran order"),
        (np.zeros((9, 3)), "x has 9 examples, y has 10"),
        (np.zeros(10, ">f4"), "holds >f4"),
        (np.float32(1), "holds <f4 of shape ()"),
        (np.zeros((10, 2**21)), "'x_train' has"),
    ],
    ids=["objects", "fortran", "lengths", "byte order", "scalar", "bomb"],
)
def test_arrays_that_are_refused(x, complaint, tmp_path, make_source, capsys):
    np.savez_compressed(tmp_path / "data.npz", x_train=x, y_train=Y)
    refused(make_source("npz", tmp_path), complaint)
    assert "unpickled" not in capsys.readouterr().out


def test_archives_that_are_broken(tmp_path, make_source):
    np.savez(tmp_path / "data.npz", x_train=X)
    refused(make_source("npz", tmp_path), "has no array 'y_train'; its arrays are: x_train")
    whole = (tmp_path / "data.npz").read_bytes()
    (tmp_path / "data.npz").write_bytes(whole[: len(whole) // 2])
    refused(make_source("npz", tmp_path), "'data.npz' is not an archive")
    with zipfile.ZipFile(tmp_path / "data.npz", "w") as archive:
        archive.writestr("x_train.npy", b"\x93NUMPY\x01\x00\x00")
        archive.writestr("y_train.npy", b"")
    refused(make_source("npz", tmp_path), "'data.npz' is not an archive")


def test_a_member_that_is_shorter_than_it_says(tmp_path, make_source):
    with zipfile.ZipFile(tmp_path / "data.npz", "w") as archive:
        for name, array in (("x_train", X), ("y_train", Y)):
            with archive.open(f"{name}.npy", "w") as file:
                header = {"descr": array.dtype.str, "fortran_order": False, "shape": array.shape}
                np.lib.format.write_array_header_1_0(file, header)
                file.write(array.tobytes()[:-3])
    with pytest.raises(DataUnavailable, match="x_train is truncated"):
        make_source("npz", tmp_path).load()


# --- hdf5 -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def file(tmp_path):
    with h5py.File(tmp_path / "data.h5", "w") as file:
        file["y_train"] = Y
        yield file


def test_datasets_by_name_through_groups(file, tmp_path, make_source):
    file.create_dataset("images/train", data=X, chunks=(4, 3, 2), compression="gzip", shuffle=True, fletcher32=True)
    file.create_dataset("images/test", data=X[:3], compression="lzf")
    file["y_test"] = Y[:3]
    file.close()
    source = make_source("hdf5", tmp_path, x_train="images/train", x_test="images/test")
    assert source.format().x.data_types["image"].size == [3, 2]
    data = source.load()
    np.testing.assert_array_equal(data.train.x, X, strict=True)
    np.testing.assert_array_equal(data.test.x, X[:3], strict=True)


def virtual(file, folder):
    with h5py.File(folder / "other.h5", "w") as other:
        other["x"] = X
    layout = h5py.VirtualLayout(X.shape, X.dtype)
    layout[:] = h5py.VirtualSource(folder / "other.h5", "x", X.shape)
    file.create_virtual_dataset("x_train", layout)


def external_link(file, folder):
    with h5py.File(folder / "other.h5", "w") as other:
        other["x"] = X
    file["x_train"] = h5py.ExternalLink(str(folder / "other.h5"), "x")


def soft_link(file, _):
    file["x"] = X
    file["x_train"] = h5py.SoftLink("/x")


def external_storage(file, folder):
    (folder / "raw").write_bytes(X.tobytes())
    file.create_dataset("x_train", X.shape, X.dtype, external=[(str(folder / "raw"), 0, 60)])


def unknown_filter(file, _):
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_chunk((10, 3, 2))
    properties.set_filter(32015, h5py.h5z.FLAG_OPTIONAL, (3,))
    h5py.h5d.create(file.id, b"x_train", h5py.h5t.NATIVE_UINT8, h5py.h5s.create_simple(X.shape), properties)


def bomb(file, _):
    file.create_dataset("x_train", (10, 2**30), chunks=(1, 2**10), compression="gzip")


def huge_chunks(file, _):
    file.create_dataset("x_train", (10, 2**22), np.float64, chunks=(10, 2**22))


@pytest.mark.parametrize(
    ("write", "complaint"),
    [
        (virtual, "holds data of other files"),
        (external_storage, "holds data of other files"),
        (external_link, "'x_train' is a link"),
        (soft_link, "'x_train' is a link"),
        (unknown_filter, "needs the filters [32015]"),
        (bomb, "declares shape (10, 1073741824)"),
        (huge_chunks, "has"),
        (lambda file, _: file.create_group("x_train"), "has no dataset 'x_train'"),
        (lambda file, _: file.create_dataset("x_train", data=["a"] * 10), "no numbers"),
        (lambda file, _: file.create_dataset("x_train", data=np.zeros(10, ">f4")), "holds >f4"),
        (lambda file, _: file.create_dataset("x_train", data=h5py.Empty("f4")), "declares shape None"),
        (lambda file, _: file.create_dataset("x_train", data=X[:9]), "x has 9 examples, y has 10"),
        (lambda file, _: None, "has no dataset 'x_train'; at its top are: y_train"),
    ],
)
def test_hdf5_files_that_are_refused(write, complaint, file, tmp_path, make_source):
    write(file, tmp_path)
    file.close()
    refused(make_source("hdf5", tmp_path), complaint)


def test_what_is_no_hdf5_file(tmp_path, make_source):
    (tmp_path / "data.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + b"\0" * 100)
    refused(make_source("hdf5", tmp_path), "'data.h5' is not an HDF5 file")
