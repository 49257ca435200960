"""Which version answers: labels, canaries, promotion, rollback; and how one is retired."""

from __future__ import annotations

import asyncio
import itertools

import pytest

from locex_inference.errors import InvalidInference, NotReady, UnknownServed
from locex_inference.models.options import ModelOptions
from locex_inference.models.registry import Registry
from locex_inference.models.version import ModelVersion
from locex_inference.serving import Statistics


class Closable:
    inputs = outputs = ()
    fault = ""

    def __init__(self):
        self.closed = False

    def close(self):
        self.closed = True


def version(name, **options):
    return ModelVersion(
        name="m",
        version=name,
        digest=name,
        platform="p",
        inputs=(),
        outputs=(),
        inferencer=Closable(),
        options=ModelOptions(**options),
        statistics=Statistics("m", name),
    )


@pytest.fixture
def registry():
    return Registry()


def chosen(registry, name=""):
    return registry.choose("m", name).version


def states(registry):
    return {entry.version: (entry.state, entry.reason) for entry in registry.index()}


def test_the_newest_version_becomes_stable_unless_its_options_say_otherwise(registry):
    registry.publish(version("1", promote=False))
    assert chosen(registry) == "1"  # the first always does
    registry.publish(version("2"))
    registry.publish(version("3", promote=False))
    assert (chosen(registry), chosen(registry, "latest"), chosen(registry, "stable")) == ("2", "3", "2")
    assert [chosen(registry, name) for name in "123"] == ["1", "2", "3"]
    assert registry.labels("m") == {"latest": "3", "stable": "2"}


def test_rollback_and_promotion_are_one_call_each(registry):
    for name in "12":
        registry.publish(version(name))
    assert registry.rollback("m").version == "1"
    assert chosen(registry) == "1"
    assert registry.rollback("m").version == "2"  # and back again
    registry.publish(version("3", promote=False))
    assert registry.promote("m").version == "3"  # the latest
    assert registry.rollback("m").version == "2"
    with pytest.raises(UnknownServed, match=r"there is no 'm' version '9' here; loaded are: 1, 2, 3"):
        registry.promote("m", "9")


def test_rollback_without_a_former_version_is_refused(registry):
    registry.publish(version("1"))
    with pytest.raises(InvalidInference, match=r"'m' has no former version to go back to"):
        registry.rollback("m")


def test_labels_name_versions_and_may_not_hide_others(registry):
    for name in "12":
        registry.publish(version(name))
    registry.set_labels("m", {"blue": "1", "green": "2"})
    assert (chosen(registry, "blue"), chosen(registry, "green")) == ("1", "2")
    for label in ("latest", "stable", "1"):
        with pytest.raises(InvalidInference, match=r"the name has a meaning already"):
            registry.set_labels("m", {label: "1"})
    with pytest.raises(UnknownServed):
        registry.set_labels("m", {"red": "7"})
    assert registry.labels("m") == {"latest": "2", "stable": "2", "blue": "1", "green": "2"}


def test_a_canary_takes_its_part_of_the_requests_that_name_no_version():
    draws = itertools.cycle([0.0, 0.05, 0.1, 0.5, 0.99])
    registry = Registry(draw=lambda: next(draws))
    registry.publish(version("1"))
    registry.publish(version("2", promote=False))
    registry.set_weights("m", {"latest": 0.1})
    assert [chosen(registry) for _ in range(5)] == ["2", "2", "1", "1", "1"]
    assert [chosen(registry, "stable") for _ in range(3)] == ["1"] * 3
    registry.set_weights("m", {})
    assert [chosen(registry) for _ in range(5)] == ["1"] * 5
    for weights in ({"2": -0.1}, {"1": 0.6, "2": 0.6}):
        with pytest.raises(InvalidInference, match=r"at least 0, and at most 1 in all"):
            registry.set_weights("m", weights)


async def test_a_retired_version_is_closed_when_its_last_request_is_answered(registry):
    old = version("1")
    registry.publish(old)
    registry.publish(version("2"))
    old.in_flight = 1
    retiring = asyncio.create_task(registry.retire(old, "2 took its place"))
    while states(registry)["1"][0] != "UNLOADING":  # noqa: ASYNC110 -- nothing tells of it
        await asyncio.sleep(0)
    with pytest.raises(NotReady, match=r"'m' version '1' is not ready: UNLOADING, 2 took its place"):
        registry.choose("m", "1")
    assert not old.inferencer.closed
    old.in_flight = 0
    await retiring
    assert old.inferencer.closed
    assert states(registry) == {"1": ("UNAVAILABLE", "2 took its place"), "2": ("READY", "")}


async def test_when_the_stable_version_is_retired_the_former_takes_its_place(registry):
    for name in "123":
        registry.publish(version(name))
    registry.set_labels("m", {"blue": "3"})
    registry.set_weights("m", {"3": 0.5})
    await registry.retire(registry.choose("m", "3"))
    assert chosen(registry) == "2"
    assert registry.labels("m") == {"latest": "2", "stable": "2"}
    await registry.unload("m")
    with pytest.raises(NotReady, match=r"'m' is not ready: UNAVAILABLE, unloaded"):
        registry.choose("m")


def test_a_version_that_is_published_again_replaces_its_namesake(registry):
    first, second = version("1"), version("1")
    assert registry.publish(first) is None
    assert registry.publish(second) is first
    assert registry.choose("m") is second
    assert registry.versions("m") == (second,)
    registry.publish(version("2"))
    third = version("1")
    assert registry.publish(third, promote=False) is second
    assert chosen(registry) == "2"


def test_versions_that_nothing_names_are_superfluous(registry):
    for name in "12345":
        registry.publish(version(name, keep=2))
    assert [one.version for one in registry.superfluous("m")] == ["1", "2", "3"]
    registry.set_labels("m", {"blue": "1"})
    registry.set_weights("m", {"2": 0.1})
    registry.promote("m", "3")  # 5 stays warm for a rollback
    assert registry.superfluous("m") == []


def test_the_index_tells_of_failures_and_of_processes_that_are_down(registry):
    registry.note("m", "1", "LOADING")
    with pytest.raises(NotReady, match=r"'m' is not ready: LOADING"):
        registry.choose("m")
    registry.note("m", "1", "UNAVAILABLE", "the artefact is empty")
    with pytest.raises(NotReady, match=r"UNAVAILABLE, the artefact is empty"):
        registry.choose("m", "1")
    served = version("2")
    registry.publish(served)
    registry.note("m", "2", "UNAVAILABLE", "it is corrupt")
    assert states(registry)["2"] == ("READY", "served as it was loaded before; then: it is corrupt")
    served.inferencer.fault = "its process ended"
    assert states(registry)["2"] == ("UNAVAILABLE", "its process ended")
    assert chosen(registry) == "2"


def test_unknown_models_and_versions_are_told_apart(registry):
    with pytest.raises(UnknownServed, match=r"there is no model 'n' here"):
        registry.choose("n")
    with pytest.raises(UnknownServed, match=r"there is no model 'n' here"):
        registry.choose("n", "1")
    registry.publish(version("1"))
    with pytest.raises(UnknownServed, match=r"there is no 'm' version '2' here; loaded are: 1"):
        registry.choose("m", "2")
