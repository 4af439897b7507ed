"""HTTPS by the service itself: with a certificate that the test makes, and the faults of one."""

import datetime as dt
import ipaddress
import ssl
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from app.cli.tls import find_certificate
from app.config import Settings
from app.errors import ConfigurationError
from tests.servers import Tidemark, run_tidemark

PASSWORD = "correct horse"


def make_certificate(folder: Path, name: str = "own", password: str | None = None) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that signs itself, and its private key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    closed = serialization.BestAvailableEncryption(password.encode()) if password else serialization.NoEncryption()
    pem = serialization.Encoding.PEM
    paths = folder / f"{name}.crt", folder / f"{name}.key"
    paths[0].write_bytes(certificate.public_bytes(pem))
    paths[1].write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, closed))
    return paths


@pytest.mark.parametrize("password", [None, PASSWORD])
def test_with_a_certificate_it_serves_https_and_nothing_else(
    serve: Callable[..., Tidemark], tmp_path: Path, password: str | None
) -> None:
    certificate, key = make_certificate(tmp_path, password=password)
    given = {"SSL_CERTFILE": str(certificate), "SSL_KEYFILE": str(key)}
    running = serve(**given, **({"SSL_KEYFILE_PASSWORD": password} if password else {}))
    assert running.url.startswith("https://")
    with httpx.Client(base_url=running.url, verify=ssl.create_default_context(cafile=str(certificate))) as client:
        answer = client.post("/fit/s", json={"timestamps": [1, 2, 3, 4], "values": [10.0, 10.5, 9.5, 10.0]})
        assert answer.status_code == 200
        assert answer.headers["Strict-Transport-Security"] == "max-age=31536000"
        assert client.post("/predict/s", json={"timestamp": 5, "value": 13.0}).json()["anomaly"]
        assert f"curl -X POST {running.url}/fit" in client.get("/").text, "the commands of the empty home"
    with pytest.raises(httpx.TransportError):
        httpx.get(running.url.replace("https", "http"))
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.load_verify_locations(certificate)
    old.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        old.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(httpx.ConnectError):
        httpx.get(running.url, verify=old)


def test_the_key_may_be_in_the_file_of_the_certificate(serve: Callable[..., Tidemark], tmp_path: Path) -> None:
    certificate, key = make_certificate(tmp_path)
    certificate.write_bytes(certificate.read_bytes() + key.read_bytes())
    running = serve(SSL_CERTFILE=str(certificate))
    verify = ssl.create_default_context(cafile=str(certificate))
    assert httpx.get(f"{running.url}/livez", verify=verify).status_code == 200


def test_a_certificate_that_cannot_be_used_is_named_at_the_start(tmp_path: Path) -> None:
    certificate, key = make_certificate(tmp_path)
    _, other = make_certificate(tmp_path, "other")
    _, closed = make_certificate(tmp_path, "closed", PASSWORD)
    garbage = tmp_path / "garbage.pem"
    garbage.write_text("nothing of the kind")
    missing = tmp_path / "missing.pem"
    for settings, said in (
        ({"SSL_CERTFILE": missing, "SSL_KEYFILE": key}, [f"SSL_CERTFILE={missing}", "No such file"]),
        ({"SSL_CERTFILE": certificate, "SSL_KEYFILE": missing}, [f"SSL_KEYFILE={missing}", "No such file"]),
        ({"SSL_CERTFILE": certificate, "SSL_KEYFILE": tmp_path}, ["SSL_KEYFILE=", "directory"]),
        ({"SSL_CERTFILE": certificate, "SSL_KEYFILE": other}, ["KEY_VALUES_MISMATCH", str(other)]),
        ({"SSL_CERTFILE": certificate}, ["SSL_CERTFILE", "belong together"]),
        ({"SSL_CERTFILE": garbage, "SSL_KEYFILE": key}, [str(garbage), "PEM"]),
        ({"SSL_CERTFILE": certificate, "SSL_KEYFILE": closed}, ["SSL_KEYFILE_PASSWORD"]),
        ({"SSL_KEYFILE": key}, ["SSL_CERTFILE"]),
    ):
        refused = refusal({name: str(path) for name, path in settings.items()})
        assert all(part in refused for part in said), refused


def refusal(settings: dict[str, str]) -> str:
    """What is said of the settings, in the process of the test: starting one for each takes seconds."""
    with pytest.raises(ConfigurationError) as refused:
        find_certificate(Settings(_env_file=None, **{name.lower(): value for name, value in settings.items()}))
    return refused.value.detail


def test_the_service_does_not_start_with_the_key_of_another_certificate(tmp_path: Path) -> None:
    certificate, _ = make_certificate(tmp_path)
    _, other = make_certificate(tmp_path, "other")
    settings = {"SSL_CERTFILE": str(certificate), "SSL_KEYFILE": str(other)}
    run = run_tidemark(tmp_path, "serve", settings=settings)
    assert run.returncode == 1
    assert "SSL_KEYFILE" in run.stderr
    assert "Traceback" not in run.stderr


def test_only_listed_proxies_are_believed(serve: Callable[..., Tidemark]) -> None:
    forwarded = {"X-Forwarded-Proto": "https"}
    with_none = serve(FORWARDED_ALLOW_IPS="10.0.0.0/8").client.get("/livez", headers=forwarded)
    assert "Strict-Transport-Security" not in with_none.headers
    listed = serve(FORWARDED_ALLOW_IPS="10.0.0.0/8,127.0.0.0/8").client.get("/livez", headers=forwarded)
    assert "Strict-Transport-Security" in listed.headers
