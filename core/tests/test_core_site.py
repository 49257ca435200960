from __future__ import annotations

import json

import pytest

from locex.errors import InvalidConfiguration
from locex.jobs.site import data_of, fill_in, format_of, model_format_of, pipelines_of
from locex.schemas.job import parse_job
from locex.settings import NodeSettings, SiteSettings, worker_environment
from locex.worker.data import site_context

SIDES = {
    "x": {"data_types": {"image": {"size": [28, 28], "normalized": True}}},
    "y": {"data_types": {"categorical": {"size": 10}}},
}
SMALL = {"server_address": "tc", "model_name": "m", "model_version": "1"}


@pytest.fixture
def site(tmp_path):
    """Write the files of a ConfigMap and return the settings that read them."""

    def make(**files):
        for name, content in files.items():
            text = content if isinstance(content, str) else json.dumps(content)
            (tmp_path / f"{name}.json").write_text(text)
        return SiteSettings(configuration_folder=tmp_path, data_source="csv", federation="pigeons", optimizer="sgd")

    return make


def test_files_are_read_as_they_are_written_today(site):
    settings = site(
        setup={"data_loader": "binary", "client_library": {"keras": {"id": "base"}, "pytorch": {"id": "base"}}},
        format=SIDES,
        model=SIDES,
        transformation_pipeline_train=[{"id": "categorical", "parameters": {"categories": 10}}, {"id": "expansion"}],
        transformation_pipeline_test=[{"id": "categorical", "params": {"categories": 10}}],
    )
    assert data_of(settings).source == "binary"
    pipelines = pipelines_of(settings)
    assert [(step.id, step.parameters) for step in pipelines.train] == [
        ("categorical", {"categories": 10}),
        ("expansion", {}),
    ]
    assert pipelines.test[0].parameters == {"categories": 10}
    assert format_of(settings).y.data_types["categorical"].size == [10]
    assert model_format_of(settings) == format_of(settings)


def test_without_files_the_settings_decide(site):
    settings = site()
    assert data_of(settings).source == "csv"
    assert pipelines_of(settings).model_dump() == {"train": [], "test": []}
    assert format_of(settings) is None
    assert model_format_of(settings) is None
    assert data_of(SiteSettings(data_source="npy")).source == "npy"


def test_a_data_loader_may_bring_fields(site):
    choice = data_of(site(setup={"data_loader": {"id": "csv", "parameters": {"target": "label"}}}))
    assert choice.source == "csv"
    assert choice.fields() == {"target": "label"}


def test_the_inference_services_model_file_declares_no_format(site):
    assert model_format_of(site(model={"model_name": "m", "model_version": "1", "input_format": {}})) is None


@pytest.mark.parametrize(
    ("read", "name", "content", "part"),
    [
        (data_of, "setup", "{", "Expecting property name"),
        (data_of, "setup", [1], "/: Input should be"),
        (data_of, "setup", {"data_loader": {"parameters": {}}}, "id: Field required"),
        (pipelines_of, "transformation_pipeline_train", [{"parameters": {}}], "/0/id: Field required"),
        (pipelines_of, "transformation_pipeline_test", {"id": "x"}, "/: Input should be a valid list"),
        (pipelines_of, "transformation_pipeline_test", [{"id": "x", "colour": 1}], "/0/colour: Extra inputs"),
        (format_of, "format", {"x": SIDES["x"]}, "/y: Field required"),
        (format_of, "format", "\udcff", "utf-8"),
        (model_format_of, "model", {"x": {"data_types": {"image": {}}}, "y": SIDES["y"]}, "/x/data_types/image/size"),
        (model_format_of, "model", 7, "/: Input should be"),
    ],
)
def test_a_broken_file_is_named_with_its_fault(site, tmp_path, read, name, content, part):
    settings = site(**({} if content == "\udcff" else {name: content}))
    if content == "\udcff":
        (tmp_path / f"{name}.json").write_bytes(b'"\xff"')
    with pytest.raises(InvalidConfiguration) as caught:
        read(settings)
    assert caught.value.message.startswith(f"the site's file {name}.json cannot be used: ")
    assert part in caught.value.message
    assert "\n" not in caught.value.message
    assert caught.value.remedy


def test_what_a_job_leaves_open_is_filled_in(site):
    settings = site(transformation_pipeline_train=[{"id": "a"}])
    filled, warnings = fill_in(parse_job(SMALL)[0], settings)
    assert filled.server_address == "tc:8080"
    assert filled.data.source == "csv"
    assert filled.federation == "pigeons"
    assert filled.optimizer_config.optimizer == "sgd"
    assert [step.id for step in filled.transformations.train] == ["a"]
    assert warnings == ["optimizer_config is absent: sgd with its defaults is used"]


def test_what_a_job_says_stays(site):
    content = SMALL | {
        "data": {"source": "npy"},
        "federation": "owls",
        "optimizer_config": {"optimizer": "adam"},
        "transformations": {},
    }
    settings = site(setup="broken, and not read", transformation_pipeline_train="likewise")
    filled, warnings = fill_in(parse_job(content)[0], settings)
    assert (filled.data.source, filled.federation, filled.optimizer_config.optimizer) == ("npy", "owls", "adam")
    assert filled.transformations.train == []
    assert warnings == []


@pytest.mark.parametrize(
    ("address", "filled"),
    [("tc", "tc:9"), ("tc:1", "tc:1"), ("[::1]", "[::1]:9"), ("[::1]:1", "[::1]:1"), ("10.1.2.3", "10.1.2.3:9")],
)
def test_a_server_without_a_port_takes_the_sites(monkeypatch, address, filled):
    monkeypatch.setenv("FEDERATED_PORT", "9")
    job, _ = fill_in(parse_job(SMALL | {"server_address": address})[0], SiteSettings())
    assert job.server_address == filled


def test_a_worker_reads_the_same_settings_from_its_environment(monkeypatch, tmp_path):
    settings = NodeSettings(
        data_folder=tmp_path,
        plugin_folder=tmp_path,
        denied_distributions=["a", "b"],
        patience=5,
        root_certificates=None,
    )
    for name, value in worker_environment(settings).items():
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    again = NodeSettings()
    assert again.policy == settings.policy
    assert {name: getattr(again, name) for name in SiteSettings.model_fields} == {
        name: getattr(settings, name) for name in SiteSettings.model_fields
    }


def test_sources_are_told_where_they_may_keep_how_much(tmp_path):
    site = SiteSettings(data_folder=tmp_path, preprocessed_folder=tmp_path / "cache", preprocessed_mb=5)
    told = site_context(site, 3)
    assert (told.data_folder, told.seed, told.cache_bytes) == (tmp_path, 3, 5 * 2**20)
    assert told.cache_folder is not None
    assert told.cache_folder.is_dir()
    assert site_context(SiteSettings(data_folder=tmp_path, preprocessed_folder=None), 3).cache_folder is None
