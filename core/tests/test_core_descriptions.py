from __future__ import annotations

import sys

import pytest

from locex.plugins.catalog import Policy, read_catalog
from locex.plugins.check import faults_of
from locex.plugins.descriptions import Descriptions
from locex.plugins.installed import Installed
from locex.plugins.listing import Listing

TINY = ("transform", "scale", "locex-fixture-tiny")


def only(plugin_folder, *distributions):
    return read_catalog(Policy(allowed=frozenset(distributions)), [plugin_folder])


def descriptions(tmp_path, plugin_folder, *, patience=60, **options):
    return Descriptions(tmp_path / "cache", folders=[plugin_folder], patience=patience, **options)


async def test_schema_and_summary_of_good_plugins(tmp_path, plugin_folder):
    found = await descriptions(tmp_path, plugin_folder).of(only(plugin_folder, "locex-fixture-tiny"))
    answer = found[TINY]
    assert answer["description"] == "Multiplies inputs."
    assert answer["schema"]["properties"]["repeat"]["description"]
    assert {"type": "integer", "exclusiveMinimum": 0} in answer["schema"]["properties"]["repeat"]["anyOf"]
    assert answer["frameworks"] == []
    assert ("store", "sqlite", "locex-core") in found


async def test_a_second_service_needs_no_process(tmp_path, plugin_folder, monkeypatch):
    catalog = only(plugin_folder, "locex-fixture-tiny")
    first = await descriptions(tmp_path, plugin_folder).of(catalog)
    monkeypatch.setattr("locex.processes.answers.Child.start", None)
    assert await descriptions(tmp_path, plugin_folder).of(catalog) == first


async def test_a_cache_that_cannot_be_written_or_read_costs_only_time(tmp_path, plugin_folder):
    (tmp_path / "cache").write_text("a file, not a folder")
    found = await descriptions(tmp_path, plugin_folder).of(only(plugin_folder, "locex-fixture-tiny"))
    assert "schema" in found[TINY]


async def test_a_plugin_that_hangs_is_ended(tmp_path, plugin_folder, children):
    found = await descriptions(tmp_path, plugin_folder, patience=1).of(only(plugin_folder, "locex-fixture-hanging"))
    error = found["transform", "hanging", "locex-fixture-hanging"]["error"]
    assert error["code"] == "plugin-crashed"
    assert "did not end within 1 s" in error["message"]
    assert not children()


async def test_plugins_that_exit_or_raise_cost_only_themselves(tmp_path, plugin_folder, children):
    names = ("exiting", "raising", "tiny", "misfits")
    catalog = only(plugin_folder, *(f"locex-fixture-{name}" for name in names))
    found = await descriptions(tmp_path, plugin_folder).of(catalog)
    errors = {name: answer["error"] for (_, name, _), answer in found.items() if "error" in answer}
    assert {name: error["code"] for name, error in errors.items()} == {
        "exiting": "plugin-crashed",
        "raising": "plugin-broken",
        "hookless": "plugin-broken",
        "unknown_argument": "plugin-broken",
        "no_model": "plugin-broken",
        "raising_model": "plugin-broken",
        "system_exit": "plugin-broken",
        "exit_later": "plugin-crashed",
    }
    assert "exit code 3" in errors["exiting"]["message"]
    assert "the last words of a plugin" in errors["exiting"]["message"]
    assert "ValueError: no model today" in errors["raising_model"]["message"]
    assert "exit code 5" in errors["exit_later"]["message"]
    # Of the same distribution as the misfits, one before and one after those that ended their process.
    assert "schema" in found["transform", "printing", "locex-fixture-misfits"]
    assert not children()


async def test_a_broken_plugin_is_asked_again_by_the_next_service(tmp_path, plugin_folder):
    catalog = only(plugin_folder, "locex-fixture-raising")
    described = descriptions(tmp_path, plugin_folder)
    first = await described.of(catalog)
    assert first == await described.of(catalog)
    written = [path.read_text() for path in (tmp_path / "cache").iterdir()]
    assert written, "core's own plugins are cached"
    assert not any("error" in text for text in written)
    with pytest.raises(FileNotFoundError):
        await descriptions(tmp_path, plugin_folder, interpreter="/nowhere/python").of(catalog)


async def test_plugins_are_described_without_the_services_secrets(tmp_path, plugin_folder, monkeypatch):
    monkeypatch.setenv("LOCEX_STORE_URL", "mongodb://user:password@db")
    found = await descriptions(tmp_path, plugin_folder).of(only(plugin_folder, "locex-fixture-misfits"))
    schema = found["transform", "printing", "locex-fixture-misfits"]["schema"]
    assert schema["properties"]["undescribed"]["default"] == 0, "it counts the secrets that it sees"


async def test_the_listing_names_each_plugin_with_what_is_wrong(tmp_path, plugin_folder):
    names = ("tiny", "misfits", "raising", "too-old", "duplicate", "duplicate-too", "exiting")
    allowed = frozenset(f"locex-fixture-{name}" for name in names)
    policy = Policy(allowed, frozenset({"locex-fixture-exiting", "locex-fixture-duplicate"}))
    installed = Installed(policy, interpreter=sys.executable, folders=[plugin_folder])
    infos = await Listing(installed, descriptions(tmp_path, plugin_folder)).all()
    by_key = {(info.kind, info.name, info.distribution): info for info in infos}
    good = by_key[TINY]
    assert good.error is None
    assert good.configuration is not None
    assert faults_of(good) == []
    assert by_key["optimizer", "tiny.sgd", "locex-fixture-tiny"].library == "tiny"
    codes = {name: info.error.code for (_, name, _), info in by_key.items() if info.error and name != "doubled"}
    assert codes["exiting"] == codes["hanging"] == "plugin-refused"
    assert codes["too_old"] == "plugin-incompatible"
    assert codes["raising"] == "plugin-broken"
    assert by_key["transform", "doubled", "locex-fixture-duplicate"].error.code == "plugin-refused"
    assert by_key["transform", "doubled", "locex-fixture-duplicate-too"].error is None
    assert faults_of(by_key["transform", "printing", "locex-fixture-misfits"]) == [
        "the field 'undescribed' has no description"
    ]
    (fault,) = faults_of(by_key["transform", "raising", "locex-fixture-raising"])
    assert "this plugin never loads" in fault
