from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from locex.errors import DuplicatePlugin, IncompatiblePlugin, InterpreterUnavailable, RefusedPlugin, UnknownPlugin
from locex.plugins.catalog import Catalog, Entry, Policy, read_catalog
from locex.plugins.installed import Installed
from locex.settings import PluginSettings

CORE = {"locex-core": "1.4.0"}


def entry(kind="transform", name="step", distribution="locex-a", version="1.0", requires=">=1,<2"):
    return Entry(kind, name, "module:Class", distribution, version, requires, f"{distribution} {version}")


def catalog(*entries, policy=None, **versions):
    return Catalog(entries, CORE | versions, policy)


def write_distribution(site, name, *, group="locex.transform", point="late = late:Late", metadata=None, **files):
    """Write a distribution as an installer leaves it."""
    folder = site / f"{name.replace('-', '_')}-1.0.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text(metadata or f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text(f"[{group}]\n{point}\n")
    for file, content in files.items():
        (folder / file.replace("__", ".")).write_text(content)


def test_reading_imports_no_plugin(plugin_folder):
    code = (
        "import sys; from pathlib import Path; from locex.plugins.catalog import read_catalog;"
        f"names = read_catalog(folders=[Path({str(plugin_folder)!r})]).names('transform');"
        "print(*names, *(m for m in sys.modules if m.startswith(('fixture_', 'numpy', 'stevedore', 'pluggy'))))"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert {"scale", "raising", "exiting", "hanging", "too_old", "doubled"} <= {*output}
    assert not [word for word in output if word.startswith(("fixture_", "numpy", "stevedore", "pluggy"))]


def test_entries_carry_origin_and_requirement(plugin_folder):
    found = read_catalog(folders=[plugin_folder]).find("transform", "scale")
    assert found.origin == "locex-fixture-tiny 1.0.0"
    assert {*found.requires.split(",")} == {">=1", "<2"}
    assert found.target == "fixture_tiny.scale:Scale"


def test_names_by_library_lose_their_library():
    known = catalog(*(entry("optimizer", name) for name in ("pytorch.adam", "pytorch.sgd", "keras.adam")))
    assert known.names("optimizer") == ["keras.adam", "pytorch.adam", "pytorch.sgd"]
    assert known.names("optimizer", "pytorch") == ["adam", "sgd"]
    assert known.find("optimizer", "adam", library="keras").name == "keras.adam"
    assert catalog(entry()).find("transform", "step", library="keras").name == "step"


def test_an_unknown_name_lists_those_of_its_library():
    known = catalog(*(entry("optimizer", name) for name in ("pytorch.adam", "keras.ftrl")))
    with pytest.raises(
        UnknownPlugin, match=r"no optimizer named 'adamant' is installed; installed are: adam$"
    ) as caught:
        known.find("optimizer", "adamant", library="pytorch", path="/optimizer_config/optimizer")
    assert caught.value.errors[0]["path"] == "/optimizer_config/optimizer"
    with pytest.raises(UnknownPlugin, match="installed are: none"):
        known.find("scheduler", "steplr", library="pytorch")


def test_duplicates_are_refused_with_both_origins_until_one_is_denied():
    twins = entry(), entry(distribution="locex-b", version="2.0")
    with pytest.raises(DuplicatePlugin, match=r"locex-a 1\.0, locex-b 2\.0") as caught:
        catalog(*twins).find("transform", "step")
    assert "LOCEX_DENIED_DISTRIBUTIONS" in caught.value.remedy
    chosen = catalog(*twins, policy=Policy(denied=frozenset({"locex-a"}))).find("transform", "step")
    assert chosen.distribution == "locex-b"


@pytest.mark.parametrize(
    ("environment", "rule"),
    [
        ({"LOCEX_DENIED_DISTRIBUTIONS": "Locex_A"}, "LOCEX_DENIED_DISTRIBUTIONS"),
        ({"LOCEX_ALLOWED_DISTRIBUTIONS": "locex.b, locex-c"}, "LOCEX_ALLOWED_DISTRIBUTIONS"),
    ],
)
def test_the_site_refuses_distributions_however_their_name_is_written(monkeypatch, environment, rule):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    known = catalog(
        entry(),
        entry(name="other", distribution="locex-b"),
        entry("store", "s", "locex-core"),
        policy=PluginSettings().policy,
    )
    with pytest.raises(RefusedPlugin, match=f"of locex-a 1.0 is refused by this site .{rule}."):
        known.find("transform", "step")
    assert known.find("transform", "other")
    assert known.find("store", "s"), "core is admitted whatever the list of the allowed says"


@pytest.mark.parametrize(
    ("requires", "core", "fits"),
    [
        (">=1,<2", "1.4.0", True),
        (">=1,<2", "2.0.0", False),
        (">=1.5", "1.4.0", False),
        (">=1,<2", "1.5.0.dev3", True),
        (None, "7.0", True),
    ],
)
def test_versions_are_checked_before_any_import(requires, core, fits):
    known = Catalog([entry(requires=requires)], {"locex-core": core})
    if fits:
        assert known.find("transform", "step")
        return
    with pytest.raises(IncompatiblePlugin, match=f"locex-a 1.0 requires locex-core{requires}, installed is .* {core}"):
        known.find("transform", "step")


def test_a_catalogue_survives_json_and_its_fingerprint_follows_its_entries():
    known = catalog(entry(), entry(name="other"))
    again = Catalog.from_json(known.to_json())
    assert again.entries == known.entries
    assert again.fingerprint == known.fingerprint
    assert catalog(replace(entry(), fingerprint="changed")).fingerprint != catalog(entry()).fingerprint


@pytest.mark.parametrize("layout", ["src/late.py", "late/step.py"])
def test_an_editable_install_changes_with_its_source(tmp_path, layout):
    source = tmp_path / "a project" / layout
    source.parent.mkdir(parents=True)
    source.write_text("1")
    (source.parent / ".#late.py").symlink_to("nowhere")  # as editors leave them
    origin = {"url": (tmp_path / "a project").as_uri(), "dir_info": {"editable": True}}
    write_distribution(tmp_path / "site", "locex-late", direct_url__json=json.dumps(origin))
    fingerprints = {read_catalog(folders=[tmp_path / "site"]).find("transform", "late").fingerprint for _ in range(2)}
    source.write_text("22")
    fingerprints.add(read_catalog(folders=[tmp_path / "site"]).find("transform", "late").fingerprint)
    assert len(fingerprints) == 2


def test_broken_metadata_costs_only_itself(tmp_path):
    write_distribution(tmp_path, "locex-broken", metadata="Summary: no name\n")
    write_distribution(tmp_path, "locex-late")
    assert "late" in read_catalog(folders=[tmp_path]).names("transform")


async def test_a_package_installed_later_is_found(tmp_path):
    installed = Installed(Policy(), folders=[tmp_path])
    assert "late" not in (await installed.catalog()).names("transform")
    write_distribution(tmp_path, "locex-late")
    found = (await installed.catalog()).find("transform", "late")
    assert found.origin == "locex-late 1.0"


async def test_another_interpreter_is_asked_for_its_own(plugin_folder):
    policy = Policy(denied=frozenset({"locex-fixture-tiny"}))
    there = await Installed(policy, interpreter=sys.executable, folders=[plugin_folder]).catalog()
    here = read_catalog(policy, [plugin_folder])
    assert there.entries == here.entries
    with pytest.raises(RefusedPlugin):
        there.find("transform", "scale")


@pytest.mark.parametrize("interpreter", ["/nowhere/python", "/bin/false"])
async def test_an_interpreter_that_cannot_answer_is_named(interpreter):
    with pytest.raises(InterpreterUnavailable, match=f"{interpreter} .LOCEX_WORKER_PYTHON. cannot read") as caught:
        await Installed(Policy(), interpreter=interpreter).catalog()
    assert "locex-core" in caught.value.remedy


async def test_another_interpreters_answer_is_kept_for_a_moment(tmp_path, monkeypatch):
    write_distribution(tmp_path, "locex-late")
    installed = Installed(Policy(), interpreter=sys.executable, folders=[tmp_path])
    first = await installed.catalog()
    assert await installed.catalog() is first
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 60)
    assert await installed.catalog() is not first
