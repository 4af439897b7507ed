"""Conditional requests (RFC 9110, section 13): what a caller demands of a resource's entity tag."""

from typing import NamedTuple

from app.errors import PreconditionFailed


class Precondition(NamedTuple):
    """The If-Match and If-None-Match of a request, as they came."""

    if_match: str | None = None
    if_none_match: str | None = None

    def check(self, etag: str | None) -> None:
        """Raises PreconditionFailed when the resource with this tag (None: there is none) is not as demanded."""
        if self.if_match is not None and not _names(self.if_match, etag):
            now = "there is no such resource" if etag is None else f"its tag is now {etag}"
            raise PreconditionFailed(f"If-Match is {self.if_match}, but {now}. Read it again and decide anew.")
        if self.names_current(etag):
            raise PreconditionFailed(f"If-None-Match is {self.if_none_match}, but the resource has the tag {etag}.")

    def names_current(self, etag: str | None) -> bool:
        """Whether If-None-Match names this tag: then a reader has the current state already."""
        return self.if_none_match is not None and _names(self.if_none_match.replace("W/", ""), etag)


def _names(header: str, etag: str | None) -> bool:
    return etag is not None and (header.strip() == "*" or etag in (tag.strip() for tag in header.split(",")))
