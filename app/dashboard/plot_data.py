"""What the plot draws: the document of GET /plot/data."""

from typing import Annotated, Literal

import orjson
from pydantic import Field

from app.api.answers import verdict_lists
from app.api.schemas import Number, SeriesId, VerdictLists
from app.services.inspection import View


class PlotData(VerdictLists):
    """Training data of a version as its own model judges it; the lists are index-aligned."""

    series_id: SeriesId
    model_version: Number
    method: Annotated[
        Literal["all", "min-max"],
        Field(description="min-max: each stretch keeps its lowest, its highest and its most anomalous point."),
    ]
    points: Annotated[int, Field(description="Points within start and end, before any were left out.")]
    anomalies: Annotated[int, Field(description="How many of them are anomalies.")]
    timestamps: Annotated[list[float], Field(description="Unix seconds.")]
    values: list[float]


def encode(view: View) -> bytes:
    """The bytes of a `PlotData`. An infinite bound becomes null."""
    content = {
        "series_id": view.version.series_id,
        "model_version": str(view.version.version),
        "method": "all" if len(view.points) == view.points_in_range else "min-max",
        "points": view.points_in_range,
        "anomalies": view.anomalies_in_range,
        "timestamps": view.points.timestamps_s,
        "values": view.points.values,
    } | verdict_lists(view.verdicts)
    return orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)
