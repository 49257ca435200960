"""Metrics, access log, spans, TLS."""

from __future__ import annotations

import json
import logging
import ssl
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client.parser import text_string_to_metric_families

GOOD = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 3], "data": [1, 2, 3]}]}
BAD = {"inputs": []}


async def samples(server):
    """Return the value of every sample, by name and labels."""
    text = (await server.ask("GET", "metrics")).body.decode()
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found[sample.name, tuple(sorted(sample.labels.items()))] = sample.value
    return found


async def test_metrics_tell_requests_phases_batches_and_the_older_names(server):
    for _ in range(3):
        await server.infer("double", GOOD)
    await server.infer("double", BAD)
    found = await samples(server)
    model = (("model", "double"), ("version", "1"))
    assert found["locex_inference_requests_total", (model[0], ("outcome", "success"), model[1])] == 3
    assert found["locex_inference_examples_total", model] == 3
    assert found["locex_inference_request_seconds_count", model] == 3
    assert found["locex_inference_request_seconds_bucket", (("le", "+Inf"), *model)] == 3
    for phase in ("queue", "preprocess", "infer", "postprocess"):
        assert found["locex_inference_phase_seconds_count", (model[0], ("phase", phase), model[1])] == 3
    assert found["locex_inference_batch_size_sum", model] == 3
    assert found["locex_inference_in_flight", model] == 0
    assert found["locex_inference_loads_total", (("outcome", "success"),)] == 3
    for name in ("request_processing", "request_latency"):
        assert found[f"inference_{name}_seconds_count", ()] == 3
        assert found[f"inference_{name}_seconds_sum", ()] > 0
    assert found["tflite_inference_pipeline_preparation_seconds_count", ()] == 3
    route = ("method", "POST"), ("route", "/v2/models/{model}/infer")
    assert found["http_requests_total", (*route, ("status", "200"))] == 3
    assert found["http_requests_total", (*route, ("status", "400"))] == 1
    assert found["http_request_duration_seconds_count", route] == 4


async def test_metrics_tell_swaps(server):
    for number in ("2", "3"):
        server.add("double", server.inferencers["double"], number)
    found = await samples(server)
    assert found["locex_inference_swaps_total", (("model", "double"),)] == 2


@pytest.mark.parametrize("lane", ["fast", "aiohttp"])
async def test_the_access_log_shows_requests(start, lane, caplog):
    server = await start(lane, log=1.0)
    with caplog.at_level(logging.INFO, "locex.access"):
        await server.infer("double", GOOD, headers={"Authorization": "Bearer secret"})
        await server.infer("double", BAD)
    lines = [json.loads(record.message) for record in caplog.records if record.name == "locex.access"]
    assert [(line["path"], line["status"]) for line in lines] == [
        ("/v2/models/double/infer", 200),
        ("/v2/models/double/infer", 400),
    ]
    assert {"transport": "http", "model": "double", "version": "1", "remote": "127.0.0.1"}.items() <= lines[0].items()
    assert lines[0]["ms"] > 0
    assert "secret" not in caplog.text


async def test_the_access_log_can_be_off_or_a_sample(start, caplog):
    with caplog.at_level(logging.INFO, "locex.access"):
        server = await start(log=0)
        await server.infer("double", GOOD)
        assert not [record for record in caplog.records if record.name == "locex.access"]
        server = await start(log=1e-12)
        server.inferencers["double"].function = None
        await server.infer("double", GOOD)
    (line,) = [json.loads(record.message) for record in caplog.records if record.name == "locex.access"]
    assert line["status"] == 500


@pytest.fixture(scope="module")
def spans():
    """Return an exporter of the one tracer provider that a process has."""
    exporter = InMemorySpanExporter()
    provider = trace.get_tracer_provider()
    if not isinstance(provider, TracerProvider):
        provider = TracerProvider()
        trace.set_tracer_provider(provider)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return exporter


@pytest.mark.parametrize("lane", ["fast", "aiohttp"])
async def test_spans_follow_the_trace_settings_and_the_callers_span(start, spans, lane):
    server = await start(lane, tracing=True)
    spans.clear()
    parent = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
    await server.infer("double", GOOD, headers=parent)
    assert not spans.get_finished_spans()
    server.controls.set_trace({"trace_level": ["TIMESTAMPS"], "trace_rate": ["2"]}, "double")
    for content in (GOOD, GOOD, BAD):
        await server.infer("double", content, headers=parent)
    good, bad = spans.get_finished_spans()
    assert f"{good.context.trace_id:032x}" == "0af7651916cd43dd8448eb211c80319c"
    assert f"{good.parent.span_id:016x}" == "b7ad6b7169203331"
    assert good.attributes["locex.model"] == "double"
    assert (good.attributes["locex.version"], good.attributes["locex.status"]) == ("1", 200)
    assert bad.attributes["error.type"] == "inference-invalid"
    assert not bad.status.is_ok


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """Return the files of a certificate for loopback and its key."""
    folder = tmp_path_factory.mktemp("tls")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, now - timedelta(1), now + timedelta(1))
    made = builder.sign(key, hashes.SHA256())
    (folder / "certificate.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return folder / "certificate.pem", folder / "key.pem"


async def test_the_fast_way_in_speaks_tls(start, certificate):
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*certificate)
    server = await start("fast", ssl_context=context)
    for _ in range(2):
        reply = await server.infer("double", GOOD, ssl=False)
        assert json.loads(reply.body)["outputs"][0]["data"] == [2, 4, 6]
        assert (await server.ask("GET", "v2/health/live", ssl=False)).status == 200
