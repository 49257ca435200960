"""The command line against a real service."""

from __future__ import annotations

import asyncio
import json

import pytest

JOB = {
    "training_id": 5,
    "server_address": "loop:1",
    "model_name": "m",
    "model_version": "1",
    "num_rounds": 2,
    "eval_metrics": ["accuracy"],
    "optimizer_config": {"optimizer": "sgd"},
    "mystery": 1,
}


@pytest.fixture
async def job(launch, locex, tmp_path):
    """Run ``locex job`` for a service; a job may be given as the content of the file."""
    service = await launch()
    await service.node.put_model()

    async def run(*arguments, content=None, **changes):
        if content is not None:
            file = tmp_path / "job.json"
            file.write_text(content if isinstance(content, str) else json.dumps(content))
            arguments = [*arguments, file]
        return await locex("job", "--url", service.url, *arguments, **changes)

    return run


async def test_help_lists_the_commands_and_their_options(locex):
    code, stdout, _ = await locex("--help")
    assert code == 0
    for command in ("serve", "job", "plugins", "demo"):
        assert f"\n  {command} " in stdout
    assert "cannot be loaded" not in stdout
    code, stdout, _ = await locex("serve", "--help")
    assert code == 0
    for option in ("--host", "--port", "--state", "--data", "--config", "--repository"):
        assert option in stdout


async def test_a_job_is_submitted_watched_and_shown(job):
    code, stdout, stderr = await job("submit", content=JOB)
    assert (code, stderr) == (0, "")
    assert "training 5 was taken" in stdout
    assert "note: unknown key 'mystery' was ignored" in stdout
    code, stdout, _ = await job("watch", "5")
    assert code == 0
    assert "QUEUED\n" in stdout
    assert "round 2/2: train loss 0." in stdout
    assert "FINISHED\ntraining 5: FINISHED, round 2/2" in stdout
    assert "model: m 1-" in stdout
    code, stdout, _ = await job("status")
    assert code == 0
    assert [line.split()[:3] for line in stdout.splitlines()[1:]] == [["5", "FINISHED", "2/2"]]
    code, stdout, _ = await job("status", "5", "--json")
    assert json.loads(stdout)["state"] == "FINISHED"
    code, stdout, _ = await job("watch", "5", "--json")
    assert json.loads(stdout.splitlines()[-1]) == {"event": "state", "state": "FINISHED"}


async def test_a_job_is_stopped_and_watching_one_that_did_not_finish_fails(job):
    endless = JOB | {"server_address": "endless"}
    code, stdout, _ = await job("submit", "--json", "--training-id", "x", content=endless | {"training_id": "x"})
    assert code == 0
    assert json.loads(stdout)["training_id"] == "x"
    code, stdout, _ = await job("status", "--json")
    assert json.loads(stdout)["total"] == 1
    code, stdout, _ = await job("stop", "x")
    assert code == 0
    assert "training x: STOPPED" in stdout
    assert json.loads((await job("stop", "x", "--json"))[1])["state"] == "STOPPED"
    code, stdout, _ = await job("watch", "x")
    assert code == 1
    assert "STOPPED" in stdout


async def test_a_refusal_shows_field_reason_and_remedy(job):
    code, stdout, stderr = await job("submit", content=JOB | {"optimizer_config": {"optimizer": "sgd", "rho": 1}})
    assert (code, stdout) == (1, "")
    assert "/optimizer_config/rho: unknown key; allowed here are: learning_rate" in stderr
    assert "remedy: correct the named fields" in stderr
    code, _, stderr = await job("submit", content="{")
    assert code == 1
    assert "is not JSON" in stderr
    code, _, stderr = await job("submit", content={"model_name": "m"})
    assert code == 1
    assert "no training id" in stderr


async def test_what_cannot_be_asked_is_told_without_a_traceback(job):
    cases = {
        ("status", "nobody"): "no job has the training id 'nobody'",
        ("status", "a b/c"): "the path is invalid",
        ("--url", "127.0.0.1:1", "status"): "127.0.0.1:1 does not answer",
        ("--url", "ftp://127.0.0.1", "status"): "ftp://127.0.0.1",
        ("--token-file", "/nowhere", "status"): "/nowhere",
    }
    answers = await asyncio.gather(*(job(*arguments) for arguments in cases))
    for part, (code, stdout, stderr) in zip(cases.values(), answers, strict=True):
        assert (code, stdout) == (1, "")
        assert part in stderr
        assert "Traceback" not in stderr


async def test_a_token_is_taken_from_a_file(launch, locex, tmp_path):
    tokens = tmp_path / "tokens"
    tokens.write_text("# tokens\nrun:secret\n")
    tokens.chmod(0o600)
    service = await launch(LOCEX_API_TOKEN_FILE=str(tokens))
    code, _, stderr = await locex("job", "--url", service.url, "status")
    assert code == 1
    assert "Authorization: Bearer" in stderr
    code, _, stderr = await locex("job", "status", LOCEX_URL=service.url, LOCEX_TOKEN_FILE=str(tokens))
    assert (code, stderr) == (0, "")


async def test_something_else_than_a_service_is_told(locex, aiohttp_server):
    from aiohttp import web

    async def page(request):
        return web.Response(text="<html>", content_type="text/html", status=502)

    app = web.Application()
    app.router.add_get("/{path:.*}", page)
    server = await aiohttp_server(app)
    for command in (["status"], ["watch", "t"]):
        code, _, stderr = await locex("job", "--url", str(server.make_url("/")), *command)
        assert code == 1
        assert "502" in stderr
        assert "Traceback" not in stderr


async def test_plugins_are_listed_and_checked(locex):
    fewer = "locex-fixture-tiny,locex-fixture-raising"
    code, stdout, _ = await locex("plugins", "list", "--json", LOCEX_ALLOWED_DISTRIBUTIONS=fewer)
    assert code == 0
    found = {(info["name"], info["distribution"]): info for info in json.loads(stdout)}
    assert found["scale", "locex-fixture-tiny"]["configuration"]["properties"]["factor"]
    assert found["raising", "locex-fixture-raising"]["error"]["code"] == "plugin-broken"
    assert found["printing", "locex-fixture-misfits"]["error"]["code"] == "plugin-refused"
    code, stdout, _ = await locex("plugins", "list", "--kind", "optimizer", LOCEX_ALLOWED_DISTRIBUTIONS=fewer)
    assert code == 0
    assert "tiny.sgd" in stdout

    code, stdout, stderr = await locex("plugins", "check", "scale")
    assert (code, stderr) == (0, "")
    assert stdout.startswith("transform scale of locex-fixture-tiny 1.0.0: ok\n  - tried on x tabular [6] float32")
    code, stdout, _ = await locex("plugins", "check", "raising")
    assert code == 1
    assert "RuntimeError: this plugin never loads (plugin-broken)" in stdout
    code, stdout, _ = await locex("plugins", "check", "printing", "--json")
    assert code == 1
    assert json.loads(stdout)[0]["faults"] == ["the field 'undescribed' has no description"]
    code, _, stderr = await locex("plugins", "check", "nothing")
    assert code == 1
    assert "locex plugins list" in stderr
