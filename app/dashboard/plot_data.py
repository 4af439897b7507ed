"""What the plot draws: the document of GET /plot/data."""

from typing import Annotated, Any, Literal

import orjson
from pydantic import BaseModel, Field

from app.api.answers import verdict_lists
from app.api.schemas import Number, SeriesId, VerdictLists
from app.services.budgets import Budgets
from app.services.inspection import View

Thresholds = Annotated[
    list[float | None], Field(description="Falling; null where the direction leaves this side open.")
]


class BudgetLists(BaseModel):
    """What the same model flags of the same points at other false alarm rates; the lists are index-aligned.

    At each rate a bound is `scale * threshold` from what is expected of a point, on either side, and at least
    `min_dev_from_expected` and `min_rel_dev_from_expected * |expected|`. What lies beyond it is an anomaly.
    """

    own: Annotated[int, Field(description="The place of the model's own rate.")]
    chosen: Annotated[int, Field(description="The place of the rate that the verdicts beside these lists are for.")]
    false_alarm_rate: Annotated[list[float], Field(description="Rising.")]
    below: Thresholds
    above: Thresholds
    anomalies: Annotated[list[int], Field(description="How many points within start and end are anomalies.")]
    min_dev_from_expected: float
    min_rel_dev_from_expected: float


class PlotData(VerdictLists):
    """Training data of a version as its own model judges it; the lists are index-aligned."""

    series_id: SeriesId
    model_version: Number
    method: Annotated[
        Literal["all", "min-max"],
        Field(description="min-max: each stretch keeps its lowest, its highest and its most anomalous point."),
    ]
    points: Annotated[int, Field(description="Points within start and end, before any were left out.")]
    judged: Annotated[
        int, Field(description="How many of them the model has judged: the last ones; the others have score 0.")
    ]
    anomalies: Annotated[int, Field(description="How many of them are anomalies.")]
    interval_s: Annotated[float | None, Field(description="Seconds between two points; null for one point.")]
    timestamps: Annotated[list[float], Field(description="Unix seconds.")]
    values: list[float]
    scale: Annotated[
        list[float | None], Field(description="The distance of a bound at a threshold of 1; null for no bounds.")
    ]
    budgets: BudgetLists


def encode(view: View) -> bytes:
    """The bytes of a `PlotData`. An infinite bound becomes null."""
    content = {
        "series_id": view.version.series_id,
        "model_version": str(view.version.version),
        "method": "all" if len(view.points) == view.points_in_range else "min-max",
        "points": view.points_in_range,
        "judged": view.judged_in_range,
        "anomalies": view.anomalies_in_range,
        "interval_s": view.interval_s,
        "timestamps": view.points.timestamps_s,
        "values": view.points.values,
        "scale": view.budgets.scale,
        "budgets": _budget_lists(view.budgets),
    } | verdict_lists(view.verdicts)
    return orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)


def _budget_lists(budgets: Budgets) -> dict[str, Any]:
    """The fields of a `BudgetLists`."""
    return {
        "own": budgets.own,
        "chosen": budgets.chosen,
        "false_alarm_rate": budgets.false_alarm_rate,
        "below": budgets.below,
        "above": budgets.above,
        "anomalies": budgets.anomalies,
        "min_dev_from_expected": budgets.min_dev_from_expected,
        "min_rel_dev_from_expected": budgets.min_rel_dev_from_expected,
    }
