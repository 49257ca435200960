"""The data source ``csv`` on real files, good and broken."""

import re
from importlib.metadata import entry_points

import numpy as np
import pytest

from locex.api import SiteContext
from locex.errors import DataUnavailable, InvalidConfiguration
from locex.schemas.base import validate

TABLE = "a,b,label\n1,2.5,0\n3,-4e1,1\n5,6,2\n7,8,1\n9,10,0\n"


def source(folder, seed=0, **fields):
    (entry,) = entry_points(group="locex.data", name="csv")
    plugin = entry.load()()
    return plugin.locex_create_data(validate(plugin.locex_config_model(), fields), SiteContext(folder, seed))


def write(folder, train=TABLE, test=TABLE):
    (folder / "train.csv").write_text(train, encoding="utf-8")
    if test is not None:
        (folder / "test.csv").write_text(test, encoding="utf-8")


def refused(folder, *complaints, target="label", **fields):
    with pytest.raises(DataUnavailable) as caught:
        source(folder, target=target, **fields).load()
    for complaint in complaints:
        assert complaint in caught.value.message
    assert caught.value.remedy


def test_features_and_class_indices(tmp_path):
    write(tmp_path)

    data = source(tmp_path, target="label").load()

    expected = np.array([[1, 2.5], [3, -40], [5, 6], [7, 8], [9, 10]], np.float32)
    np.testing.assert_array_equal(data.train.x, expected, strict=True)
    np.testing.assert_array_equal(data.test.y, np.array([0, 1, 2, 1, 0], np.int64), strict=True)
    assert data.format.model_dump(exclude_none=True) == {
        "x": {"data_types": {"tabular": {"size": [2], "dtype": "float32"}}},
        "y": {"data_types": {"categorical": {"size": [], "dtype": "int64"}}},
    }
    assert source(tmp_path, target="label").format() == data.format


@pytest.mark.parametrize(
    ("fields", "x", "y"),
    [
        ({"target": "b"}, [1, 0], 2.5),
        ({"target": -1}, [1, 2.5], 0),
        ({"target": "2", "features": ["b", "a"]}, [2.5, 1], 0),
        ({"target": ["label", "a"]}, [2.5], [0, 1]),
        ({"target": "label", "features": "a"}, [1], 0),
    ],
)
def test_columns_by_name_and_position(tmp_path, fields, x, y):
    write(tmp_path)

    data = source(tmp_path, **fields).load()

    np.testing.assert_array_equal(data.train.x[0], np.array(x, np.float32))
    np.testing.assert_array_equal(data.train.y[0], y)


@pytest.mark.parametrize(
    ("fields", "test", "dtype", "kind"),
    [
        ({"target": "b"}, TABLE, np.float32, "numerical"),
        ({"target": "label", "y_kind": "numerical"}, TABLE, np.float32, "numerical"),
        ({"target": "label"}, "a,b,label\n1,2,0.5\n", np.float32, "numerical"),
        ({"target": "label", "y_kind": "binary"}, TABLE, np.int64, "binary"),
    ],
)
def test_targets_are_indices_only_where_all_are_integers(tmp_path, fields, test, dtype, kind):
    write(tmp_path, test=test)

    data = source(tmp_path, **fields).load()

    assert data.train.y.dtype == data.test.y.dtype == dtype
    assert list(data.format.y.data_types) == [kind]


def test_other_dialects(tmp_path):
    (tmp_path / "t.txt").write_bytes('\ufeff"1";"2"\r\n\r\n3;4\r\n'.encode())

    data = source(tmp_path, train="t.txt", target=1, header="False", delimiter=";", test_fraction=0.5, seed=3).load()

    assert sorted([*data.train.x[:, 0], *data.test.x[:, 0]]) == [1, 3]


def test_without_a_test_file_a_part_is_drawn_by_the_seed(tmp_path):
    write(tmp_path, test=None)

    data = source(tmp_path, target="label", test_fraction=0.4).load()
    again = source(tmp_path, target="label", test_fraction=0.4).load()

    assert (len(data.train), len(data.test)) == (3, 2)
    assert sorted([*data.train.x[:, 0], *data.test.x[:, 0]]) == [1, 3, 5, 7, 9]
    np.testing.assert_array_equal(data.test.x, again.test.x)
    refused(tmp_path, "'test.csv' is not in the data folder", test_fraction=0)


@pytest.mark.parametrize("cell", ["", " ", "nan", "inf", "-inf", "cat", "1e39", "1;2", "x" * 100])
def test_cells_that_are_no_numbers_are_named(tmp_path, cell):
    write(tmp_path, f"a,b,label\n1,2,0\n3,{cell},1\n")

    refused(tmp_path, "'train.csv' line 3, column 'b'", repr(cell[:40]))


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "is empty"),
        ("a,b,label\n", "there are no examples"),
        ("a,b,label\n1,2\n", "line 2 has 2 columns instead of 3"),
        ("a,b,label\n1,2,3\n\n1,2,3,4\n", "line 4 has 4 columns instead of 3"),
        ("a,b\n1,2\n", "no column 'label'; its columns are: a, b"),
        ("label,label\n1,2\n", "several columns are named 'label'"),
        ("label\n1\n", "no column is left as a feature"),
        ('a,b,label\n1,"2,3\n', "not a CSV file that can be read"),
    ],
)
def test_broken_tables(tmp_path, text, complaint):
    write(tmp_path, text)

    refused(tmp_path, complaint)


def test_files_that_are_no_text(tmp_path):
    write(tmp_path)
    (tmp_path / "train.csv").write_bytes(b"\xff\xfe\x00\x01")

    refused(tmp_path, "not a CSV file that can be read")


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"target": "label", "features": ["a", "label"]}, "columns ['label'] are both target and feature"),
        ({"target": ["label", -1]}, "names a column twice"),
        ({"target": 3}, "no column 3"),
        ({"target": "0", "header": False}, "line 1, column '1': 'b' is not"),
    ],
)
def test_columns_that_cannot_be(tmp_path, fields, complaint):
    write(tmp_path)

    refused(tmp_path, complaint, **fields)


def test_test_columns_in_another_order_are_refused_unless_features_are_named(tmp_path):
    write(tmp_path, test="b,a,label\n2,1,0\n")

    refused(tmp_path, "the columns of train.csv are ['a', 'b', 'label'], those of test.csv are ['b', 'a', 'label']")
    data = source(tmp_path, target="label", features=["a", "b"]).load()
    np.testing.assert_array_equal(data.test.x, np.array([[1, 2]], np.float32))


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"target": []},
        {"target": 0, "delimiter": ",,"},
        {"target": 0, "train": "../t.csv"},
        {"target": 0, "sep": ";"},
    ],
)
def test_configurations_that_are_refused(tmp_path, fields):
    with pytest.raises(InvalidConfiguration, match=re.escape("/")):
        source(tmp_path, **fields)
