"""Who imports the driver, and when."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import locex_mongo_store

SOURCE = Path(locex_mongo_store.__file__).parent


def test_motor_is_imported_in_one_module():
    importing = re.compile(r"^\s*(from|import) motor\b", re.MULTILINE)
    modules = [path for path in SOURCE.rglob("*.py") if importing.search(path.read_text(encoding="utf-8"))]
    assert [path.name for path in modules] == ["driver.py"]


def test_the_plugin_imports_no_driver_before_a_store_is_made():
    code = "import sys; from locex_mongo_store.plugin import *; MongoPlugin().locex_config_model(); print(*sys.modules)"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "locex_mongo_store.options" in output.split()
    assert not {"motor", "pymongo", "bson"} & {*output.split()}
