"""The report of a version, as the models of the OpenAPI document and of the answer."""

import math
from typing import Annotated, Literal, Self

from pydantic import BaseModel, Field

from app.api.schemas import DetectorName, VersionItem
from app.detectors.base import Choice
from app.detectors.trials import SIZES, Trial
from app.injection import ANOMALY_KINDS, AnomalyKind
from app.quality import SHOWN, Gaps, Outliers, Quality, Runs
from app.series import FloatArray, format_timestamp
from app.services.reporting import FEWEST_POINTS_TRIED, MOST_POINTS_TRIED, Report
from app.unit_jumps import UnitJump
from app.versions import Version

_MOST_STRETCHES = 20

Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0)]
Time = Annotated[str, Field(description="RFC 3339.")]


class Stretch(BaseModel):
    """From the first to the last point of a stretch."""

    first_timestamp: Time
    last_timestamp: Time


class CandidateItem(BaseModel):
    """A detector that was tried, on the part of the history that it was not fitted to."""

    detector: DetectorName
    recall: Annotated[Share, Field(description="Share of the anomalies injected there that it found.")]
    false_alarm_rate: Annotated[Share, Field(description="Share of the points there that it flagged without any.")]
    seconds: Annotated[float, Field(ge=0, description="That its fit and its trial took.")]


class ChoiceItem(BaseModel):
    """Why a detector was taken."""

    reason: str
    candidates: Annotated[list[CandidateItem], Field(description="What was tried, the best first.")]

    @classmethod
    def of(cls, choice: Choice) -> Self:
        """As the fit has it."""
        candidates = [CandidateItem(**candidate._asdict()) for candidate in choice.candidates]
        return cls(reason=choice.reason, candidates=candidates)


class PeriodItem(BaseModel):
    """After how long the training data repeats itself."""

    points: Count
    seconds: float


class GapItem(Stretch):
    """Where points are missing: the points before and after."""

    missing_points: Count


class GapsItem(BaseModel):
    """Intervals of more than one and a half usual ones; in irregular data, those far longer than nearly all others."""

    count: Count
    missing_points: Count
    missing_share: Annotated[Share, Field(description="Of the points that there would be without gaps.")]
    longest_s: Annotated[float, Field(description="Seconds.")]
    first: Annotated[list[GapItem], Field(description=f"The first {SHOWN} of them.")]

    @classmethod
    def of(cls, gaps: Gaps) -> Self:
        """As they were found."""
        first = [
            GapItem(**_stretch(gap.first_timestamp_s, gap.last_timestamp_s), missing_points=gap.missing_points)
            for gap in gaps.first
        ]
        return cls(
            count=gaps.count,
            missing_points=gaps.missing_points,
            missing_share=gaps.missing_share,
            longest_s=gaps.longest_s,
            first=first,
        )


class StuckItem(Stretch):
    """A stretch of equal values."""

    points: Count
    value: float


class StuckStretches(BaseModel):
    """Stretches of equal values that are far longer than is usual in this series."""

    count: Count
    points: Annotated[Count, Field(description="In all of them.")]
    longest: Annotated[list[StuckItem], Field(description=f"The longest {SHOWN} of them.")]

    @classmethod
    def of(cls, runs: Runs) -> Self:
        """As they were found."""
        longest = [
            StuckItem(**_stretch(run.first_timestamp_s, run.last_timestamp_s), points=run.points, value=run.value)
            for run in runs.longest
        ]
        return cls(count=runs.count, points=runs.points, longest=longest)


class OutlierItem(BaseModel):
    """A value far from those just before and after it."""

    timestamp: Time
    value: float
    deviation: Annotated[float, Field(description="In units of how far values usually are from their neighbours.")]


class OutlierList(BaseModel):
    """Single values, or up to four in a row, that are beyond doubt."""

    count: Count
    worst: Annotated[list[OutlierItem], Field(description=f"The worst {SHOWN} of them.")]

    @classmethod
    def of(cls, outliers: Outliers) -> Self:
        """As they were found."""
        worst = [
            OutlierItem(timestamp=format_timestamp(each.timestamp_s), value=each.value, deviation=each.deviation)
            for each in outliers.worst
        ]
        return cls(count=outliers.count, worst=worst)


class UnitJumpItem(Stretch):
    """A stretch whose values look as if they were multiplied, as when a unit changes."""

    factor: float
    lasts_to_end: bool

    @classmethod
    def of(cls, jump: UnitJump) -> Self:
        """As it was found."""
        stretch = _stretch(jump.first_timestamp_s, jump.last_timestamp_s)
        return cls(**stretch, factor=jump.factor, lasts_to_end=jump.is_at_end)


class QualityItem(BaseModel):
    """What is odd about the training data. It describes; a fit is made all the same."""

    points: Count
    interval_s: Annotated[float | None, Field(description="The median of the seconds between two points.")]
    is_regular: Annotated[bool, Field(description="Whether four fifths of the intervals are multiples of that.")]
    off_time_share: Annotated[Share, Field(description="Of the intervals that are none, by a tenth of it or more.")]
    bunched_points: Annotated[
        Count, Field(description="Points within a tenth of the interval after the one before: often sent twice.")
    ]
    gaps: GapsItem
    nature: Annotated[Literal["constant", "binary", "integers", "numbers"], Field(description="What the values are.")]
    longest_run_points: Annotated[Count, Field(description="The most equal values in a row.")]
    stuck: StuckStretches
    outliers: OutlierList
    unit_jumps: list[UnitJumpItem]

    @classmethod
    def of(cls, quality: Quality) -> Self:
        """As it was assessed."""
        return cls(
            points=quality.points,
            interval_s=quality.interval_s,
            is_regular=quality.is_regular,
            off_time_share=quality.off_time_share,
            bunched_points=quality.bunched_points,
            gaps=GapsItem.of(quality.gaps),
            nature=quality.nature,
            longest_run_points=quality.longest_run_points,
            stuck=StuckStretches.of(quality.stuck),
            outliers=OutlierList.of(quality.outliers),
            unit_jumps=[UnitJumpItem.of(jump) for jump in quality.unit_jumps],
        )


class SetAside(BaseModel):
    """Training data that the model was not fitted to, because it was anomalous beyond doubt."""

    count: Annotated[int, Field(ge=0, description="Stretches.")]
    first: Annotated[list[Stretch], Field(description=f"The first {_MOST_STRETCHES} of them.")]

    @classmethod
    def of(cls, stretches: FloatArray) -> Self:
        """Of first and last Unix seconds, shape (k, 2)."""
        first = [Stretch(**_stretch(*ends)) for ends in stretches[:_MOST_STRETCHES].tolist()]
        return cls(count=len(stretches), first=first)


class KindItem(BaseModel):
    """How much of one kind of anomaly was found, index-aligned with the sizes."""

    kind: AnomalyKind
    recall: Annotated[list[Share | None], Field(description="Share that was found; null where none was tried.")]
    tried: Annotated[list[int], Field(description="How many were injected.")]


class Detectability(BaseModel):
    """What a detector of this kind finds, fitted to the first four fifths, of anomalies injected into the last."""

    sizes: Annotated[
        list[float],
        Field(description="In standard deviations of the noise. A flatline and a missing season have none."),
    ]
    kinds: list[KindItem]
    points: Annotated[Count, Field(description="Of the last fifth.")]
    flagged_points: Annotated[Count, Field(description="Of these without any anomaly injected.")]

    @classmethod
    def of(cls, trial: Trial) -> Self:
        """As the trial has it."""
        kinds = [
            KindItem(kind=kind, recall=_shares(recall), tried=tried)
            for kind, recall, tried in zip(ANOMALY_KINDS, trial.recall, trial.tried.tolist(), strict=True)
        ]
        return cls(sizes=list(SIZES), kinds=kinds, points=trial.points, flagged_points=trial.flagged)


class ReportItem(BaseModel):
    """What was found in the training data, and what the model will find."""

    choice: Annotated[
        ChoiceItem | None, Field(description="null where the request named the detector or had the default.")
    ]
    period: Annotated[PeriodItem | None, Field(description="null where nothing comes back.")]
    context_points: Annotated[Count, Field(description="Points before a point that the model needs to judge it.")]
    false_alarm_rate: Annotated[Share, Field(description="Share of normal points that are flagged, by the budget.")]
    false_alarms_per_week: Annotated[
        float | None, Field(description="The same in a week of points at the usual interval.")
    ]
    quality: QualityItem
    set_aside: SetAside
    detectability: Annotated[
        Detectability | None,
        Field(
            description=f"null for fewer than {FEWEST_POINTS_TRIED} points. "
            f"Of more than {MOST_POINTS_TRIED:,}, the last so many are tried."
        ),
    ]

    @classmethod
    def of(cls, choice: Choice | None, report: Report) -> Self:
        """As the service makes it."""
        period = None
        if report.period_points is not None and report.period_s is not None:
            period = PeriodItem(points=report.period_points, seconds=report.period_s)
        trial = report.detectability
        return cls(
            choice=None if choice is None else ChoiceItem.of(choice),
            period=period,
            context_points=report.context_points,
            false_alarm_rate=report.false_alarm_rate,
            false_alarms_per_week=report.false_alarms_per_week,
            quality=QualityItem.of(report.quality),
            set_aside=SetAside.of(report.set_aside),
            detectability=None if trial is None else Detectability.of(trial),
        )


class VersionDetail(VersionItem):
    """One immutable version with its provenance and its report."""

    report: ReportItem | None
    no_report_because: Annotated[
        str | None, Field(description="Why there is no report: what is damaged or away; null where there is one.")
    ]

    @classmethod
    def reported(cls, version: Version, report: Report) -> Self:
        """With its report."""
        fields = VersionItem.of(version).model_dump()
        return cls(**fields, report=ReportItem.of(version.choice, report), no_report_because=None)

    @classmethod
    def unreported(cls, version: Version, reason: str) -> Self:
        """Without one."""
        return cls(**VersionItem.of(version).model_dump(), report=None, no_report_because=reason)


def _stretch(first_timestamp_s: float, last_timestamp_s: float) -> dict[str, str]:
    return {
        "first_timestamp": format_timestamp(first_timestamp_s),
        "last_timestamp": format_timestamp(last_timestamp_s),
    }


def _shares(recall: FloatArray) -> list[float | None]:
    return [None if math.isnan(share) else share for share in recall.tolist()]
