"""Which module of core may know which: the arrows of the architecture, and what a service never imports."""

from __future__ import annotations

import ast
import importlib.metadata
import importlib.util
import subprocess
import sys
from pathlib import Path

import grimp
import pytest

import locex

SOURCE = Path(locex.__file__).parent
FRAMEWORKS = {"torch", "tensorflow", "keras", "flwr", "onnxruntime", "jax", "dp_accounting"}
TYPE_CHECKING_ONLY = {"exclude_type_checking_imports": True}


@pytest.fixture(scope="module")
def graph():
    return grimp.build_graph("locex", cache_dir=None, **TYPE_CHECKING_ONLY)


@pytest.mark.parametrize("above", ["locex.web", "locex.jobs"])
@pytest.mark.parametrize("below", ["locex.worker", "locex.plugins.host"])
def test_services_never_import_what_runs_plugins(graph, above, below):
    chain = graph.find_shortest_chain(above, below, as_packages=True)
    assert chain is None, " imports ".join(chain)


@pytest.mark.parametrize(
    ("above", "below"),
    [
        ("locex.schemas", "locex.jobs"),
        ("locex.schemas", "locex.plugins"),
        ("locex.plugins", "locex.jobs"),
        ("locex.plugins", "locex.web"),
        ("locex.processes", "locex.plugins"),
        ("locex.processes", "locex.jobs"),
        ("locex.store", "locex.jobs"),
        ("locex.worker", "locex.web"),
        ("locex.jobs", "locex.web"),
    ],
)
def test_arrows_point_one_way(graph, above, below):
    chain = graph.find_shortest_chain(above, below, as_packages=True)
    assert chain is None, " imports ".join(chain)


def imported(code):
    code += "\nimport sys; print(*sys.modules)"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    return {module.partition(".")[0] for module in output.split()} | {*output.split()}


def test_a_service_imports_neither_arrays_nor_plugins_nor_frameworks():
    modules = imported("import locex.jobs.service, locex.web.app, locex.web.serve, locex.plugins.listing")
    assert not modules & {"numpy", "safetensors", "stevedore", "locex.worker", "locex.plugins.host", *FRAMEWORKS}


def test_a_worker_imports_no_framework_before_its_job():
    modules = imported("import locex.worker.process, locex.plugins.describe, locex.worker.inspect")
    assert "numpy" in modules
    assert not modules & {"aiohttp", "aiosqlite", *FRAMEWORKS}


def plugin_names():
    """Names of plugins that others than core bring, and of those packages."""
    names = set()
    for distribution in importlib.metadata.distributions():
        name = distribution.metadata["Name"] or ""
        if name.startswith("locex-") and name != "locex-core":
            names |= {name, name.replace("-", "_")}
            names |= {point.name for point in distribution.entry_points if point.group.startswith("locex.")}
    return names


def words(tree):
    """Yield string constants that the code acts on: neither docstrings nor descriptions for people."""
    prose = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            prose.add(id(node.value))
        if isinstance(node, ast.keyword) and node.arg in {"description", "help", "remedy", "message"}:
            prose |= {id(part) for part in ast.walk(node.value)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose:
            yield node.lineno, node.value


def test_core_knows_no_plugin_by_name():
    """Defaults of settings are the site's, and name some; nothing else does."""
    ordinary = {"image", "data", "job", "serve", "demo", "categorical"}  # words, not only names
    ordinary |= {"hdf5", "keras", "onnx", "tflite", "torch"}  # formats of files, and libraries
    known = plugin_names() - ordinary | {"pytorch", "flower", "basic_norm", "dp-fixed"}
    if importlib.util.find_spec("locex_flower"):  # beside core alone, only the words above are looked for
        assert {"pytorch.sgd", "flower-grpc", "npy"} <= known
    found = [
        f"{path.relative_to(SOURCE)}:{line}: {word}"
        for path in sorted(SOURCE.rglob("*.py"))
        if path.name != "settings.py"
        for line, word in words(ast.parse(path.read_text(encoding="utf-8")))
        if word in known or word.partition(".")[0] in {"locex_flower", "locex_torch_builder"}
    ]
    assert found == []
