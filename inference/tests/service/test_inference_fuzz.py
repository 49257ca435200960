"""Whatever arrives over HTTP is answered in the protocol's form, in bounded memory, by a service that goes on."""

from __future__ import annotations

import gzip
import http.client
import json
import socket
import subprocess
import sys
import zlib

import numpy as np
import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from locex_inference.tensors import DTYPES

QUICK = settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
GROWTH = 256 * 2**20  # bytes by which the service may grow under a test's requests
LENGTH = "Inference-Header-Content-Length"
MODELS = [*(f"identity-{name}" for name in ("FP32", "INT8", "BOOL", "BYTES", "BF16")), "two", "bounded", "none"]

sizes = st.one_of(st.integers(-2, 5), st.integers(-(2**70), 2**70), st.floats(), st.none(), st.text(max_size=3))
shapes = st.one_of(st.lists(sizes, max_size=5), sizes)
plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
counts = st.one_of(st.integers(0, 64), st.integers(-(2**70), 2**70), plain)
datatypes = st.sampled_from([*DTYPES, "FP8", "", "fp32"])
names = st.sampled_from(["x", "a", "b", "z", ""])
outputs = st.fixed_dictionaries(
    {"name": st.sampled_from(["y", "sum", "w"])},
    optional={
        "parameters": st.dictionaries(
            st.sampled_from(["binary_data", "classification", "shared_memory_region", "shared_memory_byte_size"]),
            counts,
        )
    },
)


@st.composite
def tensors(draw):
    tensor = {"name": draw(names), "datatype": draw(datatypes), "shape": draw(shapes)}
    if draw(st.booleans()):
        tensor["parameters"] = draw(
            st.dictionaries(st.sampled_from(["binary_data_size", "shared_memory_region", "more"]), counts, max_size=3)
        )
    if draw(st.booleans()):
        tensor["data"] = draw(plain)
    for key in draw(st.sets(st.sampled_from([*tensor]), max_size=1)):
        del tensor[key]
    return tensor


requests = st.fixed_dictionaries(
    {"inputs": st.lists(tensors(), max_size=3) | plain},
    optional={
        "id": plain,
        "outputs": st.lists(outputs, max_size=3) | plain,
        "parameters": st.dictionaries(st.sampled_from(["binary_data_output", "priority", "timeout"]), plain) | plain,
    },
)


def memory(service):
    process = psutil.Process(service.process.pid)
    return sum(one.memory_info().rss for one in (process, *process.children(recursive=True)))


def connected(service):
    return http.client.HTTPConnection("127.0.0.1", service.http, timeout=60)


def post(service, path, body, headers=None):
    """Return the status and JSON of an answer, which is one of the protocol's."""
    connection = connected(service)
    try:
        connection.request("POST", path, body, headers or {})
        response = connection.getresponse()
        content = response.read()
    finally:
        connection.close()
    if response.status != 200:
        assert 400 <= response.status < 500, (response.status, content)
        told = json.loads(content)
        assert isinstance(told["error"], str)
        assert told["error"]
        assert "Traceback" not in told["error"]
    return response.status


@pytest.fixture(scope="module", autouse=True)
def _bounded(service):
    before = memory(service)
    yield
    assert memory(service) < before + GROWTH


@pytest.fixture(autouse=True)
def _goes_on(service):
    yield
    tensor = {"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]}
    assert post(service, "/v2/models/identity-FP32/infer", json.dumps({"inputs": [tensor]})) == 200


@QUICK
@given(model=st.sampled_from(MODELS), content=requests)
def test_json_of_any_form(service, model, content):
    post(service, f"/v2/models/{model}/infer", json.dumps(content))


@QUICK
@given(
    model=st.sampled_from(MODELS),
    content=requests,
    tail=st.binary(max_size=100),
    shift=st.sampled_from([0, 0, 0, 1, -1, 50, -50, 2**40]),
)
def test_binary_parts_of_any_length(service, model, content, tail, shift):
    head = json.dumps(content).encode()
    post(service, f"/v2/models/{model}/infer", head + tail, {LENGTH: str(len(head) + shift)})


@QUICK
@given(
    length=st.text(st.characters(codec="latin-1", exclude_categories=["Cc"]), max_size=30), body=st.binary(max_size=60)
)
def test_any_length_of_the_header(service, length, body):
    post(service, "/v2/models/two/infer", body, {LENGTH: length.encode("latin-1")})


@QUICK
@given(datatype=st.sampled_from([*DTYPES]), cut=st.integers(0, 40), more=st.binary(max_size=9))
def test_tensors_that_are_cut_off_or_too_long(service, datatype, cut, more):
    raw = b"".join(len(word).to_bytes(4, "little") + word for word in (b"", b"four", b"words", b"more"))
    if datatype != "BYTES":
        raw = np.zeros(4, DTYPES[datatype]).tobytes()
    sent = raw[: max(0, len(raw) - cut)] + more
    whole = len(sent) == len(raw) and (datatype != "BOOL" or set(sent) <= {0, 1})
    tensor = {"name": "x", "shape": [2, 2], "datatype": datatype, "parameters": {"binary_data_size": len(sent)}}
    head = json.dumps({"inputs": [tensor]}).encode()
    status = post(service, f"/v2/models/identity-{datatype}/infer", head + sent, {LENGTH: str(len(head))})
    if datatype != "BYTES":
        assert status == (200 if whole else 400)


@QUICK
@given(
    encoding=st.sampled_from(["gzip", "deflate", "br", "zstd", "identity", "gzip, gzip", "GZIP", "x"]),
    body=st.binary(max_size=80),
    pack=st.sampled_from([lambda body: body, gzip.compress, zlib.compress, lambda body: gzip.compress(body)[:-5]]),
)
def test_encodings_known_and_unknown(service, encoding, body, pack):
    post(service, "/v2/models/two/infer", pack(body), {"Content-Encoding": encoding})


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        ("[" * 200_000, {}),
        ('{"inputs": ' + "[" * 50_000 + "]" * 50_000 + "}", {}),
        ('{"a":' * 50_000, {}),
        (gzip.compress(bytes(200 * 2**20)), {"Content-Encoding": "gzip"}),
        (zlib.compress(bytes(200 * 2**20)), {"Content-Encoding": "deflate"}),
        (b'{"inputs": []}', {"X-Large": "x" * 100_000}),
        (b"x", {LENGTH: "9" * 5000}),
    ],
    ids=["open lists", "nested lists", "open objects", "a bomb", "another bomb", "a huge header", "a huge number"],
)
def test_what_is_too_much_is_refused(service, body, headers):
    assert post(service, "/v2/models/two/infer", body, headers) in {400, 413, 431}


@pytest.mark.parametrize("shape", [[2**31, 2**31], [2**62, 2], [2**40], [10**30, 1]])
def test_absurd_shapes_take_no_memory(service, shape):
    for extra in ({"data": [1]}, {"parameters": {"binary_data_size": 4}}):
        tensor = {"name": "x", "shape": shape, "datatype": "FP32", **extra}
        head = json.dumps({"inputs": [tensor]}).encode()
        headers = {LENGTH: str(len(head))} if "parameters" in extra else {}
        assert post(service, "/v2/models/identity-FP32/infer", head + b"\0\0\0\0" * bool(headers), headers) == 400


@QUICK
@given(
    content=st.one_of(
        st.binary(min_size=1, max_size=200),
        st.builds(
            lambda method, path, lines, body: (
                b"%s %s HTTP/1.1\r\n%s\r\n\r\n%s" % (method, path, b"\r\n".join(lines), body)
            ),
            st.sampled_from([b"POST", b"GET", b"PATCH", b"\x00", b""]),
            st.sampled_from([b"/v2/models/two/infer", b"/v2//", b"/%00", b"*", b"/v2/models/%2e%2e/infer"]),
            st.lists(
                st.sampled_from(
                    [
                        b"Host: x",
                        b"Content-Length: 5",
                        b"Content-Length: -5",
                        b"Content-Length: 99999999999999999999",
                        b"Transfer-Encoding: chunked",
                        b"Transfer-Encoding: gzip",
                        b"Expect: 100-continue",
                        b"Connection: close",
                        b"Upgrade: websocket",
                        b"no header",
                    ]
                ),
                max_size=4,
            ),
            st.binary(max_size=60),
        ),
    )
)
def test_any_bytes_on_a_connection(service, content):
    with socket.create_connection(("127.0.0.1", service.http), 30) as connection:
        connection.settimeout(30)
        try:
            connection.sendall(content)
            connection.shutdown(socket.SHUT_WR)
            answer = connection.recv(2**16)
        except ConnectionError:
            answer = b""
    assert not answer.startswith(b"HTTP/1.1 5"), answer


def test_a_body_that_breaks_off_leaves_nothing_behind(service):
    connections = psutil.Process(service.process.pid).net_connections
    for _ in range(50):
        with socket.create_connection(("127.0.0.1", service.http), 30) as connection:
            connection.sendall(b"POST /v2/models/two/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n{")
    open_ones = [one for one in connections("tcp") if one.status == "ESTABLISHED" and one.laddr.port == service.http]
    assert len(open_ones) < 50


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_requests_made_up_from_the_published_document(start_service, tmp_path):
    (tmp_path / "models").mkdir()
    service = start_service(tmp_path)
    options = ["--checks", "not_a_server_error", "--phases", "examples,coverage,fuzzing", "--max-examples", "20"]
    bounds = ["--seed", "7", "--request-timeout", "60", "--max-time", "60", "--no-color"]
    argv = [sys.executable, "-m", "schemathesis.cli", "run", f"{service.url}/openapi.json", *options, *bounds]
    run = subprocess.run(argv, capture_output=True, text=True, timeout=300, cwd=tmp_path, check=False)
    assert run.returncode == 0, run.stdout[-6000:]
    assert service.process.poll() is None
