"""Sets larger than memory: read by a process that may take 128 MiB beyond what it has."""

import csv
import json
import os
import subprocess
import sys

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

ALLOWED = 128 * 2**20
ROWS, COLUMNS = 6144, 8192  # 192 MiB of float32
CELLS = 3_000_000  # of text: as Python strings more than is allowed
WORDS = 60_000  # of 1000 characters, as NumPy holds them: 240 MB

READ = """
import json, resource, sys
from importlib.metadata import entry_points
from pathlib import Path

import numpy as np

from locex.api import SiteContext
from locex.schemas.base import validate

name, small, large, cache, allowed, fields = sys.argv[1:]
(entry,) = entry_points(group="locex.data", name=name)
plugin = entry.load()()
config = validate(plugin.locex_config_model(), json.loads(fields))


def load(folder):
    return plugin.locex_create_data(config, SiteContext(Path(folder), 0, Path(cache))).load()


load(small)  # so that all is imported
lines = Path("/proc/self/status").read_text().splitlines()
have = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmData"))
resource.setrlimit(resource.RLIMIT_DATA, (have + int(allowed),) * 2)
try:
    np.ones(int(allowed) + 2**23, np.uint8)
except MemoryError:  # so that the limit does hold
    data = load(large)
    print(json.dumps([type(data.train.x).__name__, len(data.train), len(data.test), list(data.train.x.shape[1:])]))
"""


def numbers(rows):
    generator = np.random.default_rng(0)
    for begin in range(0, rows, 512):
        count = min(512, rows - begin)
        yield begin, generator.random((count, COLUMNS), np.float32), np.arange(begin, begin + count) % 3


def write_hdf5(folder, share):
    rows = int(ROWS * share)
    with h5py.File(folder / "data.h5", "w") as file:
        # Chunks of all examples: a source that reads whole ones reads everything.
        x = file.create_dataset("x_train", (rows, COLUMNS), np.float32, chunks=(rows, 16))
        y = file.create_dataset("y_train", (rows,), np.int64)
        for begin, some_x, some_y in numbers(rows):
            x[begin : begin + len(some_x)], y[begin : begin + len(some_y)] = some_x, some_y


def write_npz(folder, share):
    x, y = (np.concatenate(parts) for parts in list(zip(*numbers(int(ROWS * share)), strict=True))[1:])
    np.savez(folder / "data.npz", x_train=x, y_train=y)


def write_parquet(folder, share):
    schema = pa.schema([*((f"c{number}", pa.float32()) for number in range(256)), ("label", pa.int64())])
    with pq.ParquetWriter(folder / "train.parquet", schema, use_dictionary=False) as writer:
        for _, x, y in numbers(int(ROWS * share)):
            columns = [pa.array(column) for column in np.ascontiguousarray(x.reshape(-1, 256).T)]
            writer.write_table(pa.table([*columns, pa.array(np.repeat(y, COLUMNS // 256))], schema=schema))


def write_csv(folder, share):
    with (folder / "train.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*(f"c{number}" for number in range(99)), "label"])
        writer.writerows([*range(row, row + 99), row % 3] for row in range(int(CELLS * share) // 100))


def write_words(folder, share):
    words = [f"word {number}" for number in range(int(WORDS * share))]
    pq.write_table(pa.table({"words": words, "label": np.arange(len(words)) % 3}), folder / "train.parquet")


def write_images(folder, share):
    for number in range(2):
        (folder / "train" / f"class{number}").mkdir(parents=True)
    image = Image.fromarray(np.full((512, 512, 3), 7, np.uint8))
    for number in range(int(256 * share)):  # 192 MiB when decoded
        image.save(folder / "train" / f"class{number % 2}" / f"{number}.png", compress_level=1)


SETS = {
    "csv": (write_csv, {"target": "label", "in_memory": 1}),
    "hdf5": (write_hdf5, {"in_memory": 8}),
    "image_folder": (write_images, {"in_memory": 8}),
    "npz": (write_npz, {"in_memory": 8}),
    "parquet": (write_parquet, {"target": "label", "in_memory": 8}),
    "parquet of words": (write_words, {"target": "label", "x_kind": "text", "in_memory": 8}),
}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_DATA and /proc are Linux's")
@pytest.mark.parametrize("name", SETS)
def test_memory_is_bounded_however_large_the_set(name, tmp_path):
    write, fields = SETS[name]
    for folder, share in (("small", 1 / 64), ("large", 1)):
        (tmp_path / folder).mkdir()
        write(tmp_path / folder, share)
    run = subprocess.run(
        [sys.executable, "-c", READ, name.split()[0], "small", "large", "cache", str(ALLOWED), json.dumps(fields)],
        cwd=tmp_path,
        env=os.environ | {"ARROW_DEFAULT_MEMORY_POOL": "system", "OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    kind, train, test, size = json.loads(run.stdout)
    assert kind == "memmap"
    assert test == round((train + test) * 0.2)
    assert len(size) in {0, 1, 3}
