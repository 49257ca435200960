"""Models in processes of their own: calls, crashes, hangs, and that the service goes on."""

from __future__ import annotations

import asyncio
import os
import signal
import sys

import numpy as np
import pytest

from locex.errors import LocexError
from locex_inference.errors import InvalidInference, ModelFailed, NotReady
from locex_inference.models.options import ModelOptions

HANG, CRASH, RAISE, GROW, SEGFAULT = 1000, 1001, 1002, 1003, 1004


def x(first=1.0, rows=1):
    return {"x": np.full((rows, 2), first, np.float32)}


async def call(version, first=1.0, rows=1):
    return (await version.inferencer.arun(x(first, rows), ["y"]))["y"]


async def until_it_answers(version):
    while version.fault:  # noqa: ASYNC110 -- nothing tells of it
        await asyncio.sleep(0.01)


async def until_it_is_down(version):
    while not version.fault:  # noqa: ASYNC110 -- nothing tells of it
        await asyncio.sleep(0.01)


@pytest.fixture
async def served(loader, models):
    return await loader.load("m", "1", models.text("3"), ModelOptions(warmup=[1]))


async def test_a_third_partys_inferencer_answers_from_a_process_of_its_own(served):
    assert not served.in_process
    assert served.inferencer.pid != os.getpid()
    assert served.platform == "acme"
    assert (await call(served)).tolist() == [[3, 3]]
    assert (await asyncio.to_thread(served.inferencer.run, x(2), ["y"]))["y"].tolist() == [[6, 6]]
    assert (await call(served, rows=0)).shape == (0, 2)


async def test_arrays_of_every_size_go_through_and_no_answer_is_another_ones(served):
    for rows in (1, 50_000, 3, 200_000, 1):
        assert (await call(served, rows, rows)).tolist() == [[3 * rows, 3 * rows]] * rows
    found = await asyncio.gather(*(call(served, number, 1 + number % 7) for number in range(100)))
    assert [array.flat[0] for array in found] == [3 * number for number in range(100)]
    assert [len(array) for array in found] == [1 + number % 7 for number in range(100)]


async def test_arrays_beyond_the_bound_are_refused_on_the_way_in_and_out(make_loader, models):
    loader = make_loader(terms={"arrays": 2**16})
    served = await loader.load("m", "1", models.text("3"), ModelOptions(warmup=[1]))
    with pytest.raises(InvalidInference, match=r"the inputs take 1 MiB, a model's process is handed up to 0 MiB"):
        await call(served, rows=2**17)
    assert (await call(served)).tolist() == [[3, 3]]


async def test_what_a_model_raises_is_told_and_its_process_lives_on(served):
    pid = served.inferencer.pid
    with pytest.raises(ModelFailed, match=r"the model raised ZeroDivisionError: a model's own fault"):
        await call(served, RAISE)
    assert (await call(served)).tolist() == [[3, 3]]
    assert served.inferencer.pid == pid


@pytest.mark.parametrize(("first", "how"), [(CRASH, "exit code 7"), (SEGFAULT, f"exit code -{signal.SIGSEGV.value}")])
async def test_a_crash_costs_the_calls_under_way_and_is_mended(served, first, how):
    pid = served.inferencer.pid
    with pytest.raises(ModelFailed, match=rf"'m' version '1': the process ended: its process ended with {how}"):
        await call(served, first)
    assert how in served.fault
    with pytest.raises(NotReady, match=r"the process is started again"):
        await call(served)
    await until_it_answers(served)
    assert (await call(served)).tolist() == [[3, 3]]
    assert served.inferencer.pid != pid
    assert served.inferencer.restarts == 1


async def test_a_process_that_is_killed_is_started_again_and_the_index_tells(loader, served):
    os.kill(served.inferencer.pid, signal.SIGKILL)
    await until_it_is_down(served)
    (entry,) = loader.registry.index()
    assert (entry.state, entry.reason) == ("UNAVAILABLE", "its process ended with exit code -9")
    await until_it_answers(served)
    assert (await call(served)).tolist() == [[3, 3]]
    (entry,) = loader.registry.index()
    assert entry.state == "READY"


async def test_a_process_that_cannot_be_started_again_is_tried_again_and_again(loader, served, models):
    path = models.folder / "model.acme"
    path.write_text("4")  # another digest than the one that was loaded
    os.kill(served.inferencer.pid, signal.SIGKILL)
    while "is not the one that was named" not in served.fault:  # noqa: ASYNC110 -- nothing tells of it
        await asyncio.sleep(0.01)
    path.write_text("3")
    await until_it_answers(served)
    assert (await call(served)).tolist() == [[3, 3]]


async def test_a_call_that_hangs_is_ended_with_its_process(make_loader, models):
    loader = make_loader(terms={"call_timeout": 1})
    served = await loader.load("m", "1", models.text("3"), ModelOptions(warmup=[1]))
    with pytest.raises(ModelFailed, match=r"the process was ended: a call took longer than 1 s"):
        await call(served, HANG)
    await until_it_is_down(served)
    await until_it_answers(served)
    assert (await call(served)).tolist() == [[3, 3]]


async def test_a_caller_that_goes_away_leaves_nothing_behind(make_loader, models):
    loader = make_loader(terms={"call_timeout": 2})
    served = await loader.load("m", "1", models.text("3"), ModelOptions(warmup=[1], concurrency=2))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await call(served, HANG)
    assert (await call(served)).tolist() == [[3, 3]]  # in the other slot, while the first call hangs
    await until_it_is_down(served)
    await until_it_answers(served)
    assert [array.tolist() for array in await asyncio.gather(*(call(served) for _ in range(4)))] == [[[3, 3]]] * 4


async def test_the_memory_of_a_process_is_bounded(loader, models):
    served = await loader.load("m", "1", models.text("3"), ModelOptions(warmup=[1], memory_mb=1024))
    with pytest.raises(ModelFailed, match=r"a call takes more memory than the model's process may have"):
        await call(served, GROW)
    assert (await call(served)).tolist() == [[3, 3]]


async def test_texts_and_onnx_models_may_have_a_process_too(loader, models):
    text = models.types.STRING
    path = models.write(models.graph([models.node("Identity", ["x"], ["y"])], ["b", 2], ["b", 2], of=text))
    served = await loader.load("m", "1", path, ModelOptions(isolate=True, warmup=[1]))
    assert not served.in_process
    given = np.array([["grüße".encode(), b""], [b"a" * 100_000, b"b"]], object)
    assert (await served.inferencer.arun({"x": given}, ["y"]))["y"].tolist() == given.tolist()


async def test_a_closed_version_leaves_no_process_and_no_file_descriptor(loader, models):
    await (await loader.load("m", "0", models.text("3"), ModelOptions(warmup=[1], keep=1))).inferencer.arun(x(), ["y"])
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 -- a listing of numbers
    version = await loader.load("n", "1", models.text("3"), ModelOptions(warmup=[1]))
    pid = version.inferencer.pid
    await loader.registry.retire(version)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert len(os.listdir("/proc/self/fd")) <= before  # noqa: PTH208 -- likewise


async def test_processes_run_with_the_interpreter_that_the_operator_names(make_loader, models, tmp_path):
    interpreter = tmp_path / "python"
    note = tmp_path / "note"
    interpreter.write_text(f'#!/bin/sh\necho used >> {note}\nexec {sys.executable} "$@"\n')
    interpreter.chmod(0o755)
    loader = make_loader(terms={"interpreter": str(interpreter)})
    await loader.load("m", "1", models.text("3"), ModelOptions(warmup=[1]))
    assert note.read_text() == "used\n"


async def test_the_inferencer_may_be_named_and_must_be_installed(loader, models):
    path = models.text("3", "model.txt")
    with pytest.raises(LocexError, match=r"the artefact is of an unknown format, which no installed inferencer takes"):
        await loader.load("m", "1", path)
    await loader.load("m", "1", path, ModelOptions(inferencer="acme", warmup=[1]))
    with pytest.raises(LocexError, match=r"nothing") as caught:
        await loader.load("m", "2", path, ModelOptions(inferencer="nothing"))
    assert caught.value.error_code == "plugin-unknown"
    with pytest.raises(LocexError, match=r"unknown key") as caught:
        await loader.load("m", "2", path, ModelOptions(inferencer="acme", fields={"deep": 1}))
    assert caught.value.errors[0]["path"] == "/fields/deep"
