"""KServe's inference clients, from an environment of their own: their pins fit into no other."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

CASES = Path(__file__).parent / "programs" / "kserve_client.py"
_INSTALL = 900  # seconds


@pytest.fixture(scope="module")
def kserve_python(tmp_path_factory):
    """The interpreter of an environment with KServe: named in LOCEX_TEST_KSERVE, else made here."""
    if named := os.environ.get("LOCEX_TEST_KSERVE"):
        return Path(named)
    folder = tmp_path_factory.mktemp("kserve")
    python = folder / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "kserve>=0.21,<0.22"]
    # Not held to our constraints: that is why it has an environment of its own.
    environment = {name: value for name, value in os.environ.items() if name not in {"PIP_CONSTRAINT", "PYTHONPATH"}}
    made = subprocess.run(install, capture_output=True, text=True, timeout=_INSTALL, env=environment, check=False)
    if made.returncode:
        pytest.skip(f"KServe cannot be installed here: {made.stderr.strip().splitlines()[-1:]}")
    return python


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_kserves_clients(service, kserve_python, record_property):
    run = subprocess.run(
        [kserve_python, CASES, str(service.http), str(service.grpc)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-4000:]
    found = json.loads(run.stdout.splitlines()[-1])
    failed = {name: fault for name, fault in found.items() if fault}
    record_property("cases", f"{len(found) - len(failed)} of {len(found)}")
    print(f"KServe's clients: {len(found) - len(failed)} of {len(found)} cases")
    assert not failed, "\n".join(f"{name}: {fault}" for name, fault in failed.items())
