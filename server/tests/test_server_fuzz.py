"""Requests that schemathesis makes up from the published document: every answer is one that the document has."""

from __future__ import annotations

import asyncio
import sys

import pytest


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_made_up_requests_are_answered_as_documented_and_never_with_a_server_error(launch, write_rows, tmp_path):
    write_rows(4)  # a source without data is answered with 503
    service = await launch(LOCEX_MAX_MODEL_MB="1")
    await service.node.put_model()
    await service.node.call("GET", "/openapi.json")  # made now, since it is waited for 10 s only
    checks = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
    options = ["--checks", checks, "--phases", "examples,coverage,fuzzing", "--max-examples", "20", "--seed", "7"]
    bounds = ["--exclude-path-regex", "events", "--request-timeout", "60", "--max-time", "45", "--no-color"]
    argv = [sys.executable, "-m", "schemathesis.cli", "run", f"{service.url}/openapi.json", *options, *bounds]
    process = await asyncio.create_subprocess_exec(*argv, stdout=-1, stderr=-2, cwd=tmp_path)
    try:
        output, _ = await asyncio.wait_for(process.communicate(), 200)
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()
    assert process.returncode == 0, output.decode()[-6000:]
    assert (await service.node.call("GET", "/readyz"))["status"] == "ready"
