from __future__ import annotations

import asyncio
import datetime as dt
import signal
import socket
import ssl
import sys
import urllib.request

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from locex.web.serve import Tls

SERVICE = """
import asyncio, sys
from pathlib import Path
from locex.errors import StoreUnavailable
from locex.web.app import create_app
from locex.web.auth import Access
from locex.web.routes import Routes
from locex.web.serve import Tls, serve
from locex.web.sse import stream_events

port, mode, *files = sys.argv[1:]
routes = Routes()

async def nothing():
    await asyncio.Event().wait()
    yield

@routes.get("/events", produces="text/event-stream")
async def events(request):
    return await stream_events(request, nothing())

async def lifetime(app):
    if mode == "fail":
        raise StoreUnavailable("the folder is in use", remedy="stop the other")
    print("started", flush=True)
    yield
    print("cleaned up", flush=True)

app = create_app([routes], title="Tiny", version="1", access=Access())
app.cleanup_ctx.append(lifetime)
tls = Tls(*map(Path, files)) if files else None
sys.exit(serve(app, host="127.0.0.1", port=int(port), tls=tls))
"""


@pytest.fixture
async def launch():
    processes = []

    async def launch(port=0, mode="", *files):
        arguments = [sys.executable, "-c", SERVICE, str(port), mode, *map(str, files)]
        process = await asyncio.create_subprocess_exec(*arguments, stdout=-1, stderr=-1)
        processes.append(process)
        return process

    yield launch
    for process in processes:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def address(process):
    assert await process.stdout.readline() == b"started\n"
    line = (await process.stdout.readline()).decode().strip()
    assert line.startswith("listening on ")
    return line.removeprefix("listening on ")


def get(url, context=None):
    with urllib.request.urlopen(url, context=context) as response:
        return response.read()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_the_service_cleanly_although_a_stream_is_open(launch, number):
    process = await launch()
    url = await address(process)
    assert await asyncio.to_thread(get, f"{url}/healthz") == b'{"status":"ok"}'
    host, port = url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
    await reader.readuntil(b"retry")
    process.send_signal(number)
    output, errors = await process.communicate()
    assert (process.returncode, output, errors) == (0, b"cleaned up\n", b"")
    writer.close()


async def test_a_port_in_use_is_one_line_and_nothing_was_started(launch):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        process = await launch(port)
        output, errors = await process.communicate()
    assert (process.returncode, output) == (1, b"")
    (line,) = errors.decode().splitlines()
    assert f"127.0.0.1:{port}" in line
    assert "in use" in line
    assert "choose another PORT" in line


async def test_a_start_that_fails_is_one_line(launch):
    process = await launch(0, "fail")
    output, errors = await process.communicate()
    assert (process.returncode, output) == (1, b"")
    assert errors == b"error: the folder is in use (stop the other)\n"


async def test_unusable_tls_files_are_one_line(launch, tmp_path):
    process = await launch(0, "", tmp_path / "absent.pem", tmp_path / "absent.key")
    output, errors = await process.communicate()
    assert (process.returncode, output) == (1, b"")
    assert errors.startswith(b"error: TLS cannot be set up")
    assert errors.count(b"\n") == 1


@pytest.fixture
def pair(tmp_path):
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    paths = Tls(tmp_path / "cert.pem", tmp_path / "key.pem")
    paths.certificate.write_bytes(certificate.public_bytes(pem))
    no = serialization.NoEncryption()
    paths.key.write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, no))
    return paths


async def test_tls_serves_and_mutual_tls_asks_for_a_certificate(launch, pair):
    stranger = ssl.create_default_context(cafile=pair.certificate)
    known = ssl.create_default_context(cafile=pair.certificate)
    known.load_cert_chain(pair.certificate, pair.key)
    plain = await launch(0, "", pair.certificate, pair.key)
    url = (await address(plain)).replace("127.0.0.1", "localhost")
    assert url.startswith("https://")
    assert await asyncio.to_thread(get, f"{url}/healthz", stranger)

    mutual = await launch(0, "", pair.certificate, pair.key, pair.certificate)
    url = (await address(mutual)).replace("127.0.0.1", "localhost")
    assert await asyncio.to_thread(get, f"{url}/healthz", known)
    with pytest.raises(OSError, match=r"certificate required|[Cc]onnection|EOF|eof"):
        await asyncio.to_thread(get, f"{url}/healthz", stranger)
