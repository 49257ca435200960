"""Data larger than memory through a worker's own preparation and one epoch of training, under a limit of memory.

A synthetic set (4 GiB of float32, one ``.npy`` or Parquet file, no test file) is split, scaled by statistics of its
training split, clipped, and trained on for one epoch by the PyTorch session, in a process whose RLIMIT_DATA is 1 GiB:
what it allocates beyond that fails. Mapped files do not count: the kernel drops their pages when memory is short. The
peak of anonymous memory is told beside it. Needs three times the set's size on the disk::

    python benchmarks/large_data.py [--gib 4] [--limit-mib 1024] [--format npy|parquet|csv] [--folder F] [--no-train]
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

COLUMNS = 1024
CLASSES = 10
BLOCK = 16384
GIB = 2**30


def blocks(rows: int) -> Any:
    generator = np.random.default_rng(0)
    directions = generator.normal(size=(COLUMNS, CLASSES)).astype(np.float32)
    for begin in range(0, rows, BLOCK):
        x = generator.standard_normal((min(BLOCK, rows - begin), COLUMNS), np.float32)
        yield x * 3 + 5, (x @ directions).argmax(1)


def write_npy(folder: Path, rows: int) -> None:
    x_file = np.lib.format.open_memmap(folder / "x_train.npy", "w+", np.float32, (rows, COLUMNS))
    labels = np.empty(rows, np.int64)
    begin = 0
    for x, y in blocks(rows):
        x_file[begin : begin + len(x)] = x
        labels[begin : begin + len(x)] = y
        begin += len(x)
    np.save(folder / "y_train.npy", labels)


def write_parquet(folder: Path, rows: int) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = [f"c{number}" for number in range(COLUMNS)] + ["label"]
    schema = pa.schema([(name, pa.float32()) for name in names[:-1]] + [("label", pa.int64())])
    with pq.ParquetWriter(folder / "train.parquet", schema, compression="none", use_dictionary=False) as writer:
        for x, y in blocks(rows):
            columns = [pa.array(column) for column in np.ascontiguousarray(x.T)]
            writer.write_table(pa.table([*columns, pa.array(y)], names=names))


def write_csv(folder: Path, rows: int) -> None:
    with (folder / "train.csv").open("w") as file:
        file.write(",".join([f"c{number}" for number in range(COLUMNS)] + ["label"]) + "\n")
        for x, y in blocks(rows):
            np.savetxt(file, np.column_stack([x, y]), fmt="%.6g", delimiter=",")


WRITERS = {"npy": write_npy, "parquet": write_parquet, "csv": write_csv}


class Peak(threading.Thread):
    """Watches this process's anonymous memory."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.mib = 0.0
        self.begin()

    def begin(self) -> None:
        """Forget the peak so far."""
        self.mib = self.now()

    @staticmethod
    def now() -> float:
        """Return MiB."""
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("RssAnon"))

    def run(self) -> None:
        """Look a hundred times a second."""
        while True:
            self.mib = max(self.mib, self.now())
            time.sleep(0.01)


def prepare(folder: Path, source: str) -> Any:
    from locex.jobs.site import fill_in
    from locex.plugins.catalog import read_catalog
    from locex.schemas.job import parse_job
    from locex.settings import SiteSettings
    from locex.worker.data import prepare as prepare_data
    from locex.worker.plan import make_plan
    from locex.worker.preparation import Surroundings

    steps = [{"id": "standard_scale"}, {"id": "clip", "parameters": {"min": -4, "max": 4}}]
    data = {"source": source} if source == "npy" else {"source": source, "target": "label", "y_kind": "categorical"}
    job, _ = parse_job(
        {
            "server_address": "h:1",
            "model_name": "m",
            "model_version": "1",
            "data": data,
            "transformations": {"train": steps, "test": steps},
        }
    )
    site = SiteSettings(data_folder=folder / "data", preprocessed_folder=folder / "cache", preprocessed_mb=2**20)
    job, _ = fill_in(job, site)
    plan = make_plan(job, "pytorch", read_catalog(), site, kinds=("data", "transform"))
    return prepare_data(plan, site, Surroundings(folder, {})).data


def train(folder: Path, data: Any) -> float:
    import torch
    from local_training import optimizer
    from sessions import make_session

    from locex.schemas.job import TrainConfig
    from locex_torch_builder.artefact import write_architecture

    torch.set_num_threads(1)
    config = TrainConfig(batch_size=256, epochs=1)
    path = folder / "model.zip"
    write_architecture(path, architecture="mlp", config={"input_size": [COLUMNS], "num_classes": CLASSES}, seed=0)
    parts = (data.train, data.test)
    session = make_session("pytorch", path, parts, config, optimizer("adam"), threads=1, seed=0)
    session.fit(config, server_round=1)
    return float(session.evaluate(config).metrics["accuracy"])


def measure(folder: Path, source: str, limit_mib: int, *, training: bool) -> dict[str, Any]:
    resource.setrlimit(resource.RLIMIT_DATA, (limit_mib * 2**20, limit_mib * 2**20))
    peak = Peak()
    peak.start()
    told: dict[str, Any] = {}
    for name in ("first job", "next job"):
        peak.begin()
        start = time.perf_counter()
        data = prepare(folder, source)
        told[name] = {"seconds": time.perf_counter() - start, "peak_mib": peak.mib}
    assert abs(float(data.train.x[:1000].mean())) < 0.05
    told["examples"] = [len(data.train), len(data.test)]
    if training:
        peak.begin()
        start = time.perf_counter()
        accuracy = train(folder, data)
        told["training"] = {"seconds": time.perf_counter() - start, "peak_mib": peak.mib, "accuracy": accuracy}
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description="data larger than memory under a limit")
    parser.add_argument("--gib", type=float, default=4)
    parser.add_argument("--limit-mib", type=int, default=1024)
    parser.add_argument("--format", choices=sorted(WRITERS), default="npy")
    parser.add_argument("--folder", type=Path, help="where the set and what is made of it may lie")
    parser.add_argument("--no-train", action="store_true")
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.inside:
        result = measure(given.inside, given.format, given.limit_mib, training=not given.no_train)
        print(json.dumps(result))
        return
    with tempfile.TemporaryDirectory(dir=given.folder, prefix="locex-large-") as name:
        folder = Path(name)
        (folder / "data").mkdir()
        WRITERS[given.format](folder / "data", int(given.gib * GIB / 4 / COLUMNS))
        options = ["--format", given.format, "--limit-mib", str(given.limit_mib), *["--no-train"] * given.no_train]
        command = [sys.executable, __file__, "--inside", name, *options]
        run = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        told = json.loads(run.stdout)
    print(f"{given.gib} GiB as {given.format}, limit {given.limit_mib} MiB, {told.pop('examples')} examples")
    for what, figures in told.items():
        extra = f", accuracy {figures['accuracy']:.3f}" if "accuracy" in figures else ""
        print(f"  {what:10} {figures['seconds']:7.1f} s, peak of anonymous memory {figures['peak_mib']:.0f} MiB{extra}")


if __name__ == "__main__":
    main()
