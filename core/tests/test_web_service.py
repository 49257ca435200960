from __future__ import annotations

import asyncio

import pytest
from aiohttp import web
from prometheus_client import Gauge
from prometheus_client.parser import text_string_to_metric_families

from locex.errors import StoreUnavailable
from locex.web.app import create_app
from locex.web.auth import Access
from locex.web.health import READINESS
from locex.web.metrics import METRICS
from locex.web.routes import Routes

routes = Routes()


@routes.get("/job/{training_id}", response=str)
async def get_job(request, training_id):
    return training_id


@pytest.fixture
def app():
    return create_app([routes], title="Tiny", version="1", access=Access())


async def passes():
    pass


async def fails():
    raise StoreUnavailable("/secret/folder is gone")


async def breaks():
    raise RuntimeError("secret")


async def test_health_is_ok_while_the_loop_runs(app, aiohttp_client):
    app[READINESS].add("store", fails)
    response = await (await aiohttp_client(app)).get("/healthz")
    assert (response.status, await response.json()) == (200, {"status": "ok"})


async def test_readiness_names_every_check(app, aiohttp_client):
    app[READINESS].add("store", passes)
    client = await aiohttp_client(app)
    response = await client.get("/readyz")
    assert (response.status, await response.json()) == (200, {"status": "ready", "checks": {"store": "ok"}})

    app[READINESS].add("database", fails)
    app[READINESS].add("queue", breaks)
    response = await client.get("/readyz")
    assert response.status == 503
    assert (await response.json())["checks"] == {"store": "ok", "database": "store-unavailable", "queue": "failed"}
    assert "secret" not in await response.text()


async def test_a_check_that_hangs_times_out(app, aiohttp_client, monkeypatch):
    monkeypatch.setattr("locex.web.health.PATIENCE", 0.01)
    app[READINESS].add("queue", asyncio.Event().wait)
    response = await (await aiohttp_client(app)).get("/readyz")
    assert (await response.json())["checks"] == {"queue": "timed out"}


async def samples(client):
    text = await (await client.get("/metrics")).text()
    families = text_string_to_metric_families(text)
    return {(s.name, *sorted(s.labels.values())): s.value for family in families for s in family.samples}


async def test_requests_are_counted_by_template(app, aiohttp_client):
    client = await aiohttp_client(app)
    for path in ("/job/1", "/job/2/", "/nowhere/1", "/nowhere/2", "/job/-"):
        await client.get(path)
    await client.request("PURGE", "/job/1")
    found = await samples(client)
    assert found["http_requests_total", "/job/{training_id}", "200", "GET"] == 2
    assert found["http_requests_total", "/job/{training_id}", "422", "GET"] == 1
    assert found["http_requests_total", "404", "GET", "unknown"] == 2
    assert found["http_requests_total", "405", "other", "unknown"] == 1
    assert found["http_request_duration_seconds_count", "/job/{training_id}", "GET"] == 3
    assert found["process_resident_memory_bytes",] > 0


async def test_a_service_adds_gauges_of_its_own_application(app, aiohttp_client):
    Gauge("jobs_active", "Jobs.", registry=app[METRICS].registry).set(3)
    assert (await samples(await aiohttp_client(app)))["jobs_active",] == 3
    other = create_app([], title="Other", version="1", access=Access())
    assert ("jobs_active",) not in await samples(await aiohttp_client(other))


@pytest.mark.parametrize("path", ["/docs", "/docs/"])
async def test_docs_is_a_page_that_runs_only_own_scripts(app, aiohttp_client, path):
    client = await aiohttp_client(app)
    response = await client.get(path)
    assert (response.status, response.content_type) == (200, "text/html")
    policy = response.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    page = await response.text()
    assert "http:" not in page
    assert "https:" not in page
    for name in ("docs.js", "docs.css", "swagger-ui.css", "swagger-ui-bundle.js", "favicon-32x32.png"):
        assert f"/docs/{name}" in page
        response = await client.get(f"/docs/{name}")
        assert response.status == 200
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert int(response.headers["Content-Length"]) > 100
    assert "swagger" in (await (await client.get("/docs/swagger-ui.css")).text()).lower()


@pytest.mark.parametrize("name", ["swagger-editor.js", "docs.html", "..", "..%2Fapp.py", "%2Fetc%2Fpasswd"])
async def test_docs_serves_no_other_file(app, aiohttp_client, name):
    response = await (await aiohttp_client(app)).get(f"/docs/{name}")
    assert response.status in {404, 422}


async def test_two_applications_live_side_by_side(aiohttp_client):
    for _ in range(2):
        app = create_app([routes], title="Tiny", version="1", access=Access())
        assert isinstance(app, web.Application)
        assert (await (await aiohttp_client(app)).get("/job/a")).status == 200
