"""The published OpenAPI document: valid, true, and following what is installed."""

from __future__ import annotations

import copy
import importlib.metadata
import json
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator
from referencing import Registry
from referencing.jsonschema import DRAFT202012

HERE = Path(__file__).parent
SAMPLE = json.loads((HERE / "sample_job.json").read_text())
TEMPLATE = json.loads((HERE / "job_template.json").read_text())


def job_validator(document):
    registry = Registry().with_resource("urn:document", DRAFT202012.create_resource(document))
    return Draft202012Validator({"$ref": "urn:document#/components/schemas/JobConfiguration"}, registry=registry)


def changed(**sections):
    """The sample with other content in some of its sections."""
    content = copy.deepcopy(SAMPLE)
    for name, section in sections.items():
        content[name] = section
    return content


@pytest.fixture
async def document(open_node):
    node = await open_node(allowed_distributions=["locex-fixture-tiny"])
    return await node.call("GET", "/openapi.json")


async def test_the_document_is_valid_and_has_every_path_of_the_public_description(document):
    OpenAPIV31SpecValidator(document).validate()
    operations = {f"{method.upper()} {path}" for path, item in document["paths"].items() for method in item}
    assert operations >= {
        "POST /model/",
        "PUT /model/{name}/{version}",
        "GET /job/status",
        "GET /job/total",
        "GET /capabilities",
        "GET /format",
        "POST /job/config/{training_id}/",
    }


async def test_the_sample_of_the_public_description_fits_the_document(document):
    validator = job_validator(document)
    validator.validate(SAMPLE)
    assert not validator.is_valid(changed(config=[{"batch_size": "many"}]))
    assert not validator.is_valid(changed(optimizer_config={"optimizer": "sgd", "mystery": 1}))
    assert not validator.is_valid(changed(optimizer_config={"learning_rate": 1}))
    validator.validate(changed(optimizer_config={"optimizer": "sgd", "learning_rate": " 0.5"}))
    step = {"id": "scale", "parameters": {"factor": "2"}}
    validator.validate(changed(transformations={"train": [step]}))
    assert not validator.is_valid(changed(transformations={"train": [step | {"parameters": {"colour": 1}}]}))
    assert not validator.is_valid(changed(**{"privacy-mechanisms": {"round_off": {"decimals": "x"}}}))


async def test_the_sample_fits_the_document_of_a_node_with_both_frameworks(open_node):
    builders = ["locex-keras-builder", "locex-torch-builder"]
    for builder in builders:
        try:
            importlib.metadata.distribution(builder)
        except importlib.metadata.PackageNotFoundError:
            pytest.skip(f"{builder} is not installed")
    node = await open_node(allowed_distributions=[*builders, "locex-fixture-tiny"])
    document = await node.call("GET", "/openapi.json")
    OpenAPIV31SpecValidator(document).validate()
    assert {"optimizer.pytorch.adam", "optimizer.tiny.sgd"} <= set(document["components"]["schemas"])
    validator = job_validator(document)
    validator.validate(SAMPLE)
    validator.validate(changed(optimizer_config={"optimizer": "adam", "lr": "0.1", "amsgrad": "True"}))
    assert not validator.is_valid(changed(optimizer_config={"optimizer": "adam", "learning_rate": "fast"}))


async def test_every_field_of_the_public_template_is_known(open_node):
    node = await open_node(allowed_distributions=["locex-fixture-tiny"])
    await node.put_model()
    known = (await node.call("GET", "/openapi.json"))["components"]["schemas"]
    assert set(TEMPLATE) <= set(known["JobConfiguration"]["properties"])
    assert set(TEMPLATE["config"][0]) == set(known["TrainConfig"]["properties"])
    assert set(TEMPLATE["warmup_config"]) == set(known["WarmupConfig"]["properties"])
    nothing = dict.fromkeys(TEMPLATE)  # null means not given
    accepted = await node.submit(**{key: nothing[key] for key in nothing if key not in JOB_NEEDS})
    assert accepted["warnings"] == ["optimizer_config is absent: sgd with its defaults is used"]


JOB_NEEDS = {"server_address", "model_name", "model_version"}


async def test_the_sample_is_answered_with_the_builders_that_are_installed(open_node):
    node = await open_node()
    await node.put_model("md_keras", "v1", library="mxnet")
    problem = await node.call("POST", "/job/config/1/", status=422, json=SAMPLE)
    assert problem["code"] == "plugin-unknown"
    assert problem["detail"].startswith("no builder named 'mxnet' is installed; installed are: ")
    assert "tiny" in problem["detail"]
    assert problem["errors"][0]["path"] == "/model_name"


async def test_a_distribution_installed_later_is_listed_documented_and_used_without_a_restart(
    launch, tmp_path, install_tiny
):
    folder = tmp_path / "plugins"
    folder.mkdir()
    service = await launch(LOCEX_PLUGIN_FOLDER=str(folder), LOCEX_SPARE_WORKER="1")
    node = service.node
    await node.put_model()
    refused = await node.submit("t", 422)
    assert refused["code"] == "plugin-unknown"
    assert "optimizer.tiny.sgd" not in (await node.call("GET", "/openapi.json"))["components"]["schemas"]

    await install_tiny(folder)
    assert "tiny.sgd" in [info["name"] for info in await node.call("GET", "/plugins")]
    assert "optimizer.tiny.sgd" in (await node.call("GET", "/openapi.json"))["components"]["schemas"]
    await node.submit()
    assert (await node.end())["state"] == "FINISHED"
