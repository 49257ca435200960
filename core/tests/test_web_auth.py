from __future__ import annotations

import os
from pathlib import Path

import pytest

from locex.errors import InvalidConfiguration
from locex.web.app import create_app
from locex.web.auth import Access, Tokens, check_exposure, make_access
from locex.web.routes import Routes, Scope

routes = Routes()


@routes.get("/read", response=str)
async def read(request):
    return "read"


@routes.post("/run", scope=Scope.RUN, response=str)
async def run(request):
    return "run"


@routes.delete("/admin", scope=Scope.ADMIN, response=str)
async def admin(request):
    return "admin"


@pytest.fixture
def token_file(tmp_path):
    path = tmp_path / "tokens"
    path.write_text("# people\nread:r-token\n\nrun: w-token\nADMIN:a-token\nbare-token\n")
    path.chmod(0o600)
    return path


@pytest.fixture
def connect(aiohttp_client):
    async def connect(access):
        return await aiohttp_client(create_app([routes], title="Tiny", version="1", access=access))

    return connect


def bearer(token):
    return {"Authorization": f"Bearer {token}"}


async def statuses(client, token):
    headers = bearer(token) if token else {}
    return [
        (await client.request(method, path, headers=headers)).status
        for method, path in (("GET", "/read"), ("POST", "/run/"), ("DELETE", "/admin"))
    ]


@pytest.mark.parametrize(
    ("token", "expected"),
    [
        ("r-token", [200, 403, 403]),
        ("w-token", [200, 200, 403]),
        ("a-token", [200, 200, 200]),
        ("bare-token", [200, 200, 200]),
        ("wrong", [401, 401, 401]),
        ("read:r-token", [401, 401, 401]),
        ("", [401, 401, 401]),
    ],
)
async def test_scopes_include_those_below(connect, token_file, token, expected):
    assert await statuses(await connect(Access(Tokens(token_file))), token) == expected


async def test_refusals_say_what_is_needed(connect, token_file):
    client = await connect(Access(Tokens(token_file)))
    response = await client.get("/read")
    assert response.headers["WWW-Authenticate"].startswith("Bearer")
    assert (await response.json())["code"] == "unauthorized"
    response = await client.delete("/admin", headers=bearer("r-token"))
    content = await response.json()
    assert content["code"] == "forbidden"
    assert "scope admin" in content["detail"]
    assert "r-token" not in await response.text()


@pytest.mark.parametrize("header", ["Basic r-token", "Bearer", "r-token", "Bearer r-token extra", "Bearer ÿ"])
async def test_other_authorizations_are_refused(connect, token_file, header):
    client = await connect(Access(Tokens(token_file)))
    assert (await client.get("/read", headers={"Authorization": header})).status == 401


async def test_what_is_open_without_a_token(connect, token_file):
    client = await connect(Access(Tokens(token_file)))
    for path in ("/healthz", "/readyz", "/docs", "/docs/", "/docs/docs.js", "/docs/swagger-ui.css"):
        assert (await client.get(path)).status == 200, path
    for path in ("/metrics", "/openapi.json"):
        assert (await client.get(path)).status == 401, path
        assert (await client.get(path, headers=bearer("r-token"))).status == 200, path


async def test_a_changed_file_counts_at_once(connect, token_file):
    client = await connect(Access(Tokens(token_file)))
    token_file.write_text("read:new-token\n")
    os.utime(token_file, (1, 1))
    assert (await client.get("/read", headers=bearer("new-token"))).status == 200
    assert (await client.get("/read", headers=bearer("r-token"))).status == 401


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_text("strange:token\n")])
async def test_a_damaged_file_lets_nobody_in_until_repaired(connect, token_file, damage):
    client = await connect(Access(Tokens(token_file)))
    damage(token_file)
    assert (await client.get("/read", headers=bearer("a-token"))).status == 401
    token_file.write_text("repaired\n")
    assert (await client.get("/read", headers=bearer("repaired"))).status == 200


@pytest.mark.parametrize("content", ["", "# nothing\n", "strange:token\n", "read:\n", b"\xff"])
def test_a_file_without_valid_tokens_is_refused(tmp_path, content):
    path = tmp_path / "tokens"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(InvalidConfiguration) as caught:
        Tokens(path)
    assert str(path) in caught.value.message
    assert "scope:token" in caught.value.remedy


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(InvalidConfiguration, match="cannot be read"):
        Tokens(tmp_path / "absent")


def test_a_file_that_others_can_read_is_warned_about(token_file, caplog):
    token_file.chmod(0o644)
    Tokens(token_file)
    assert "can be read by other users" in caplog.text


async def test_without_tokens_every_local_caller_is_admin(connect):
    client = await connect(Access())
    assert await statuses(client, "") == [200, 200, 200]
    for host in ("localhost", "localhost:9050", "127.0.0.1", "127.1.2.3:80", "[::1]:9050"):
        assert (await client.get("/read", headers={"Host": host})).status == 200, host


@pytest.mark.parametrize("host", ["evil.example", "evil.example:9050", "10.0.0.1", "localhost.evil.example", "[", ""])
async def test_rebound_hosts_are_refused(connect, host):
    response = await (await connect(Access())).get("/read", headers={"Host": host})
    assert response.status == 403
    assert (await response.json())["code"] == "forbidden"


async def test_named_hosts_and_insecure_services_take_other_hosts(connect):
    headers = {"Host": "node.example:9050"}
    client = await connect(make_access("127.0.0.1", None, hosts=frozenset({"node.example"})))
    assert (await client.get("/read", headers=headers)).status == 200
    client = await connect(make_access("0.0.0.0", None, insecure=True, hosts=frozenset()))
    assert (await client.get("/read", headers=headers)).status == 200


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1:1"])
async def test_pages_from_elsewhere_are_refused_without_tokens(connect, origin):
    client = await connect(Access())
    assert (await client.post("/run", headers={"Origin": origin})).status == 403
    own = f"http://{client.host}:{client.port}"
    assert (await client.post("/run", headers={"Origin": own})).status == 200


@pytest.mark.parametrize("host", ["0.0.0.0", "", "::", "192.168.1.4", "node.example"])
def test_exposure_without_protection_is_refused(host, token_file):
    with pytest.raises(InvalidConfiguration) as caught:
        check_exposure(host, None)
    assert "LOCEX_API_TOKEN_FILE" in caught.value.remedy
    check_exposure(host, token_file)
    check_exposure(host, None, insecure=True)
    check_exposure(host, None, mutual_tls=True)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_loopback_needs_no_protection(host):
    check_exposure(host, None)
