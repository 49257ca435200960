"""The arrows between packages point one way, and every package is whole."""

from __future__ import annotations

import ast
import importlib.metadata
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = {
    next((path.parent / "src").glob("locex*")).name: path.parent
    for path in sorted([*ROOT.glob("*/pyproject.toml"), *ROOT.glob("plugins/*/pyproject.toml")])
}
FRAMEWORKS = {
    "flwr": {"locex_flower", "locex_controller"},
    "torch": {"locex_torch_builder", "locex_privacy"},
    "torchmetrics": {"locex_torch_builder"},
    "tensorflow": {"locex_keras_builder", "locex_privacy"},
    "keras": {"locex_keras_builder", "locex_privacy"},
    "tf_keras": {"locex_keras_builder"},
    "onnx": {"locex_torch_builder", "locex_keras_builder"},
    "dp_accounting": {"locex_privacy"},
    "opacus": {"locex_privacy"},
    "tenseal": {"locex_privacy"},
    "onnxruntime": {"locex_inference"},
}


def imports(folder):
    """Return (file, imported module) for every import, wherever it stands, relative ones made absolute."""
    found = []
    for path in sorted(folder.rglob("*.py")):
        parts = path.relative_to(folder.parent).with_suffix("").parts
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found += [(path, alias.name) for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                base = ".".join([*(parts[: -node.level] if node.level else ()), *filter(None, [node.module])])
                found += [(path, f"{base}.{alias.name}") for alias in node.names]
    return found


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_import_core_and_themselves_alone(package):
    def admitted(top):
        return top in {"locex", package} if top.startswith("locex") else package in FRAMEWORKS.get(top, {package})

    found = imports(PACKAGES[package] / "src" / package)
    wrong = [f"{path.relative_to(ROOT)}: {name}" for path, name in found if not admitted(name.partition(".")[0])]
    assert wrong == []
    assert found


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_is_whole_and_its_entry_points_resolve(package):
    folder = PACKAGES[package]
    for name in ("README.md", "tests", f"src/{package}/py.typed", f"src/{package}/__init__.py"):
        assert (folder / name).exists(), f"{folder.relative_to(ROOT)} lacks {name}"
    project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    groups = project.get("entry-points", {})
    declared = {(group, name, value) for group, names in groups.items() for name, value in names.items()}
    entries = importlib.metadata.distribution(project["name"]).entry_points
    installed = {(one.group, one.name, one.value): one for one in entries if one.group != "console_scripts"}
    assert installed.keys() == declared
    for entry in installed.values():
        assert entry.value.startswith(f"{package}.")
        assert callable(entry.load()) or entry.group == "pytest11"  # pytest takes a module
