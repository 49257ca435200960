"""The author's afternoon: a new plugin from the template, the contract suite, and what it says of bad manners."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib

import numpy as np
import pytest

from locex.authoring.new import new_transform
from locex.errors import InvalidConfiguration, LocexError
from locex.testing.suite import check_now

DENIED = ["locex-fixture-exiting", "locex-fixture-hanging", "locex-fixture-greedy"]


@pytest.fixture(scope="module")
def state(tmp_path_factory):
    """One state folder: what describe processes found is found once."""
    return tmp_path_factory.mktemp("state")


@pytest.fixture(autouse=True)
def site(monkeypatch, plugin_folder, state):
    """A site with the fixture plugins but those that cost time."""
    monkeypatch.setenv("LOCEX_PLUGIN_FOLDER", str(plugin_folder))
    monkeypatch.setenv("LOCEX_STATE_FOLDER", str(state))
    monkeypatch.setenv("LOCEX_PLUGIN_TIMEOUT", "60")
    monkeypatch.setenv("LOCEX_DENIED_DISTRIBUTIONS", ",".join(DENIED))


@pytest.fixture
def locex(tmp_path):
    """Run the command line; return its exit code and what it wrote."""

    def run(*arguments):
        argv = [sys.executable, "-m", "locex.cli", *map(str, arguments)]
        done = subprocess.run(argv, capture_output=True, text=True, check=False, cwd=tmp_path)
        return done.returncode, done.stdout + done.stderr

    return run


def verdict_on(name, **given):
    (verdict,) = check_now(name, **given).values()
    return verdict


def test_a_new_plugin_works_as_it_stands(locex, tmp_path, monkeypatch):
    author = 'Ada "the first" O\'Hara'
    code, said = locex("plugin", "new", "half_tone", "--author", author)
    assert code == 0, said
    made = tmp_path / "locex-half-tone"
    assert "locex plugins check half_tone" in said
    assert all((made / name).is_file() for name in ("README.md", ".github/workflows/ci.yml"))
    assert tomllib.loads((made / "pyproject.toml").read_text())["project"]["authors"] == [{"name": author}]

    folder = tmp_path / "plugins"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--target"]
    subprocess.run([*pip, str(folder), str(made)], check=True)
    monkeypatch.setenv("LOCEX_PLUGIN_FOLDER", str(folder))
    code, said = locex("plugins", "check", "half_tone", "--fields", '{"factor": "2"}')
    assert code == 0, said
    assert "transform half_tone of locex-half-tone 0.1.0: ok" in said
    assert "x image [16, 12, 3] uint8" in said
    tests = [sys.executable, "-m", "pytest", "-q", "-c", os.devnull, "--rootdir", str(made), str(made)]
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    done = subprocess.run(tests, env=environment, capture_output=True, text=True, check=False, cwd=made)
    assert "2 passed" in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize("name", ["Crop", "2d", "class", "a-b", "a_", ""])
def test_a_name_that_cannot_be_one_is_refused(tmp_path, name):
    with pytest.raises(InvalidConfiguration, match="cannot be a plugin's name"):
        new_transform(name, tmp_path / "made")


def test_nothing_is_written_over(tmp_path):
    with pytest.raises(LocexError, match="exists already"):
        new_transform("crop", tmp_path)


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("mutating", "wrote into its input"),
        ("wrong_rank", "which is not its format rule"),
        ("row_mixing", "depends on the rows beside it"),
        ("dropping", "x has 11 of 12 rows"),
        ("fickle", "another result the second time"),
        ("rewriting", "changed the format that it was given"),
        ("quitting", "ended the process with exit code 7"),
        ("undescribed", "the field 'secret' has no description"),
        ("burdening", "its module imports jax: import frameworks inside locex_create_transform"),
        ("shrinking", "it changed the shape of w"),
        ("raising", "this plugin never loads"),
    ],
)
def test_bad_manners_are_named(name, fault):
    assert fault in "\n".join(verdict_on(name).faults)


def test_a_source_is_held_to_its_format_and_to_itself(locex, tmp_path):
    verdict = verdict_on("boasting")
    assert (verdict.faults, verdict.notes) == ([], ["not tried: give the folder of its data"])
    code, said = locex("plugins", "check", "boasting", "--data-folder", tmp_path)
    assert code == 1
    assert "train x has size [4] instead of [5]" in said
    assert "train x is another when loaded again" in said
    assert "not tried" not in locex("plugins", "check", "boasting", "--data-folder", ".")[1]


def test_a_builder_is_tried_on_a_model_and_examples(tmp_path):
    model, examples = tmp_path / "model.json", tmp_path / "examples.npz"
    model.write_text(json.dumps({"features": 4, "classes": 3}))
    np.savez(examples, x=np.random.default_rng(1).normal(size=(30, 4)), y=np.arange(30) % 3)
    (fault,) = verdict_on("tiny", kind="builder", model=model, examples=examples).faults
    assert "not a tiny model" in fault  # what the fixture library exports is no artefact of its own
    assert verdict_on("tiny", kind="builder").notes == ["not tried: give a model file and examples"]


def test_fields_must_be_json(locex):
    code, said = locex("plugins", "check", "scale", "--fields", "{factor: 2}")
    assert (code, "not JSON" in said) == (2, True)


def test_a_fixture_for_authors_fails_with_every_fault(locex_check):
    assert locex_check("transform", "scale", factor="2")[0].startswith("tried on")
    with pytest.raises(pytest.fail.Exception, match="another result the second time"):
        locex_check("transform", "fickle")
    with pytest.raises(pytest.fail.Exception, match="no transform named 'nowhere' is installed"):
        locex_check("transform", "nowhere")


def test_a_plugin_that_takes_all_memory_ends_its_own_process_only(monkeypatch):
    monkeypatch.setenv("LOCEX_PLUGIN_MEMORY_MB", "512")
    monkeypatch.setenv("LOCEX_DENIED_DISTRIBUTIONS", ",".join(DENIED[:2]))
    (fault,) = verdict_on("greedy").faults
    assert int(re.search(r"MemoryError: after (\d+) MiB", fault)[1]) <= 512
    (fault, *_) = verdict_on("hoarding").faults
    assert "MemoryError" in fault
