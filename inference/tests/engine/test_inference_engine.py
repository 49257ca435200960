"""What happens to requests between their arrival and their reply."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from functools import partial

import numpy as np
import pytest

from locex.api import TensorInfo
from locex_inference.engine.engine import Engine
from locex_inference.errors import (
    DeadlineExceeded,
    InvalidInference,
    ModelFailed,
    NotReady,
    Overloaded,
    UnknownServed,
)
from locex_inference.models.options import ModelOptions
from locex_inference.models.registry import Registry
from locex_inference.models.version import ModelVersion
from locex_inference.request import InferRequest
from locex_inference.serving import Statistics

FAST, SLOW = {1: 20e-6, 32: 60e-6}, {1: 5e-3}


class Scale:
    """Multiplies by a factor. Remembers how many examples each call had; can be held up; fails for negative numbers."""

    inputs = (TensorInfo("x", "FP32", (-1, 2)),)
    outputs = (TensorInfo("y", "FP32", (-1, 2)), TensorInfo("z", "FP32", (-1, 2)))

    def __init__(self, factor=2):
        self.factor = factor
        self.fault = ""
        self.rows = []
        self.threads = set()
        self.gate = threading.Event()
        self.gate.set()
        self.begun = threading.Semaphore(0)

    def run(self, inputs, outputs):
        x = inputs["x"]
        self.rows.append(len(x))
        self.threads.add(threading.current_thread())
        self.begun.release()
        assert self.gate.wait(60)
        if (x < 0).any():
            raise ValueError("it is negative")
        return dict.fromkeys(outputs, x * self.factor)

    async def arun(self, inputs, outputs):
        return await asyncio.to_thread(self.run, inputs, outputs)

    def close(self):
        pass


def serve(engine, model=None, *, costs=FAST, version="1", options=None, **more):
    model = model or Scale()
    made = ModelVersion(
        "m", version, "d", "test", model.inputs, model.outputs, model, ModelOptions(**(options or {})),
        Statistics("m", version), costs=costs, **more,
    )  # fmt: skip
    engine.registry.publish(made)
    return made


def request(*rows, **more):
    return InferRequest("m", {"x": np.array([(row, row) for row in rows or (1,)], np.float32)}, **more)


@pytest.fixture
async def engine():
    made = Engine(Registry())
    yield made
    for model in made.registry.models():
        for version in made.registry.versions(model):
            version.inferencer.gate.set()
    made.close()


async def begun(version):
    await asyncio.to_thread(version.inferencer.begun.acquire)


def submit(engine, *requests):
    """Hand in requests in one turn of the loop; return a function that awaits their tickets."""
    done = []
    futures = [asyncio.get_running_loop().create_future() for _ in requests]
    for future, each in zip(futures, requests, strict=True):
        done.append(engine.submit(each, partial(_set, future)))
    return done, asyncio.gather(*futures)


def _set(future, ticket):
    future.set_result(ticket)


async def test_a_fast_model_answers_at_once_in_the_loop(engine):
    version = serve(engine)
    response = engine.infer_now(request(1, 2, id="a"))
    assert (response.model, response.version, response.id) == ("m", "1", "a")
    np.testing.assert_array_equal(response.outputs["y"], [[2, 2], [4, 4]])
    assert version.inferencer.threads == {threading.current_thread()}


async def test_a_slow_model_runs_in_threads(engine):
    version = serve(engine, costs=SLOW)
    assert engine.infer_now(request()) is None
    response = await engine.infer(request(3))
    np.testing.assert_array_equal(response.outputs["z"], [[6, 6]])
    assert threading.current_thread() not in version.inferencer.threads


async def test_a_large_request_to_a_fast_model_runs_in_threads(engine):
    version = serve(engine)
    assert engine.infer_now(request(*range(1000))) is None
    await engine.infer(request(*range(1000)))
    assert threading.current_thread() not in version.inferencer.threads


async def test_a_model_in_another_process_is_awaited(engine):
    version = serve(engine, in_process=False)
    assert engine.infer_now(request()) is None
    np.testing.assert_array_equal((await engine.infer(request(4))).outputs["y"], [[8, 8]])
    assert version.statistics.success.count == 1


async def test_requests_of_one_turn_are_one_call_and_each_reply_is_its_own(engine):
    version = serve(engine, batching=True)
    requests = [request(*range(n, 2 * n)) for n in (1, 2, 3)]
    tickets, answered = submit(engine, *requests)
    assert version.in_flight == 3
    await answered
    assert version.inferencer.rows == [6]
    for each, ticket in zip(requests, tickets, strict=True):
        np.testing.assert_array_equal(ticket.result().outputs["y"], 2 * each.inputs["x"])
    statistics = version.statistics
    assert (statistics.executions, statistics.inferences, statistics.success.count) == (1, 6, 3)
    assert statistics.batches[6].count == 1
    assert version.in_flight == 0


async def test_only_requests_for_the_same_outputs_are_joined(engine):
    version = serve(engine, batching=True)
    _, answered = submit(engine, request(1), request(2, outputs=("y",)), request(3), request(4, outputs=("y",)))
    await answered
    assert version.inferencer.rows == [2, 2]


async def test_batches_keep_to_the_bound_of_the_options(engine):
    version = serve(engine, batching=True, options={"max_batch_size": 4})
    _, answered = submit(engine, *[request(1, 2, 3) for _ in range(3)], request(1))
    await answered
    assert max(version.inferencer.rows) <= 4
    assert sum(version.inferencer.rows) == 10


@pytest.mark.parametrize(("options", "most"), [({}, 4096), ({"max_batch_size": 5000}, 5000)])
async def test_a_request_of_very_many_examples_is_refused_before_it_takes_their_memory(engine, options, most):
    version = serve(engine, options=options)
    assert len((await engine.infer(request(*range(most)))).outputs["y"]) == most
    with pytest.raises(InvalidInference, match=f"holds {most + 1} examples, the model takes {most}") as caught:
        await engine.infer(request(*range(most + 1)))
    assert "max_batch_size" in caught.value.remedy
    assert version.inferencer.rows == [most]


@pytest.mark.parametrize("switch", ["options", "service", "probe"])
async def test_batching_can_be_off(engine, switch):
    if switch == "service":
        engine = Engine(Registry(), batching=False)
    options = {"micro_batching": "off"} if switch == "options" else {}
    version = serve(engine, batching=switch != "probe", options=options)
    tickets, answered = submit(engine, request(1), request(2))
    assert all(ticket.response for ticket in tickets)
    await answered
    assert version.inferencer.rows == [1, 1]
    if switch == "service":
        engine.close()


async def test_one_bad_request_does_not_fail_those_that_it_was_joined_with(engine):
    version = serve(engine, batching=True)
    tickets, answered = submit(engine, request(1), request(-1), request(3))
    await answered
    assert [type(ticket.error) for ticket in tickets] == [type(None), ModelFailed, type(None)]
    assert "it is negative" in str(tickets[1].error)
    assert version.statistics.fail.count == 1


async def test_waiting_requests_of_a_slow_model_are_joined_while_it_is_busy(engine):
    version = serve(engine, costs=SLOW, batching=True, options={"concurrency": 1})
    version.inferencer.gate.clear()
    _, first = submit(engine, request(1))
    await begun(version)
    tickets, rest = submit(engine, request(2), request(3), request(4))
    version.inferencer.gate.set()
    await asyncio.gather(first, rest)
    assert version.inferencer.rows == [1, 3]
    np.testing.assert_array_equal(tickets[2].result().outputs["y"], [[8, 8]])


async def test_concurrency_is_bounded_per_model(engine):
    version = serve(engine, costs=SLOW, options={"concurrency": 2})
    version.inferencer.gate.clear()
    _, answered = submit(engine, *[request(1)] * 4)
    await begun(version)
    await begun(version)
    assert version.lane.waiting == 2
    assert not version.inferencer.begun.acquire(blocking=False)
    version.inferencer.gate.set()
    await answered


async def test_more_than_may_wait_are_refused(engine):
    version = serve(engine, costs=SLOW, options={"concurrency": 1, "queue_limit": 2})
    version.inferencer.gate.clear()
    _, answered = submit(engine, *[request(1)] * 3)
    with pytest.raises(Overloaded, match="2 requests wait for 'm'") as caught:
        engine.submit(request(1), print)
    assert (caught.value.http, caught.value.retry_after) == (429, 1)
    assert version.lane.observed.overloaded == 1
    version.inferencer.gate.set()
    await answered
    await engine.infer(request(1))


async def test_waiting_tensors_are_bounded_over_all_models():
    engine = Engine(Registry(), waiting_bytes=100)
    version = serve(engine, costs=SLOW, options={"concurrency": 1})
    version.inferencer.gate.clear()
    _, answered = submit(engine, request(1), request(*range(10)))
    with pytest.raises(Overloaded, match="requests of 80 bytes wait, and 24 more"):
        engine.submit(request(1, 2, 3), print)
    waiting = engine.submit(request(1), print)
    waiting.cancel()
    version.inferencer.gate.set()
    await answered
    await engine.infer(request(*range(50)))
    engine.close()


async def test_a_request_that_came_too_late_does_not_run(engine):
    version = serve(engine)
    now = asyncio.get_running_loop().time()
    with pytest.raises(DeadlineExceeded):
        engine.infer_now(request(1, deadline=now - 1))
    assert version.inferencer.rows == []


async def test_a_waiting_request_is_answered_when_its_time_is_over_and_does_not_run(engine):
    version = serve(engine, costs=SLOW, options={"concurrency": 1})
    version.inferencer.gate.clear()
    _, first = submit(engine, request(1))
    await begun(version)
    soon = asyncio.get_running_loop().time() + 0.01
    with pytest.raises(DeadlineExceeded):
        await engine.infer(request(2, deadline=soon))
    assert version.lane.waiting == 0
    version.inferencer.gate.set()
    await first
    await engine.infer(request(3, 3))
    assert version.inferencer.rows == [1, 2]
    assert version.statistics.fail.count == 1


async def test_a_running_request_is_answered_when_its_time_is_over_and_drains(engine):
    version = serve(engine, costs=SLOW, options={"timeout": 0.01})
    version.inferencer.gate.clear()
    with pytest.raises(DeadlineExceeded):
        await engine.infer(request(1))
    assert version.in_flight == 1
    version.inferencer.gate.set()
    await engine.registry.retire(version)
    assert version.in_flight == 0


async def test_a_cancelled_request_does_not_run(engine):
    version = serve(engine, costs=SLOW, options={"concurrency": 1})
    version.inferencer.gate.clear()
    _, first = submit(engine, request(1))
    await begun(version)
    waiting = asyncio.create_task(engine.infer(request(2, 2)))
    await asyncio.sleep(0)
    assert version.lane.waiting == 1
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert version.lane.waiting == 0
    version.inferencer.gate.set()
    await first
    assert version.inferencer.rows == [1]
    assert version.in_flight == 0


async def test_a_request_that_will_not_run_takes_no_memory(engine):
    version = serve(engine, costs=SLOW, options={"concurrency": 1})
    version.inferencer.gate.clear()
    _, first = submit(engine, request(1))
    await begun(version)
    left = request(2)
    left.deadline = asyncio.get_running_loop().time() + 1e9
    ticket = engine.submit(left, lambda _: None)
    tensor = weakref.ref(left.inputs["x"])
    ticket.cancel()
    del ticket, left
    gc.collect()
    assert tensor() is None
    version.inferencer.gate.set()
    await first


async def test_requests_that_were_gathered_and_cancelled_do_not_run(engine):
    version = serve(engine, batching=True)
    told = []
    ticket = engine.submit(request(1), told.append)
    other = engine.submit(request(2), told.append)
    ticket.cancel()
    await asyncio.sleep(0)
    assert told == [other]
    assert version.inferencer.rows == [1]
    assert version.in_flight == 0


async def test_requests_in_work_keep_their_version_during_a_swap(engine):
    old = serve(engine, Scale(2), costs=SLOW, version="1")
    old.inferencer.gate.clear()
    tickets, answered = submit(engine, request(1))
    await begun(old)
    serve(engine, Scale(3), version="2")
    retiring = asyncio.create_task(engine.registry.retire(old))
    np.testing.assert_array_equal((await engine.infer(request(1))).outputs["y"], [[3, 3]])
    assert not retiring.done()
    old.inferencer.gate.set()
    await answered
    response = tickets[0].result()
    assert response.version == "1"
    np.testing.assert_array_equal(response.outputs["y"], [[2, 2]])
    await retiring


async def test_pipelines_run_per_request_and_share_values(engine):
    def before(tensors, values):
        values["offset"] = float(tensors["x"].min())
        return {"x": tensors["x"] - values["offset"]}

    def after(tensors, values):
        return {name: array + values["offset"] for name, array in tensors.items()}

    version = serve(engine, batching=True, preprocess=before, postprocess=after)
    tickets, answered = submit(engine, request(1, 3, outputs=("y",)), request(10, 11, outputs=("y",)))
    await answered
    assert version.inferencer.rows == [4]
    results = [ticket.result().outputs for ticket in tickets]
    assert [each["y"][:, 0].tolist() for each in results] == [[1, 5], [10, 12]]
    assert set(results[0]) == {"y"}


@pytest.mark.parametrize("in_process", [True, False])
@pytest.mark.parametrize("side", ["preprocess", "postprocess"])
async def test_a_step_that_raises_fails_its_request_only(engine, side, in_process):
    def step(tensors, values):
        if (next(iter(tensors.values())) >= 8).any():
            raise ZeroDivisionError("here")
        return dict(tensors)

    serve(engine, batching=True, in_process=in_process, **{side: step})
    tickets, answered = submit(engine, request(1), request(9))
    await answered
    assert tickets[0].error is None
    assert isinstance(tickets[1].error, ModelFailed)
    assert side + "ing" in str(tickets[1].error)


async def test_versions_that_do_not_answer_are_not_asked(engine):
    model = Scale()
    serve(engine, model)
    with pytest.raises(UnknownServed):
        await engine.infer(InferRequest("other", {}))
    model.fault = "its process is started again"
    with pytest.raises(NotReady, match="started again"):
        await engine.infer(request(1))


async def test_what_does_not_fit_is_refused_before_it_is_taken(engine):
    version = serve(engine)
    with pytest.raises(InvalidInference, match="'x' is of type FP64"):
        await engine.infer(InferRequest("m", {"x": np.zeros((1, 2))}))
    assert version.in_flight == 0
