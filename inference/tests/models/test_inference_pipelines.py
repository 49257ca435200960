"""Steps around a model: formats held to the model's, shared values, a training's pipeline, and where they run."""

from __future__ import annotations

import json

import numpy as np
import pytest

from locex.api import Dataset
from locex.errors import FormatMismatch, InvalidConfiguration, UnknownPlugin
from locex.pipelines.saved import SavedPipeline, UnsavedPipeline
from locex.pipelines.steps import fit, made_by
from locex.plugins.catalog import read_catalog
from locex.plugins.host import Host
from locex.schemas.data_format import DataFormat
from locex_inference.errors import InvalidInference, ModelFailed
from locex_inference.models.configmap import ConfiguredModel, read_configured_model
from locex_inference.models.options import ModelOptions
from locex_inference.models.repository import ModelFolder
from locex_inference.models.serving_folder import ModelRepository

FORMAT = {"data_types": {"tabular": {"size": [2], "dtype": "float32"}}}
X = np.array([[1, 2], [3, 4]], np.float32)


def step(name, tensor=None, **parameters):
    return {"id": name, "parameters": parameters} | ({"tensor": tensor} if tensor else {})


def options(before=(), after=(), **others):
    return ModelOptions(
        **{"preprocessing": [*before], "postprocessing": [*after], "format": FORMAT, "warmup": [1]} | others
    )


def answered(version, x=X):
    """Do what the engine does."""
    values = {}
    tensors = {"x": x}
    if version.preprocess:
        tensors = version.preprocess(tensors, values)
    made = version.inferencer.run(tensors, ["y"])
    return (version.postprocess(made, values) if version.postprocess else made)["y"]


async def remotely(version, x=X):
    return (await version.inferencer.arun({"x": x}, ["y"]))["y"]


def tensors(infos):
    return [(info.name, info.datatype, info.shape) for info in infos]


async def test_steps_run_before_and_behind_the_model(loader, models):
    path = models.write(models.linear(2))
    steps = options([step("basic_norm", mean=1, std=2)], [step("argmax"), step("label_mapping", labels=["no", "yes"])])
    version = await loader.load("m", "1", path, steps)
    assert version.in_process
    assert answered(version, np.array([[3, 1], [1, 3]], np.float32)).tolist() == [b"no", b"yes"]
    assert tensors(version.inputs) == [("x", "FP32", (-1, 2))]
    assert tensors(version.outputs) == [("y", "BYTES", (-1,))]


async def test_callers_see_the_format_before_the_first_step(loader, models):
    path = models.write(models.linear(2))
    form = {"data_types": {"image": {"size": [2], "dtype": "uint8"}}}
    version = await loader.load("m", "1", path, options([step("basic_norm", std=255)], format=form))
    assert tensors(version.inputs) == [("x", "UINT8", (-1, 2))]
    assert answered(version, np.array([[255, 0]], np.uint8)).tolist() == [[2, 0]]


async def test_what_the_steps_give_must_be_what_the_model_takes(loader, models):
    path = models.write(models.linear(2, width=3))
    with pytest.raises(FormatMismatch) as caught:
        await loader.load("m", "1", path, options([step("basic_norm"), step("expansion")]))
    assert caught.value.message == (
        "the data does not fit the model: x has the size [2, 1] of rank 2, not 1, the model takes [3]\n"
        "the format step by step:\n"
        "  0. source: x tabular [2] float32, y \n"
        "  1. basic_norm: x tabular [2] float32, y \n"
        "  2. expansion: x tabular [2, 1] float32, y "
    )
    with pytest.raises(FormatMismatch, match=r"step 1 \(basic_norm\) cannot take its input: basic_norm has 3 channels"):
        await loader.load("m", "1", path, options([step("basic_norm", mean=[1, 2, 3])]))
    form = {"data_types": {"tabular": {"size": [3], "dtype": "float64"}}}
    with pytest.raises(FormatMismatch, match=r"x has the type float64, the model takes float32"):
        await loader.load("m", "1", path, options([step("expansion", axis=0), step("merge_as_column")], format=form))
    with pytest.raises(FormatMismatch, match=r"step 1 \(argmax\) cannot take its input: argmax acts on axis 4"):
        await loader.load("m", "1", path, options((), [step("argmax", axis=4)]))


async def test_pipelines_that_cannot_be_made_are_refused(loader, models):
    path = models.write(models.linear(2))
    with pytest.raises(UnknownPlugin, match=r"'sharpen'"):
        await loader.load("m", "1", path, options([step("sharpen")]))
    with pytest.raises(InvalidConfiguration, match=r"preprocessing needs the format of what callers send"):
        await loader.load("m", "1", path, options([step("basic_norm")], format=None))
    with pytest.raises(InvalidConfiguration, match=r"step 1 \(standard_scale\) learns from training data"):
        await loader.load("m", "1", path, options([step("standard_scale")]))
    with pytest.raises(InvalidConfiguration, match=r"step 1 \(softmax\) of the postprocessing acts on 'z'"):
        await loader.load("m", "1", path, options((), [step("softmax", tensor="z")]))
    with pytest.raises(InvalidConfiguration, match=r"the version has no pipeline of a training"):
        await loader.load("m", "1", path, ModelOptions(pipeline="training"))


async def test_steps_of_several_inputs_name_their_tensor(loader, models):
    from onnx import helper

    model = models.graph([models.node("Add", ["x", "z"], ["y"])], ["b", 2], ["b", 2])
    model.graph.input.append(helper.make_tensor_value_info("z", models.types.FLOAT, ["b", 2]))
    path = models.write(model)
    with pytest.raises(InvalidConfiguration, match=r"acts on ''; the model has x, z"):
        await loader.load("m", "1", path, options([step("basic_norm", std=2)]))
    version = await loader.load("m", "1", path, options([step("basic_norm", tensor="z", std=2)]))
    made = version.preprocess({"x": X, "z": X}, {})
    assert version.inferencer.run(made, ["y"])["y"].tolist() == (X * 1.5).tolist()


async def test_steps_share_values_of_one_request(make_loader, models):
    path = models.write(models.linear(2))
    steps = options([step("acme_remember")], [step("acme_restore")])
    loader = make_loader(steps_in_process=frozenset({"acme_remember", "acme_restore"}))
    here = await loader.load("m", "1", path, steps)
    assert here.in_process
    assert answered(here).tolist() == (2 * X).tolist()
    beyond = await make_loader().load("m", "1", path, steps)
    assert not beyond.in_process  # the operator did not allow these steps
    assert (await remotely(beyond)).tolist() == (2 * X).tolist()
    assert (beyond.preprocess, beyond.postprocess, beyond.batching) == (None, None, False)


async def test_a_step_that_refuses_its_data_blames_the_request_or_the_model(make_loader, models):
    path = models.write(models.linear(2))
    images = {"data_types": {"image": {"size": [], "dtype": "object"}}}
    x = np.array([b"no image"], object)
    steps = [step("read_image_batch", size=[1, 2], mode="L"), step("merge_as_column"), step("basic_norm")]
    for allowed in (frozenset({"read_image_batch", "merge_as_column", "basic_norm"}), frozenset()):
        version = await make_loader(steps_in_process=allowed).load("m", "1", path, options(steps, format=images))
        assert tensors(version.inputs) == [("x", "BYTES", (-1,))]
        with pytest.raises(InvalidInference, match=r"step 1 \(read_image_batch\).*example 0"):
            answered(version, x) if allowed else await remotely(version, x)
    named = await make_loader().load("m", "2", path, options((), [step("argmax"), step("label_mapping", labels=["a"])]))
    with pytest.raises(ModelFailed, match=r"label_mapping has 1 labels"):
        answered(named, np.array([[0, 1]], np.float32))


# --- the training's pipeline ------------------------------------------------------------------------------------------


SOURCE = DataFormat.of({"tabular": {"size": [2], "dtype": "float64"}}, {"categorical": {"size": [], "dtype": "int64"}})


def trained(*names, x=X):
    """Return a pipeline whose steps have learnt, as a training keeps it."""
    host, catalog = Host(), read_catalog(folders=[])
    steps = [
        made_by(host, host.configure(host.load(catalog.find("transform", name)), fields), number)
        for number, (name, fields) in enumerate(names, 1)
    ]
    for one in steps:
        if one.learns:
            fit(one, Dataset(x.astype(np.float64), np.zeros(len(x), np.int64)))
    return SavedPipeline.of(steps, SOURCE), steps


async def test_serving_transforms_with_what_the_training_learnt(make_loader, models):
    kept, steps = trained(("impute", {"strategy": "mean"}), ("standard_scale", {}), ("categorical", {"categories": 3}))
    kept = SavedPipeline.model_validate_json(kept.model_dump_json())  # as the lineage carries it
    data = Dataset(np.array([[5, np.nan]]), np.zeros(1, np.int64))
    for one in steps[:2]:
        data = one.transform.transform_data(data)
    path = models.write(models.linear(1))
    wanted = frozenset({"impute", "standard_scale", "categorical"})
    here = await make_loader(steps_in_process=wanted).load(
        "m", "1", path, ModelOptions(pipeline="training"), pipeline=kept
    )
    assert here.in_process
    assert tensors(here.inputs) == [("x", "FP64", (-1, 2))]
    assert answered(here, np.array([[5, np.nan]])).tolist() == data.x.tolist()
    beyond = await make_loader().load("m", "1", path, ModelOptions(pipeline="training"), pipeline=kept)
    assert (await remotely(beyond, np.array([[5, np.nan]]))).tolist() == data.x.tolist()


async def test_a_version_without_the_option_takes_what_the_model_takes(loader, models):
    kept, _ = trained(("standard_scale", {}))
    version = await loader.load("m", "1", models.write(models.linear(1)), pipeline=kept)
    assert version.preprocess is None


async def test_the_pipeline_may_lie_beside_the_model(loader, models):
    kept, _ = trained(("standard_scale", {}), ("categorical", {"categories": 3}))
    path = models.write(models.linear(1), "1/model.onnx")
    (path.parent / "pipeline.json").write_text(kept.model_dump_json())
    version = await loader.load("m", "1", path.parent, ModelOptions(pipeline="training"))
    made = await remotely(version, X.astype(np.float64))
    assert np.allclose(made, [[-1, -1], [1, 1]])


async def test_a_damaged_pipeline_is_refused(loader, models):
    kept, _ = trained(("standard_scale", {}))
    content = kept.model_dump(mode="json")
    path = models.write(models.linear(1), "1/model.onnx")
    for damage in ({"data": "AAAA"}, {"dtype": "|O"}, {"shape": [-2]}):
        state = content["steps"][0]["state"]
        broken = content | {"steps": [content["steps"][0] | {"state": state | {"shift": state["shift"] | damage}}]}
        (path.parent / "pipeline.json").write_text(json.dumps(broken))
        with pytest.raises(Exception, match=r"a kept array"):
            await loader.load("m", "1", path.parent, ModelOptions(pipeline="training"))
    (path.parent / "pipeline.json").write_text("{}")
    with pytest.raises(Exception, match=r"pipeline.json is no kept pipeline"):
        await loader.load("m", "1", path.parent, ModelOptions(pipeline="training"))


def test_a_step_that_keeps_nothing_to_itself_cannot_be_served(acme):
    host, catalog = Host(), read_catalog()
    learner = made_by(host, host.configure(host.load(catalog.find("transform", "acme_learn")), {}), 1)
    with pytest.raises(UnsavedPipeline, match=r"step 1 \(acme_learn\) learns from training data and does not keep"):
        SavedPipeline.of([learner], SOURCE)


# --- the ConfigMap's files --------------------------------------------------------------------------------------------


def test_the_files_of_older_services_are_read_as_they_are(tmp_path):
    assert read_configured_model(tmp_path) is None
    files = {
        "setup.json": {"service": {"modules": []}, "inference": {"inferencer": "tf_lite_inferencer"}},
        "model.json": {"model_name": "m", "model_version": 3, "library": "tflite", "input_format": {}},
        "format.json": {"data_types": {"numerical": {"size": 4}}},
        "transformation_pipeline.json": [{"id": "basic_norm", "parameters": {"mean": 1, "std": 2}}],
        "postprocessing_pipeline.json": [{"id": "argmax", "parameters": {}}],
    }
    for name, content in files.items():
        (tmp_path / name).write_text(json.dumps(content))
    found = read_configured_model(tmp_path)
    assert (found.name, found.version, found.library) == ("m", "3", "tflite")
    assert found.options.inferencer == "tflite"
    assert [one.id for one in found.options.preprocessing] == ["basic_norm"]
    assert [one.id for one in found.options.postprocessing] == ["argmax"]
    assert found.options.format.data_types["numerical"].size == [4]
    (tmp_path / "preprocessing_pipeline.json").write_text("[]")
    with pytest.raises(InvalidConfiguration, match=r"are the same pipeline, and both are there"):
        read_configured_model(tmp_path)
    (tmp_path / "preprocessing_pipeline.json").write_text("[")
    with pytest.raises(InvalidConfiguration, match=r"preprocessing_pipeline.json cannot be read"):
        read_configured_model(tmp_path)


async def test_a_mounted_configmap_serves_its_version_with_its_pipelines(loader, models):
    for version in ("3", "4"):
        models.write(models.linear(int(version)), f"m/{version}/model.onnx")
    configured = ConfiguredModel("m", "3", "", options([step("basic_norm", mean=1)], [step("argmax")]))
    repository = ModelRepository(loader, ModelFolder(models.folder, configured))
    assert await repository.load_all() == []
    version = loader.registry.choose("m")
    assert version.version == "3"
    assert answered(version, np.array([[1, 2], [2, 1]], np.float32)).tolist() == [1, 0]
    (models.folder / "m" / "model.json").write_text("{}")  # nearer to the model than the ConfigMap
    await repository.load("m")
    assert loader.registry.choose("m").preprocess is None
