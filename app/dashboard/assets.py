"""The static files: read and compressed once, served from memory, so that no path reaches the file system."""

import gzip
import hashlib
from functools import cache
from importlib.metadata import distribution
from pathlib import Path
from typing import NamedTuple

from fastapi import Request
from fastapi.responses import Response

STATIC_FOLDER = Path(__file__).parent / "static"
PACKAGED = {
    "plotly.min.js": ("plotly", "plotly/package_data/plotly.min.js"),
    "swagger-ui-bundle.js": ("fastapi-offline", "fastapi_offline/static/swagger-ui-bundle.js"),
    "swagger-ui.css": ("fastapi-offline", "fastapi_offline/static/swagger-ui.css"),
}
"""Files of installed packages, as distribution and path: none of them is imported, which would take a second."""

_MEDIA_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_FOREVER = "public, max-age=31536000, immutable"
_ASK_EACH_TIME = "no-cache"


class Asset(NamedTuple):
    """A static file as it is sent."""

    gzipped: bytes
    media_type: str


class Assets:
    """Static files by name. The path of each names its content, so a browser may keep it for ever."""

    def __init__(self) -> None:
        contents = {path.name: path.read_bytes() for path in sorted(STATIC_FOLDER.iterdir())}
        # One print for all, so that a script may import its neighbour by a relative path.
        self._fingerprint = hashlib.sha256(b"".join(contents.values())).hexdigest()[:16]
        self._assets = {name: _asset(name, content) for name, content in contents.items()}
        self._packages = {name: f"{package}-{distribution(package).version}" for name, (package, _) in PACKAGED.items()}

    def path(self, name: str) -> str:
        """Where a file is served, relative to the pages."""
        return f"static/{self._fingerprint_of(name)}/{name}"

    def answer(self, request: Request, fingerprint: str, name: str) -> Response | None:
        """A file, None when there is none of this name.

        A fingerprint of another release, as two meet in a rolling update, gives our file, not to be kept.
        """
        asset = _packaged(name) if name in PACKAGED else self._assets.get(name)
        if asset is None:
            return None
        is_current = fingerprint == self._fingerprint_of(name)
        headers = {
            "Cache-Control": _FOREVER if is_current else _ASK_EACH_TIME,
            "Vary": "Accept-Encoding",
        }
        body = asset.gzipped
        if accepts_gzip(request):
            headers["Content-Encoding"] = "gzip"
        else:
            body = gzip.decompress(body)
        return Response(body, headers=headers, media_type=asset.media_type)

    def _fingerprint_of(self, name: str) -> str:
        return self._packages.get(name, self._fingerprint)


def accepts_gzip(request: Request) -> bool:
    """Whether a client takes gzip."""
    offers = (offer.partition(";") for offer in request.headers.get("accept-encoding", "").lower().split(","))
    return any(coding.strip() == "gzip" and weight.replace(" ", "") not in _REFUSED for coding, _, weight in offers)


_REFUSED = ("q=0", "q=0.0", "q=0.00", "q=0.000")


def _asset(name: str, content: bytes) -> Asset:
    return Asset(gzip.compress(content, mtime=0), _MEDIA_TYPES[Path(name).suffix])


@cache
def _packaged(name: str) -> Asset:
    package, path = PACKAGED[name]
    return _asset(name, Path(str(distribution(package).locate_file(path))).read_bytes())
