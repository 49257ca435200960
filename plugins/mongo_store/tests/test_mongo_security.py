"""Authentication and TLS to the database, and that a password shows nowhere."""

from __future__ import annotations

import datetime as dt
import ipaddress
import logging
import traceback
from urllib.parse import quote

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from locex.errors import InvalidConfiguration, LocexError, StoreUnavailable
from locex.testing.store_contract import job

PASSWORD = "hunter2/@:?"
WRONG = "guess/@:?"


def write_pem(path, *parts):
    encoding = serialization.Encoding.PEM
    pem = b"".join(
        part.public_bytes(encoding)
        if isinstance(part, x509.Certificate)
        else part.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        for part in parts
    )
    path.write_bytes(pem)
    return path


def certificate(name, key, issuer=None, issuer_key=None):
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = dt.datetime.now(dt.UTC)
    authority = issuer is None
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if authority else issuer.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    if not authority:
        address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
        builder = builder.add_extension(x509.SubjectAlternativeName([address]), critical=False)
        known = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key())
        builder = builder.add_extension(known, critical=False)
    return builder.sign(issuer_key or key, hashes.SHA256())


@pytest.fixture(scope="module")
def pki(tmp_path_factory):
    """PEM files: an authority, a server's and a client's certificate with their keys, and another authority."""
    folder = tmp_path_factory.mktemp("pki")
    keys = {name: ec.generate_private_key(ec.SECP256R1()) for name in ("ca", "other", "server", "client")}
    authority, other = certificate("test ca", keys["ca"]), certificate("other ca", keys["other"])
    files = {"ca": write_pem(folder / "ca.pem", authority), "other": write_pem(folder / "other.pem", other)}
    for name in ("server", "client"):
        signed = certificate(name, keys[name], authority, keys["ca"])
        files[name] = write_pem(folder / f"{name}.pem", keys[name], signed)
    return files


@pytest.fixture
def guarded(own_mongod):
    """A server that asks for a password, and the user who has it."""
    server = own_mongod()
    with server.client() as client:
        role = {"role": "readWrite", "db": "test"}
        client.admin.command("createUser", "locex", pwd=PASSWORD, roles=[role], writeConcern={"w": 1, "j": True})
    server.kill()
    server.argv.append("--auth")
    return server.start()


def url_of(server, password):
    return f"mongodb://locex:{quote(password, safe='')}@127.0.0.1:{server.port}/?authSource=admin"


def told(error):
    """Return all that a log or an answer would show of an error."""
    return "".join(traceback.format_exception(error)) + str(error.to_json())


async def test_a_user_with_one_role_is_enough(guarded, make_store):
    store = await make_store(url_of(guarded, PASSWORD))
    await store.save_job(job("r1"), "log", {})
    assert await store.sweep() == 0
    assert await store.get_job("r1") == job("r1")


async def test_a_wrong_password_and_a_missing_role_are_told_without_secrets(guarded, make_store, caplog):
    caplog.set_level(logging.DEBUG)
    with pytest.raises(StoreUnavailable, match="authentication failed") as wrong:
        await make_store(url_of(guarded, WRONG))
    with pytest.raises(StoreUnavailable, match="not authorized") as none:
        await make_store(f"mongodb://127.0.0.1:{guarded.port}/")
    with pytest.raises(StoreUnavailable, match="not authorized") as elsewhere:
        await make_store(url_of(guarded, PASSWORD), database="private")
    assert "readWrite" in elsewhere.value.remedy
    for caught in (wrong, none, elsewhere):
        assert not any(secret in told(caught.value) for secret in ("guess", "hunter2"))
    assert not any(secret in caplog.text for secret in ("guess", "hunter2"))


@pytest.mark.parametrize(
    "url",
    [
        "mongodb://locex:hunter2/@127.0.0.1:27017/",
        "mongodb://locex:hunter2@127.0.0.1:hunter2/",
        "mongodb://locex:hunter2@127.0.0.1/?retryWrites=hunter2&w=1&authMechanism=hunter2",
        "mongodb://locex:hunter2@127.0.0.1/?tls=true&tlsCAFile=/hunter2",
        "mongodb://",
        "mongodb:hunter2",
        "http://locex:hunter2@127.0.0.1/",
        "",
    ],
)
async def test_a_url_that_cannot_be_is_refused_without_showing_it(make_store, url):
    with pytest.raises(LocexError) as caught:
        await make_store(url, selection_timeout=0.1)
    assert isinstance(caught.value, InvalidConfiguration)
    assert "hunter2" not in told(caught.value)
    assert caught.value.remedy


async def test_tls_to_the_database_with_certificates_of_both_sides(own_mongod, make_store, pki):
    options = ["--tlsMode", "requireTLS", "--tlsCertificateKeyFile", pki["server"], "--tlsCAFile", pki["ca"]]
    tls = {"tls": True, "tlsCAFile": str(pki["ca"]), "tlsCertificateKeyFile": str(pki["client"])}
    server = own_mongod(options=options, tls=tls)

    def url(authority, own="client"):
        return f"{server.url}?tls=true&tlsCAFile={pki[authority]}" + (
            f"&tlsCertificateKeyFile={pki[own]}" if own else ""
        )

    store = await make_store(url("ca"))
    await store.put_job(job("r1"))
    assert await store.get_job("r1") == job("r1")
    for refused in (url("ca", own=None), server.url):
        with pytest.raises(StoreUnavailable):
            await make_store(refused, folder="other", selection_timeout=0.7)
    with pytest.raises(StoreUnavailable, match="TLS failed") as caught:
        await make_store(url("other"), folder="other", selection_timeout=4)
    assert "tlsCAFile" in caught.value.remedy
