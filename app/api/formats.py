"""Media types of what goes in and out."""

JSON = "application/json"
NDJSON = "application/x-ndjson"
ARROW = "application/vnd.apache.arrow.stream"
PARQUET = "application/vnd.apache.parquet"
PROBLEM = "application/problem+json"


def names(media_type: str, header: str | None) -> bool:
    """Whether a Content-Type or Accept header names this type."""
    if header is None:
        return False
    return any(entry.partition(";")[0].strip().lower() == media_type for entry in header.split(","))


def is_table(content_type: str | None) -> bool:
    """Whether a body is an Arrow stream or a Parquet file."""
    return names(ARROW, content_type) or names(PARQUET, content_type)
