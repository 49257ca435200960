"""Formats without a job: the site's own, followed through changes, and dry runs of a job's."""

from __future__ import annotations

import asyncio
import json

import numpy as np

CHECK = {"model_name": "m", "model_version": "1"}


def steps(*chosen, test=None):
    train = [{"id": name, "parameters": parameters} for name, parameters in chosen]
    return {"transformations": {"train": train, "test": train if test is None else test}}


def trail(found, side="train"):
    kinds = [(one["step"], one["format"]["x"]["data_types"]) for one in found[side]]
    return [(name, next(iter(formats.values()))["size"]) for name, formats in kinds]


async def test_the_format_follows_the_files_and_the_choice_of_source(open_node, write_rows):
    node = await open_node(data_source="rows")
    for width in (3, 5):
        write_rows(width)
        found = await node.call("GET", "/format")
        assert found["x"]["data_types"]["tabular"] == {"size": [width], "dtype": "float32"}
    node.settings.configuration_folder.mkdir()
    setup = {"data_loader": {"id": "gaussians", "parameters": {"features": 9}}}
    (node.settings.configuration_folder / "setup.json").write_text(json.dumps(setup))
    assert (await node.call("GET", "/format"))["x"]["data_types"]["tabular"]["size"] == [9]


async def test_a_change_deep_in_the_folder_is_followed(open_node):
    node = await open_node(data_source="counting")
    folder = node.settings.data_folder / "class" / "deep"
    folder.mkdir(parents=True)
    for text in ("one", "three", "seven by seven"):  # neither name nor time of anything at the top changes
        (folder / "file").write_text(text)
        while await _told_bytes(node) != len(text):  # noqa: ASYNC110 -- nobody but the answer tells
            await asyncio.sleep(0.05)


async def _told_bytes(node):
    return (await node.call("GET", "/format"))["x"]["data_types"]["tabular"]["bytes"]


async def test_a_folder_that_comes_later_is_found(open_node, tmp_path):
    node = await open_node(data_source="counting", data_folder=tmp_path / "later")
    assert (await node.call("GET", "/format", status=503))["code"] == "data-unavailable"
    (tmp_path / "later").mkdir()
    (tmp_path / "later" / "file").touch()
    assert (await node.call("GET", "/format"))["x"]["data_types"]["tabular"]["size"] == [1]


async def test_a_check_shows_the_way_of_the_format_and_what_the_model_takes(open_node):
    node = await open_node()
    await node.put_model()
    found = await node.call("POST", "/format/check", json=CHECK | steps(("scale", {"factor": "2"}), ("centre", {})))
    assert found["fits"] is True
    assert found["differences"] == []
    assert trail(found) == [("source", [4]), ("scale", [4]), ("centre", [4])]
    assert found["model"]["input"] == {"size": [4], "dtype": "float32"}
    assert found["model"]["output"]["size"] == [3]


async def test_a_whole_job_may_be_checked_and_what_it_has_wrong_comes_together(node):
    job = {
        "server_address": "h:1",
        "num_rounds": 3,
        "config": [{"epochs": 2}],
        "num_classes": 7,
        "shape": [5],
        "data": {"source": "gaussians", "features": 2},
    }
    found = await node.call("POST", "/format/check", json=CHECK | job | steps(("scale", {"repeat": 3})))
    assert found["fits"] is False
    assert trail(found) == [("source", [2]), ("scale", [6])]
    told = "; ".join(found["differences"])
    for part in ("x has the size [6], the model takes [4]", "shape is [5]", "num_classes is 7, the model gives 3"):
        assert part in told


async def test_a_step_that_cannot_take_its_input_ends_the_way(node):
    images = {"data": {"source": "rows"}}
    np.save(node.settings.data_folder / "x.npy", np.zeros((10, 4, 4), np.float32))
    np.save(node.settings.data_folder / "y.npy", np.zeros(10, np.int64))
    found = await node.call("POST", "/format/check", json=CHECK | images | steps(("centre", {}), ("scale", {})))
    assert found["fits"] is False
    assert trail(found) == [("source", [4, 4]), ("centre", [4, 4])]
    assert found["differences"][0] == "step 2 (scale) cannot take its input: rank 1 is needed, not 2"
    assert found["model"] is None


async def test_source_and_pipelines_can_be_checked_without_a_model(node):
    train = steps(("scale", {"repeat": 2}), ("jitter", {}))["transformations"]["train"]
    body = {"transformations": {"train": train, "test": [train[1], train[0]]}}
    found = await node.call("POST", "/format/check", json=body)
    assert found["fits"] is True
    assert found["model"] is None
    assert trail(found, "test") == [("source", [4]), ("jitter (training only)", [4]), ("scale", [8])]
    body["transformations"]["test"] = []
    found = await node.call("POST", "/format/check", json=body)
    assert found["differences"] == ["the test pipeline ends with another format than the train pipeline"]


async def test_what_steps_need_of_the_node_is_checked_in_a_dry_run_and_in_a_job(node):
    wanting = steps(("wanting", {"model": "m/1"}), ("wanting", {"model": "m"}))
    assert (await node.call("POST", "/format/check", json=CHECK | wanting))["fits"] is True
    await node.submit("with", **wanting)
    assert (await node.end("with"))["state"] == "FINISHED"
    wanting = steps(("wanting", {"model": "m/2"}))
    found = await node.call("POST", "/format/check", json=CHECK | wanting)
    assert found["differences"] == ["the step wanting needs the model m/2"]
    await node.submit("without", **wanting)
    assert "the step wanting needs the model m/2" in (await node.end("without"))["failure"]["message"]


async def test_a_verdict_is_kept_until_something_changes(node, write_rows):
    check = CHECK | {"data": {"source": "counting"}}

    async def asked():
        found = await node.call("POST", "/format/check", json=check)
        return found["train"][0]["format"]["x"]["data_types"]["tabular"]["asked"]

    write_rows(4)
    first = await asked()
    while first != (again := await asked()):
        first = again  # the same files, told late by the system, may make it ask once more
    write_rows(5)
    second = await asked()
    assert second != first
    await node.put_model("other")  # a step may need it
    assert await asked() != second


UNCHECKED = [
    ({"model_name": "m"}, 422, "configuration-invalid", "go together"),
    ({"model_name": "n", "model_version": "1"}, 422, "model-unknown", "'n'"),
    ({"data": {"source": "tape"}}, 422, "plugin-unknown", "gaussians"),
    (steps(("scale", {"faktor": 1})), 422, "configuration-invalid", "faktor"),
    (steps(("raising", {})), 424, "plugin-broken", "this plugin never loads"),
    (steps(("doubled", {})), 409, "plugin-duplicate", "doubled"),
    ({"data": {"source": "hostile", "how": "exit"}}, 424, "plugin-crashed", "exit code 7"),
    ({"data": {"source": "hostile", "how": "dictionary"}}, 424, "plugin-broken", "format() gave dict"),
    (steps(("hostile", {"how": "die"})), 424, "plugin-crashed", "transform hostile"),
    (steps(("hostile", {"how": "raise in format"})), 422, "step-failed", "KeyError"),
    (steps(("printing", {})), 422, "step-failed", "raised NotImplementedError while it was made"),
    ({"shape": [0]}, 422, "configuration-invalid", "shape"),
]


async def test_what_cannot_be_checked_has_its_own_error(node, subtests):
    asked = (node.call("POST", "/format/check", status=status, json=body) for body, status, _, _ in UNCHECKED)
    for (body, _, code, part), problem in zip(UNCHECKED, await asyncio.gather(*asked), strict=True):
        with subtests.test(code, body=body):
            assert problem["code"] == code
            assert part in problem["detail"]


async def test_an_artefact_that_is_none_is_told(open_node):
    node = await open_node()
    await node.put_model(content=b"not a model")
    assert (await node.call("POST", "/format/check", status=422, json=CHECK))["code"] == "model-invalid"


async def test_a_plugin_that_hangs_or_takes_all_memory_is_ended(open_node):
    node = await open_node(inspect_timeout=4)
    hanging = await node.call("POST", "/format/check", status=424, json=steps(("hostile", {"how": "hang"})))
    assert hanging["code"] == "plugin-crashed"
    assert "did not end within 4 s" in hanging["detail"]
    node = await open_node(state_folder=node.settings.state_folder / "second", worker_memory_mb=600)
    hoarding = {"data": {"source": "hostile", "how": "hoard"}}
    problem = await node.call("POST", "/format/check", status=424, json=hoarding)
    assert problem["code"] == "plugin-crashed"
    assert "took more than 600 MiB of memory" in problem["detail"]


async def test_checking_needs_the_scope_of_running(open_node, tmp_path):
    tokens = tmp_path / "tokens"
    tokens.write_text("read:secret\n")
    tokens.chmod(0o600)
    node = await open_node(api_token_file=tokens)
    headers = {"Authorization": "Bearer secret"}
    await node.call("GET", "/capabilities", headers=headers)
    assert (await node.call("POST", "/format/check", 403, json={}, headers=headers))["code"] == "forbidden"
