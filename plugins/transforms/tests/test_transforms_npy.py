"""The data source ``npy`` on real files, good and broken."""

import pickle
import re
from importlib.metadata import entry_points

import numpy as np
import pytest

from locex.api import SiteContext
from locex.errors import DataUnavailable, InvalidConfiguration
from locex.schemas.base import validate


def source(folder, seed=0, **fields):
    (entry,) = entry_points(group="locex.data", name="npy")
    plugin = entry.load()()
    return plugin.locex_create_data(validate(plugin.locex_config_model(), fields), SiteContext(folder, seed))


def write(folder, n=10, test=True, x_shape=(4, 3)):
    rng = np.random.default_rng(0)
    for part in ("train", "test")[: 1 + test]:
        np.save(folder / f"x_{part}.npy", rng.integers(0, 255, (n, *x_shape), np.uint8))
        np.save(folder / f"y_{part}.npy", np.arange(n))


def refused(folder, complaint, **fields):
    for ask in ("format", "load"):
        with pytest.raises(DataUnavailable, match=re.escape(complaint)) as caught:
            getattr(source(folder, **fields), ask)()
        assert caught.value.remedy


def test_existing_files_stay_on_the_disk(tmp_path):
    write(tmp_path)

    data = source(tmp_path).load()

    for array in (data.train.x, data.train.y, data.test.x, data.test.y):
        assert isinstance(array, np.memmap)
        assert not array.flags.writeable
    np.testing.assert_array_equal(data.train.x, np.load(tmp_path / "x_train.npy"))
    np.testing.assert_array_equal(data.test.y, np.load(tmp_path / "y_test.npy"))
    assert data.format == source(tmp_path).format()


@pytest.mark.parametrize(
    ("x", "y", "expected"),
    [
        (np.zeros((2, 28, 28), np.uint8), np.zeros(2, np.int64), ("image", [28, 28], "categorical", [])),
        (np.zeros((2, 5)), np.zeros((2, 1), np.int8), ("tabular", [5], "categorical", [1])),
        (np.zeros(2), np.zeros(2, np.float32), ("numerical", [], "numerical", [])),
        (np.zeros((2, 8, 8, 3)), np.zeros((2, 10)), ("image", [8, 8, 3], "numerical", [10])),
    ],
)
def test_the_format_follows_ranks_and_types(tmp_path, x, y, expected):
    np.save(tmp_path / "x_train.npy", x)
    np.save(tmp_path / "y_train.npy", y)

    data_format = source(tmp_path).format()

    ((x_kind, x_tensor),) = data_format.x.data_types.items()
    ((y_kind, y_tensor),) = data_format.y.data_types.items()
    assert (x_kind, x_tensor.size, y_kind, y_tensor.size) == expected
    assert (x_tensor.dtype, y_tensor.dtype) == (x.dtype.name, y.dtype.name)


def test_kinds_may_be_given(tmp_path):
    write(tmp_path)

    data_format = source(tmp_path, x_kind="series", y_kind="binary").format()

    assert (list(data_format.x.data_types), list(data_format.y.data_types)) == (["series"], ["binary"])


def test_the_format_reads_headers_only(tmp_path):
    """A file of 64 GiB of examples, nearly all of it a hole, answers at once."""
    header = {"descr": "<f4", "fortran_order": False, "shape": (2**24, 1024)}
    with (tmp_path / "x_train.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        file.truncate(file.tell() + 2**36)
    with (tmp_path / "y_train.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header | {"shape": (2**24,)})
        file.truncate(file.tell() + 2**26)

    assert source(tmp_path).format().x.data_types["tabular"].size == [1024]


def test_without_test_files_a_part_is_drawn_by_the_seed(tmp_path):
    write(tmp_path, n=50, test=False)

    first, again, other = (source(tmp_path, seed=seed).load() for seed in (1, 1, 2))

    assert (len(first.train), len(first.test)) == (40, 10)
    assert sorted([*first.train.y, *first.test.y]) == list(range(50))
    np.testing.assert_array_equal(first.test.y, again.test.y)
    assert list(first.test.y) != list(other.test.y)
    everything = np.load(tmp_path / "x_train.npy")
    np.testing.assert_array_equal(first.train.x, everything[first.train.y])
    np.testing.assert_array_equal(first.test.x, everything[first.test.y])


@pytest.mark.parametrize(("fraction", "sizes"), [(0.001, (9, 1)), (0.999, (1, 9)), ("0.5", (5, 5))])
def test_neither_side_of_a_split_is_empty(tmp_path, fraction, sizes):
    write(tmp_path, test=False)

    data = source(tmp_path, test_fraction=fraction).load()

    assert (len(data.train), len(data.test)) == sizes


def test_one_example_cannot_be_split(tmp_path):
    write(tmp_path, n=1, test=False)

    with pytest.raises(DataUnavailable, match="one example cannot be split"):
        source(tmp_path).load()


def test_files_may_have_other_names_and_lie_in_subfolders(tmp_path):
    (tmp_path / "site").mkdir()
    write(tmp_path / "site", test=False)

    data = source(tmp_path, x_train="site/x_train.npy", y_train="site/y_train.npy").load()

    assert len(data.train) == 8


def test_missing_files(tmp_path):
    refused(tmp_path, "'x_train.npy' is not in the data folder")
    write(tmp_path, test=False)
    refused(tmp_path, "'x_test.npy' is not in the data folder", test_fraction=0)
    np.save(tmp_path / "x_test.npy", np.zeros(3))
    refused(tmp_path, "'y_test.npy' is not in the data folder")


def test_arrays_that_do_not_belong_together(tmp_path):
    write(tmp_path)
    np.save(tmp_path / "y_test.npy", np.arange(9))
    refused(tmp_path, "x_test.npy, y_test.npy: x has 10 examples, y has 9")
    np.save(tmp_path / "y_test.npy", np.arange(10.0))
    refused(tmp_path, "test y is float64")
    write(tmp_path)
    np.save(tmp_path / "x_test.npy", np.zeros((10, 3, 4), np.uint8))
    refused(tmp_path, "training x is uint8 of shape (4, 3) per example, test x is uint8 of shape (3, 4)")


def test_no_examples(tmp_path):
    write(tmp_path, n=0, test=False)

    refused(tmp_path, "there are no examples")


class Trap:
    def __reduce__(self):
        return (print, ("unpickled!",))


@pytest.mark.parametrize("how", ["object array", "pickle", "text", "truncated", "header only", "nothing", "archive"])
def test_broken_files(tmp_path, how, capsys):
    write(tmp_path)
    path = tmp_path / "x_train.npy"
    whole = path.read_bytes()
    if how == "object array":
        np.save(path, np.array([Trap()], object), allow_pickle=True)
    elif how == "archive":
        with path.open("wb") as file:
            np.savez(file, x=np.zeros(3))
    else:
        broken = {"pickle": pickle.dumps(Trap()), "text": b"1,2,3\n", "truncated": whole[:-1]}
        path.write_bytes(broken.get(how, whole[:20] if how == "header only" else b""))

    refused(tmp_path, "'x_train.npy' is")

    assert "unpickled" not in capsys.readouterr().out


@pytest.mark.parametrize(
    "array",
    [np.array(["a", "b"]), np.zeros(2, ">f4"), np.zeros(2, "complex64"), np.float32(1), np.zeros(2, "f4,i4")],
    ids=["words", "foreign byte order", "complex", "scalar", "records"],
)
def test_arrays_of_the_wrong_type(tmp_path, array):
    write(tmp_path)
    np.save(tmp_path / "y_train.npy", array)

    refused(tmp_path, f"'y_train.npy' holds {array.dtype.str}")


@pytest.mark.parametrize("name", ["../x.npy", "/etc/passwd", "a/../../x.npy", "", "x\0.npy"])
def test_paths_out_of_the_folder_are_refused(tmp_path, name):
    with pytest.raises(InvalidConfiguration, match="x_train"):
        source(tmp_path, x_train=name)


def test_links_out_of_the_folder_are_refused(tmp_path):
    outside, folder = tmp_path / "outside", tmp_path / "data"
    outside.mkdir()
    folder.mkdir()
    write(outside, test=False)
    (folder / "x_train.npy").symlink_to(outside / "x_train.npy")
    (folder / "site").symlink_to(outside)

    refused(folder, "'x_train.npy' leads out of the data folder")
    refused(folder, "'site/x_train.npy' leads out of the data folder", x_train="site/x_train.npy")


def test_links_within_the_folder_are_followed(tmp_path):
    """Kubernetes mounts files as links into a hidden folder beside them."""
    (tmp_path / "..data").mkdir()
    write(tmp_path / "..data", test=False)
    for name in ("x_train.npy", "y_train.npy"):
        (tmp_path / name).symlink_to(f"..data/{name}")

    assert len(source(tmp_path).load().train) == 8
