"""docs/transforms.md and docs/data_sources.md have every id, every field with its default, and examples that work."""

from __future__ import annotations

import json
import re
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from locex.schemas.base import validate
from locex_transforms.sources.options import SourceConfig
from locex_transforms.sources.tabular import TabularConfig

DOCS = Path(__file__).parent.parent / "docs"
PAGES = {"transform": "transforms.md", "data": "data_sources.md"}
NAMES = [
    (kind, entry.name)
    for kind in PAGES
    for entry in entry_points(group=f"locex.{kind}")
    if entry.value.startswith("locex_transforms.")
]


def entries(kind):
    """Return the text of every entry by its id."""
    text = (DOCS / PAGES[kind]).read_text(encoding="utf-8")
    parts = re.split(r"^#{2,3} (.+)$", text, flags=re.MULTILINE)
    return {heading.strip("`"): body for heading, body in zip(parts[1::2], parts[2::2], strict=True)}


def told_fields(text):
    lines = [line.strip("|").split(" |") for line in text.splitlines() if line.startswith("| `")]
    return {cells[0].strip().strip("`"): cells[1].strip().strip("`") for cells in lines}


def written(field):
    if field.is_required():
        return "required"
    default = field.get_default(call_default_factory=True)
    if default is None:
        return "–"
    return "1/255" if default == 1 / 255 else json.dumps(default)


def config_of(kind, name):
    (entry,) = entry_points(group=f"locex.{kind}", name=name)
    return entry.load()().locex_config_model()


@pytest.mark.parametrize(("kind", "name"), NAMES)
def test_every_id_has_an_entry_with_all_its_fields(kind, name):
    pages = entries(kind)
    told = told_fields(pages[name])
    if kind == "data":
        told |= told_fields(pages["Shared fields"])
        told |= told_fields(pages["Fields of tables"]) if issubclass(config_of(kind, name), TabularConfig) else {}
    fields = config_of(kind, name).model_fields
    assert told == {field: written(info) for field, info in fields.items()}


@pytest.mark.parametrize(("kind", "name"), NAMES)
def test_every_example_is_taken(kind, name):
    (example,) = re.findall(r"^```json\n(.*?)^```$", entries(kind)[name], re.MULTILINE | re.DOTALL)
    content = json.loads(example)
    if kind == "transform":
        assert content.pop("id") == name
        fields = content.pop("parameters", {})
    else:
        fields = content.pop("data")
        assert fields.pop("source") == name
    assert content == {}
    validate(config_of(kind, name), fields)


@pytest.mark.parametrize("kind", PAGES)
def test_no_id_is_told_that_does_not_exist(kind):
    headings = re.findall(r"^#{2,3} `(.+)`$", (DOCS / PAGES[kind]).read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(headings) == sorted(name for one, name in NAMES if one == kind)


def test_the_shared_fields_are_all_sources():
    told = told_fields(entries("data")["Shared fields"])
    assert told.keys() == SourceConfig.model_fields.keys()
