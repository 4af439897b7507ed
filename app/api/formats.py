"""Media types of what goes in and out."""

JSON = "application/json"
NDJSON = "application/x-ndjson"
ARROW = "application/vnd.apache.arrow.stream"
PARQUET = "application/vnd.apache.parquet"
PROBLEM = "application/problem+json"


def names(media_type: str, header: str | None) -> bool:
    """Whether a Content-Type or Accept header names this type."""
    return parameters_of(media_type, header) is not None


def parameters_of(media_type: str, header: str | None) -> str | None:
    """What follows this type in the header, without blanks; None when it is not there."""
    for entry in (header or "").split(","):
        name, _, parameters = entry.replace(" ", "").lower().partition(";")
        if name == media_type:
            return parameters
    return None


def is_table(content_type: str | None) -> bool:
    """Whether a body is an Arrow stream or a Parquet file."""
    return names(ARROW, content_type) or names(PARQUET, content_type)
