"""What can go wrong, each with its HTTP status and a message that says what to do.

TidemarkError                    500
+-- InvalidInput                 422   every fault of the request, all at once
|   +-- MalformedBody            422   the body is not the JSON that was announced
|   +-- IdempotencyKeyReused     422
+-- Unauthenticated              401   with WWW-Authenticate
|   +-- KeyUnknown               401
+-- HostNotAllowed               400
+-- CrossSiteRequest             403
+-- ScopeMissing                 403
+-- SeriesNotAllowed             403
+-- SeriesNotFound               404
|   +-- VersionNotFound          404
|   +-- AliasNotFound            404
+-- VersionDeleted               410
+-- AliasInUse                   409
+-- PreconditionFailed           412
+-- RequestTimeout               408
+-- BodyTooLarge                 413
+-- RateLimitExceeded            429   with Retry-After
+-- ArtifactDamaged              500
+-- Unavailable                  503   with Retry-After
|   +-- DatabaseUnavailable      503
|   +-- SchemaOutdated           503
|   +-- ArtifactStoreUnavailable 503
|   +-- LatencyStoreUnavailable  503
|   +-- Overloaded               503
+-- ConfigurationError           (start-up)
+-- MissingDependency            (an optional part that is not installed)
+-- SourceUnreadable             (command line: a file that cannot be read as series)
"""

from collections.abc import Iterable, Sequence
from typing import ClassVar, NamedTuple


class Fault(NamedTuple):
    """One thing that is wrong with a request."""

    pointer: str
    """JSON pointer (RFC 6901) into the place named by `location`."""
    detail: str
    location: str = "body"
    """`body`, `path`, `query` or `header`."""


def json_pointer(path: Iterable[object]) -> str:
    """The JSON pointer (RFC 6901) to where these keys lead."""
    return "".join("/" + str(key).replace("~", "~0").replace("/", "~1") for key in path)


class TidemarkError(Exception):
    """The root: everything that this project raises on purpose."""

    status: ClassVar[int] = 500
    title: ClassVar[str] = "Something went wrong inside Tidemark"
    retry_after_s: int | None = None

    def __init__(self, detail: str, faults: Sequence[Fault] = ()) -> None:
        super().__init__(detail)
        self.detail = detail
        self.faults = tuple(faults)

    @property
    def kind(self) -> str:
        """Name of the error in the `type` of a problem document, e.g. `version-not-found`."""
        name = type(self).__name__
        return "".join(f"-{c.lower()}" if c.isupper() else c for c in name).lstrip("-")


class InvalidInput(TidemarkError):
    """The request breaks the contract; `faults` names every place."""

    status = 422
    title = "The request needs to be corrected"

    def __init__(self, faults: Sequence[Fault]) -> None:
        count = f"{len(faults)} things need" if len(faults) != 1 else "One thing needs"
        super().__init__(f"{count} to be corrected, see `errors`. Nothing was stored.", faults)


class MalformedBody(InvalidInput):
    """The body cannot be read at all as what it was announced to be."""

    title = "The body cannot be read"


class IdempotencyKeyReused(InvalidInput):
    """An Idempotency-Key came back with another body."""

    title = "This Idempotency-Key belongs to another request"


class HostNotAllowed(TidemarkError):
    """The request names another host than those that ALLOWED_HOSTS lists."""

    status = 400
    title = "Not under this host name"


class CrossSiteRequest(TidemarkError):
    """A page of another site tries to change something through its visitor's browser."""

    status = 403
    title = "Not from another site's page"


class Unauthenticated(TidemarkError):
    """The request carries no API key."""

    status = 401
    title = "An API key is needed"


class KeyUnknown(Unauthenticated):
    """There is no such key, or not any more."""

    title = "The API key is not valid"


class ScopeMissing(TidemarkError):
    """The key is valid, but not for this."""

    status = 403
    title = "The API key lacks a scope"


class SeriesNotAllowed(TidemarkError):
    """The key is valid, but not for this series."""

    status = 403
    title = "The API key is not for this series"


class SeriesNotFound(TidemarkError):
    """No model was ever fitted for the series."""

    status = 404
    title = "No such series"


class VersionNotFound(SeriesNotFound):
    """The series exists, the version does not."""

    title = "No such version"


class AliasNotFound(SeriesNotFound):
    """The series exists, the alias does not."""

    title = "No such alias"


class VersionDeleted(TidemarkError):
    """The version existed and was deleted; its number is never given again."""

    status = 410
    title = "This version was deleted"


class AliasInUse(TidemarkError):
    """A version cannot be deleted while an alias points at it."""

    status = 409
    title = "An alias points at this version"


class PreconditionFailed(TidemarkError):
    """If-Match or If-None-Match does not hold: someone else was faster."""

    status = 412
    title = "It changed in the meantime"


class RequestTimeout(TidemarkError):
    """The request did not come in within its time."""

    status = 408
    title = "The request came too slowly"


class BodyTooLarge(TidemarkError):
    """The body is larger than MAX_BODY_MB, or what it expands to is."""

    status = 413
    title = "The body is too large"


class RateLimitExceeded(TidemarkError):
    """The key has asked for more than it may in a minute."""

    status = 429
    title = "Too much in one minute"

    def __init__(self, detail: str, retry_after_s: int) -> None:
        super().__init__(detail)
        self.retry_after_s = retry_after_s


class ArtifactDamaged(TidemarkError):
    """Stored bytes are missing or do not match their checksum."""

    title = "A stored artifact is damaged"


class Unavailable(TidemarkError):
    """Something that the service stands on cannot be reached right now."""

    status = 503
    title = "Not available right now"
    retry_after_s = 2


class DatabaseUnavailable(Unavailable):
    """The metadata database does not answer."""

    title = "The database cannot be reached"


class SchemaOutdated(Unavailable):
    """The database has not been migrated to this release."""

    title = "The database schema is not current"


class ArtifactStoreUnavailable(Unavailable):
    """The artifact store cannot be read or written."""

    title = "The artifact store cannot be reached"


class LatencyStoreUnavailable(Unavailable):
    """The configured Redis cannot be read."""

    title = "The latency store cannot be reached"


class Overloaded(Unavailable):
    """There is more to do than this process takes on at once."""

    title = "Too much to do right now"


class ConfigurationError(TidemarkError):
    """A setting is wrong; found at start-up."""

    title = "The configuration needs to be corrected"


class MissingDependency(TidemarkError):
    """An optional library is needed and not installed."""

    title = "An optional part is not installed"


class SourceUnreadable(TidemarkError):
    """A file that was given to fit from cannot be read as series."""

    title = "The file cannot be read"
