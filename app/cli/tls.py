"""The certificate of a service that ends TLS itself, looked at before anything else starts."""

import ssl
from pathlib import Path
from typing import TypedDict

from app.config import Settings
from app.errors import ConfigurationError


class Certificate(TypedDict, total=False):
    """As uvicorn takes it."""

    ssl_certfile: str
    ssl_keyfile: str | None
    ssl_keyfile_password: str


def find_certificate(settings: Settings) -> Certificate:
    """The files of the settings, nothing for plain HTTP. Raises ConfigurationError that says which one is at fault."""
    if settings.ssl_certfile is None:
        if settings.ssl_keyfile is not None:
            message = "SSL_KEYFILE is given without SSL_CERTFILE: both are needed for HTTPS."
            raise ConfigurationError(message)
        return {}
    certificate = Certificate(
        ssl_certfile=str(settings.ssl_certfile),
        ssl_keyfile=None if settings.ssl_keyfile is None else str(settings.ssl_keyfile),
        ssl_keyfile_password=settings.ssl_keyfile_password.get_secret_value(),
    )
    _check(certificate)
    return certificate


def _check(certificate: Certificate) -> None:
    names = {"SSL_CERTFILE": certificate["ssl_certfile"], "SSL_KEYFILE": certificate["ssl_keyfile"]}
    for name, path in names.items():
        if path is not None:
            _check_readable(name, path)
    given = ", ".join(f"{name}={path}" for name, path in names.items() if path is not None)
    try:
        # Always a password: without one OpenSSL asks the terminal for it.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(
            certificate["ssl_certfile"], certificate["ssl_keyfile"], lambda: certificate["ssl_keyfile_password"]
        )
    except (ssl.SSLError, OSError) as error:
        reason = getattr(error, "reason", None) or str(error)
        message = (
            f"The certificate and its private key cannot be used ({reason}): {given} must be PEM and belong together, "
            "and SSL_KEYFILE_PASSWORD must open a key that is encrypted."
        )
        raise ConfigurationError(message) from None


def _check_readable(name: str, path: str) -> None:
    try:
        with Path(path).open("rb"):
            pass
    except OSError as error:
        message = f"{name}={path} cannot be read: {error.strerror}."
        raise ConfigurationError(message) from None
