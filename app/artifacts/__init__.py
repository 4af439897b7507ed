"""The family of artifact stores: from a location, as it stands in the settings, to the store."""

from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from app.artifacts.base import ArtifactStore
from app.artifacts.local import LocalStore
from app.errors import MissingDependency


def open_store(location: str) -> ArtifactStore:
    """The store at a local path, a file:// URL or an object-store URL.

    Raises ArtifactStoreUnavailable, ConfigurationError, or MissingDependency when obstore is needed.
    """
    url = urlsplit(location)
    if url.scheme == "file":
        return LocalStore(Path(url2pathname(url.path)))
    if "://" not in location:
        return LocalStore(Path(location))
    try:
        from app.artifacts.object_store import ObjectStore
    except ModuleNotFoundError as error:
        message = f"{location} needs {error.name}: pip install -r requirements.txt"
        raise MissingDependency(message) from error
    return ObjectStore(location)
