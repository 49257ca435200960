"""Requests that schemathesis makes up from the published document: none is answered with a 5xx."""

from __future__ import annotations

import asyncio
import sys

import pytest


@pytest.mark.slow
async def test_no_made_up_request_is_a_server_error(launch, tmp_path):
    service = await launch(LOCEX_MAX_MODEL_MB="1")
    await service.node.put_model()
    options = ["--checks", "not_a_server_error", "--phases", "examples,coverage,fuzzing", "--max-examples", "30"]
    bounds = ["--exclude-path-regex", "events", "--request-timeout", "20", "--max-time", "60", "--no-color"]
    argv = [sys.executable, "-m", "schemathesis.cli", "run", f"{service.url}/openapi.json", *options, *bounds]
    process = await asyncio.create_subprocess_exec(*argv, stdout=-1, stderr=-2, cwd=tmp_path)
    try:
        output, _ = await asyncio.wait_for(process.communicate(), 100)
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()
    assert process.returncode == 0, output.decode()[-6000:]
    assert (await service.node.call("GET", "/readyz"))["status"] == "ready"
