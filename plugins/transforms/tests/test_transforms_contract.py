"""Every plugin here keeps the contract that ``locex plugins check`` holds authors to."""

from importlib.metadata import entry_points

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

FIELDS = {
    "categorical": {"categories": 3},
    "clip": {"min": 0, "max": 1},
    "crop": {"size": [2, 2]},
    "filter_outputs": {"threshold": 0.5},
    "label_mapping": {"labels": ["a", "b", "c"], "side": "y"},
    "read_image_batch": {"size": [4, 4]},
    "resize": {"size": [4, 5]},
    "resize_pillow_array": {"size": [4, 5]},
}
STEPS = [entry.name for entry in entry_points(group="locex.transform") if entry.value.startswith("locex_transforms.")]
SOURCES = {"timeseries": {"target": "label", "window": 4}, "csv": {"target": "label"}, "parquet": {"target": "label"}}
SOURCES |= {name: {} for name in ("npy", "npz", "hdf5", "image_folder")}


@pytest.fixture(scope="module")
def data_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    x, y = np.random.default_rng(0).random((60, 3)).astype(np.float32), np.arange(60) % 3
    np.save(folder / "x_train.npy", x)
    np.save(folder / "y_train.npy", y)
    np.savez(folder / "data.npz", x_train=x, y_train=y)
    with h5py.File(folder / "data.h5", "w") as file:
        file["x_train"], file["y_train"] = x, y
    pq.write_table(pa.table({"a": x[:, 0], "b": x[:, 1], "label": y}), folder / "train.parquet")
    lines = [f"{a},{b},{label}" for (a, b, _), label in zip(x.tolist(), y.tolist(), strict=True)]
    (folder / "train.csv").write_text("\n".join(["a,b,label", *lines]))
    for number in range(6):
        path = folder / "train" / f"class{number % 2}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((4, 5, 3), number, np.uint8)).save(path)
    return folder


@pytest.fixture(scope="module")
def examples(tmp_path_factory):
    """Examples for steps that the suite's own do not fit: texts, and targets that are surely class indices."""
    path = tmp_path_factory.mktemp("texts") / "texts.npz"
    np.savez(path, x=np.array(["one", "two", "three", "four"]), y=np.arange(4) % 3)
    return path


@pytest.mark.slow  # test_transforms_properties.py asks more of them, quicker
@pytest.mark.parametrize("name", [name for name in STEPS if name != "read_image_batch"])
def test_a_step_keeps_the_contract(name, examples, locex_check):
    more = {"examples": examples} if name in {"categorical", "label_mapping", "text_hashing"} else {}
    notes = locex_check("transform", name, **FIELDS.get(name, {}), **more)
    assert any("tried on" in note for note in notes), notes


@pytest.mark.parametrize("name", SOURCES)
def test_a_source_keeps_the_contract(name, data_folder, locex_check):
    locex_check("data", name, data_folder=data_folder, **SOURCES[name])
