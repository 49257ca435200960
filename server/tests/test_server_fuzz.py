"""Requests that schemathesis makes up from the published document: every answer is one that the document has."""

from __future__ import annotations

import asyncio
import sys

import pytest


@pytest.mark.slow
async def test_made_up_requests_are_answered_as_documented_and_never_with_a_server_error(launch, tmp_path):
    service = await launch(LOCEX_MAX_MODEL_MB="1")
    await service.node.put_model()
    checks = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
    options = ["--checks", checks, "--phases", "examples,coverage,fuzzing", "--max-examples", "20", "--seed", "7"]
    bounds = ["--exclude-path-regex", "events", "--request-timeout", "20", "--max-time", "45", "--no-color"]
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
