"""``locex demo``: its result, and that nothing of it stays behind when it is interrupted."""

from __future__ import annotations

import re
import signal
import subprocess
import time
import zipfile

import pytest

SOON = 180  # seconds within which a demo ends, however busy the machine is
DEMO = ("-m", "locex.cli", "demo", "--folder", "run")


def started(programs, rounds):
    return programs.start(*DEMO, "--rounds", rounds, log="demo.log", LOCEX_PLUGIN_TIMEOUT="120")


def trains(programs):
    """Tell whether a first round was completed."""
    return any(programs.folder.glob("run/node1/state/runs/*/checkpoint/current"))


@pytest.mark.parametrize(
    ("moment", "number"),
    [
        (0.3, signal.SIGINT),
        (2, signal.SIGTERM),
        pytest.param(6, signal.SIGINT, marks=pytest.mark.slow),
        pytest.param("training", signal.SIGTERM, marks=pytest.mark.slow),
    ],
)
def test_an_interrupted_demo_leaves_no_process_behind(programs, moment, number):
    process = started(programs, 100)
    if moment == "training":
        while not trains(programs):
            assert process.poll() is None, (programs.folder / "demo.log").read_text()
            time.sleep(0.05)
    else:
        time.sleep(moment)  # whatever it does then
    process.send_signal(number)
    assert process.wait(SOON) != 0
    deadline = time.monotonic() + 60  # a worker that is told of its parent's end needs a moment
    while programs.alive() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert [one.cmdline() for one in programs.alive()] == []


@pytest.mark.slow
def test_the_demo_shows_a_table_and_leaves_the_model(programs):
    process = started(programs, 2)
    assert process.wait(SOON) == 0, (programs.folder / "demo.log").read_text()
    shown = (programs.folder / "demo.log").read_text()
    assert "global accuracy" in shown
    assert "FINISHED" in shown
    assert "2/2" in shown
    assert re.search(r"mnist-cnn version 1-\S+ says: \d \(\d+\.\d%, in \d+\.\d ms", shown)
    with zipfile.ZipFile(programs.folder / "run" / "model.zip") as model:
        assert any(name.endswith(".safetensors") for name in model.namelist())
    assert programs.alive() == []
    (next_command,) = (line.partition("#")[0].split() for line in shown.splitlines() if "plugins list" in line)
    listed = subprocess.run(next_command, cwd=programs.folder, capture_output=True, text=True, check=True)
    assert "basic_norm" in listed.stdout


def test_a_folder_that_is_no_former_demo_is_left_alone(programs):
    (programs.folder / "run").mkdir()
    (programs.folder / "run" / "thesis.txt").write_text("mine")
    assert started(programs, 1).wait(SOON) == 1
    assert "not empty and not a former demo's" in (programs.folder / "demo.log").read_text()
    assert (programs.folder / "run" / "thesis.txt").read_text() == "mine"


@pytest.mark.slow
def test_the_demo_reaches_its_accuracy(programs):
    process = programs.start(*DEMO, log="demo.log")
    assert process.wait(SOON) == 0, (programs.folder / "demo.log").read_text()
