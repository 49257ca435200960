"""The data sources ``parquet``, ``csv`` beyond numbers, and ``timeseries``."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from locex.errors import DataUnavailable, InvalidConfiguration

COLUMNS = {
    "name": ["ann", "bob", "cy", "dee"],
    "age": pa.array([1, 2, None, 4], pa.int16()),
    "size": [0.5, 1.5, 2.5, 3.5],
    "kind": pa.array(["b", "a", "b", "c"]).dictionary_encode(),
    "flag": [True, False, True, False],
}


def write(folder, kind, columns=COLUMNS):
    table = pa.table(columns)
    if kind == "parquet":
        pq.write_table(table, folder / "train.parquet")
        return
    cells = [["" if cell is None else str(cell) for cell in column.to_pylist()] for column in table.columns]
    lines = [table.column_names, *map(list, zip(*cells, strict=True))]
    (folder / "train.csv").write_text("\n".join(",".join(line) for line in lines))


def everything(data):
    """Return x and y of both sides, in the order of the file."""
    x, y = (np.concatenate([getattr(data.train, side), getattr(data.test, side)]) for side in ("x", "y"))
    return x, y


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_words_become_classes_in_the_declared_order(kind, tmp_path, make_source):
    write(tmp_path, kind)
    fields = {"target": "kind", "features": ["size"], "classes": ["c", "b", "a"]}
    x, y = everything(make_source(kind, tmp_path, **fields).load())
    assert dict(zip(x[:, 0].tolist(), y.tolist(), strict=True)) == {0.5: 1, 1.5: 2, 2.5: 1, 3.5: 0}
    assert make_source(kind, tmp_path, **fields).format().y.data_types["categorical"].dtype == "int64"
    with pytest.raises(DataUnavailable, match="the target 'c' is none of the classes"):
        make_source(kind, tmp_path, **fields | {"classes": ["a", "b"]}).load()
    filters = [{"column": "kind", "op": "!=", "value": "c"}]
    assert len(everything(make_source(kind, tmp_path, **fields, filters=filters).load())[0]) == 3


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_missing_values_are_refused_unless_nan_is_asked_for(kind, tmp_path, make_source):
    write(tmp_path, kind)
    fields = {"target": "size", "features": ["age"]}
    with pytest.raises(DataUnavailable, match="column 'age'"):
        make_source(kind, tmp_path, **fields).load()
    x, y = everything(make_source(kind, tmp_path, missing="nan", **fields).load())
    assert np.isnan(x[y == 2.5]).all()
    assert not np.isnan(x[y != 2.5]).any()
    with pytest.raises(DataUnavailable, match="column 'age'"):
        make_source(kind, tmp_path, target="age", features=["size"], missing="nan").load()


@pytest.mark.parametrize("kind", ["csv", "parquet"])
@pytest.mark.parametrize("in_memory", [1, 0])
def test_one_column_of_texts(kind, in_memory, tmp_path, make_source):
    write(tmp_path, kind)
    fields = {"target": "size", "features": "name", "x_kind": "text", "text_length": 2, "in_memory": in_memory}
    data = make_source(kind, tmp_path, **fields).load()
    x, y = everything(data)
    assert dict(zip(y.tolist(), x.tolist(), strict=True)) == {0.5: "an", 1.5: "bo", 2.5: "cy", 3.5: "de"}
    assert isinstance(data.train.x, np.memmap) == (in_memory == 0)
    assert data.format.x.model_dump(exclude_none=True) == {"data_types": {"text": {"size": []}}}
    with pytest.raises(DataUnavailable, match="features are 2 columns"):
        make_source(kind, tmp_path, **fields | {"features": ["name", "age"]}).load()


def test_parquet_reads_only_the_columns_that_are_named(tmp_path, make_source):
    write(tmp_path, "parquet")
    data = make_source("parquet", tmp_path, target="flag", features=["size"]).load()
    assert everything(data)[1].dtype == np.int64
    for fields, complaint in (
        ({"target": "flag"}, "column 'name' holds no numbers"),
        ({"target": "absent"}, "has no column 'absent'; its columns are: name, age"),
        ({"target": "kind", "features": "size"}, "column 'kind' holds no numbers"),
    ):
        with pytest.raises(DataUnavailable) as caught:
            make_source("parquet", tmp_path, **fields).load()
        assert complaint in caught.value.message


def test_parquet_tells_its_format_from_the_schema(tmp_path, make_source, monkeypatch):
    rows = 300_000
    pq.write_table(pa.table({"a": np.zeros(rows), "b": np.zeros(rows, np.int8)}), tmp_path / "train.parquet")
    monkeypatch.setattr("locex_transforms.sources.parquet_table.CELLS", 100)
    source = make_source("parquet", tmp_path, target="b")
    assert source.format().y.data_types["categorical"].size == []
    assert "_arrays" not in vars(source)  # nothing was loaded


def test_what_is_no_parquet_file(tmp_path, make_source):
    (tmp_path / "train.parquet").write_bytes(b"PAR1 and more")
    with pytest.raises(DataUnavailable, match="not a Parquet file"):
        make_source("parquet", tmp_path, target=0).format()
    pq.write_table(pa.table({"a": [1.0, np.inf], "b": [1, 2]}), tmp_path / "train.parquet")
    with pytest.raises(DataUnavailable, match="row 1, column 'a': inf"):
        make_source("parquet", tmp_path, target="b").load()


# --- timeseries -------------------------------------------------------------------------------------------------------


def series(folder, lengths=(40, 60, 20), kind="csv"):
    """Write rows whose value tells series and time: 100 * series + time."""
    which = np.repeat(np.arange(len(lengths)), lengths)
    time = np.concatenate([np.arange(length) for length in lengths])
    table = {"id": [f"s{one}" for one in which], "value": which * 100 + time, "other": -time, "y": time % 3}
    write(folder, kind, table)


@pytest.mark.parametrize("kind", ["csv", "parquet"])
@pytest.mark.parametrize(("window", "stride", "horizon"), [(4, 1, 1), (3, 2, 0), (5, 3, 2), (1, 1, 0)])
@pytest.mark.parametrize("in_memory", [1, 0])
def test_windows_cross_no_border(kind, window, stride, horizon, in_memory, tmp_path, make_source):
    series(tmp_path, kind=kind)
    fields = {"train": f"train.{kind}", "target": "value", "features": ["value", "other"], "series": "id"}
    source = make_source(
        "timeseries", tmp_path, window=window, stride=stride, horizon=horizon, in_memory=in_memory, **fields
    )
    data = source.load()
    assert source.format() == data.format
    assert data.train.x.shape[1:] == (window, 2)
    assert data.train.x.dtype == data.train.y.dtype == np.float32
    expected = {"train": [], "test": []}
    for one, length in enumerate((40, 60, 20)):
        border = length - length // 5
        for part, begin, end in (("train", 0, border), ("test", border, length)):
            last = end - window - horizon
            expected[part] += [one * 100 + start for start in range(begin, last + 1, stride)]
    for part, starts in expected.items():
        found = getattr(data, part)
        assert found.x[:, 0, 0].tolist() == starts
        np.testing.assert_array_equal(found.x[:, :, 0], np.array(starts)[:, None] + np.arange(window))
        np.testing.assert_array_equal(found.y, np.array(starts) + window - 1 + horizon)


def test_windows_without_series_and_with_a_test_table(tmp_path, make_source):
    series(tmp_path, (12,))
    (tmp_path / "test.csv").write_text((tmp_path / "train.csv").read_text())
    fields = {"features": ["value", "y"], "target": "y", "window": 4, "y_kind": "categorical"}
    data = make_source("timeseries", tmp_path, **fields).load()
    assert (len(data.train), len(data.test)) == (8, 8)
    assert data.train.y.tolist() == [1, 2, 0, 1, 2, 0, 1, 2]
    assert data.format.y.data_types["categorical"].dtype == "int64"


def test_rows_that_are_filtered_out_are_gaps(tmp_path, make_source):
    series(tmp_path, (40,))
    fields = {"features": "value", "target": "value", "window": 3, "test_fraction": 0.5}
    data = make_source("timeseries", tmp_path, filters=[{"column": "value", "op": "!=", "value": 20}], **fields).load()
    x, _ = everything(data)
    assert len(x)
    assert (np.diff(x[:, :, 0], axis=1) == 1).all()


@pytest.mark.parametrize("rows", [1, 3, 1000])
def test_batches_of_the_table_make_no_difference(rows, tmp_path, make_source, monkeypatch):
    series(tmp_path)
    fields = {"features": "value", "target": "value", "series": "id", "window": 3}
    whole = make_source("timeseries", tmp_path, **fields).load()
    monkeypatch.setattr("locex_transforms.sources.csv_table.CELLS", 4 * rows)
    pieces = make_source("timeseries", tmp_path, **fields).load()
    np.testing.assert_array_equal(whole.train.x, pieces.train.x)
    np.testing.assert_array_equal(whole.test.y, pieces.test.y)


def test_series_that_are_too_short_and_splits_that_draw(tmp_path, make_source):
    series(tmp_path, (9,))
    with pytest.raises(DataUnavailable, match="no test rows for a window of 4 and a horizon of 1"):
        make_source("timeseries", tmp_path, features="value", target="value", window=4).load()
    (tmp_path / "train.csv").write_text("value,y\n" + "1,0.5\n" * 20)
    with pytest.raises(DataUnavailable, match="targets are no integers"):
        make_source("timeseries", tmp_path, target="y", window=1, y_kind="categorical").load()
    for fields in ({"stratify": True}, {"seed": 3}, {"window": 0}):
        with pytest.raises(InvalidConfiguration):
            make_source("timeseries", tmp_path, **{"target": "y", "window": 2} | fields)
