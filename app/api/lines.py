"""Lines of NDJSON: each a request of its own, with an answer of its own."""

from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from typing import Generic, NamedTuple, TypeVar

import orjson

from app.api import answers, bodies, problems
from app.api.bodies import PredictBody
from app.api.callers import ANYONE, Caller
from app.api.parameters import refuse
from app.api.queries import PredictQuery, find_unknown
from app.api.streams import Line
from app.config import Settings
from app.detectors import DETECTOR_OF_MANY, choose_detector, default_detector
from app.detectors.base import Detector, DetectorParams
from app.errors import BodyTooLarge, Fault, InvalidInput, TidemarkError
from app.registry import ModelRegistry
from app.series import parse_series_id
from app.series_batch import SeriesBatch
from app.services.training import FitJob
from app.versions import LoadedModel, Selector, Version

_FIT_QUERY = ("detector", "params")
_OPTIONS = orjson.OPT_APPEND_NEWLINE | orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_UTC_Z

Pieces = AsyncIterator[bytes]
"""A body as it comes."""

Wanted = TypeVar("Wanted")


class Asked(NamedTuple, Generic[Wanted]):
    """What a line asks for."""

    line: int | None
    """None when it is no line, but a series of a table."""
    series_id: str | None
    """None when the line does not say."""
    wanted: Wanted | TidemarkError


class Prediction(NamedTuple):
    """What to judge, and by which version."""

    selector: Selector
    body: PredictBody


class FitDefaults(NamedTuple):
    """The detector of every series of a request, where a line names none itself."""

    fields: Mapping[str, object]
    detector: type[Detector]
    params: DetectorParams
    default: str
    """The detector of a line that has parameters and names none."""


def parse_defaults(query: Sequence[tuple[str, str]], default: str = DETECTOR_OF_MANY) -> FitDefaults:
    """The detector that a query names, or else `default`. Raises InvalidInput."""
    faults: list[Fault] = []
    find_unknown(query, _FIT_QUERY, faults)
    given = dict(query)
    times = Counter(name for name, _ in query)
    twice = [name for name in _FIT_QUERY if times[name] > 1]
    faults += [Fault(f"/{name}", "is given more than once: give one", "query") for name in twice]
    fields: dict[str, object] = {}
    try:
        fields |= {"params": orjson.loads(given["params"])} if "params" in given else {}
    except orjson.JSONDecodeError as error:
        faults.append(Fault("/params", f'is not valid JSON ({error.msg}): send an object like {{"k": 3}}', "query"))
    fields["detector"] = given.get("detector", default_detector(fields.get("params"), default))
    of_choice: list[Fault] = []
    chosen = choose_detector(fields.get("detector"), fields.get("params"), of_choice)
    faults += [fault._replace(location="query") for fault in of_choice]
    if faults or chosen is None:
        raise InvalidInput(faults)
    return FitDefaults(fields, *chosen, default)


def with_defaults(fields: Mapping[str, object], defaults: FitDefaults) -> Mapping[str, object]:
    """The fields of a fit, with the detector of the request when they name none."""
    if fields.keys().isdisjoint(_FIT_QUERY):
        return {**fields, **defaults.fields}
    if fields.get("detector") is not None:
        return fields
    return {**fields, "detector": default_detector(fields.get("params"), defaults.default)}


def read_fits(
    lines: Sequence[Line], settings: Settings, defaults: FitDefaults, caller: Caller = ANYONE
) -> list[Asked[FitJob]]:
    """The fits that lines ask for, each or what is wrong with it."""

    def parse(series_id: str, fields: Mapping[str, object], faults: list[Fault]) -> FitJob:
        job = FitJob(series_id, *bodies.parse_fit_fields(with_defaults(fields, defaults), settings, faults))
        caller.charge_points(len(job.history))
        return job

    return [_read(line, settings, caller, parse) for line in lines]


def read_table(
    batch: SeriesBatch, settings: Settings, defaults: FitDefaults, caller: Caller = ANYONE
) -> list[Asked[FitJob]]:
    """A fit of each series of a table, or what is wrong with it."""
    all_faults = batch.faults(settings.min_training_data_points, settings.max_points)
    asked = []
    for (raw, history), faults in zip(batch, all_faults, strict=True):
        series_id = parse_series_id(raw, faults, "body")
        wanted: FitJob | TidemarkError = FitJob(series_id, history, defaults.detector, defaults.params)
        try:
            caller.check_series(series_id)
            refuse(faults)
            caller.charge_points(len(history))
        except TidemarkError as error:
            wanted = error
        asked.append(Asked(None, series_id or None, wanted))
    return asked


def fit_answers(asked: Sequence[Asked[FitJob]], outcomes: Sequence[Version | TidemarkError]) -> bytes:
    """One line for each: the fields of a `FitAnswer` with its status, or a problem."""
    return b"".join(
        _problem_line(ask, outcome)
        if isinstance(outcome, TidemarkError)
        else orjson.dumps({"status": 200} | answers.fit_fields(outcome), option=_OPTIONS)
        for ask, outcome in zip(asked, outcomes, strict=True)
    )


def detected(line: Line, settings: Settings, defaults: FitDefaults, caller: Caller) -> bytes:
    """The answer to a line that asks for detection: the fields of a `Detection` with its status, or a problem."""

    def parse(series_id: str, fields: Mapping[str, object], faults: list[Fault]) -> FitJob:
        parsed = bodies.parse_fit_fields(with_defaults(fields, defaults), settings, faults, varies=False)
        caller.charge_points(len(parsed.history))
        return FitJob(series_id, *parsed)

    ask = _read(line, settings, caller, parse)
    if isinstance(ask.wanted, TidemarkError):
        return _problem_line(ask, ask.wanted)
    _, history, detector, params = ask.wanted
    fields = answers.detection_fields(detector.name, detector.detect(history, params))
    return orjson.dumps({"series_id": ask.series_id, "status": 200} | fields, option=_OPTIONS)


def judging(
    registry: ModelRegistry, settings: Settings, query: PredictQuery, caller: Caller
) -> Callable[[Sequence[Line]], bytes]:
    """Turns lines into answers: the fields of a `PointAnswer` or `PointsAnswer` with its status, or a problem.

    A line that names no version means that of the query.
    """

    def parse(_: str, fields: Mapping[str, object], faults: list[Fault]) -> Prediction:
        selector = bodies.parse_version_field(fields, query.selector, faults)
        body = bodies.parse_points_fields(fields, settings.max_points, faults)
        caller.charge_points(body.points_count)
        return Prediction(selector, body)

    def judge(lines: Sequence[Line]) -> bytes:
        asked = [_read(line, settings, caller, parse) for line in lines]
        models = iter(registry.load_many(list(_models_of(asked))))
        return b"".join([_judged(ask, models, query) for ask in asked])

    return judge


def _models_of(asked: Sequence[Asked[Prediction]]) -> Iterator[tuple[str, Selector]]:
    for ask in asked:
        if isinstance(ask.wanted, Prediction):
            assert ask.series_id is not None
            yield ask.series_id, ask.wanted.selector


def _judged(ask: Asked[Prediction], models: Iterator[LoadedModel | TidemarkError], query: PredictQuery) -> bytes:
    if isinstance(ask.wanted, TidemarkError):
        return _problem_line(ask, ask.wanted)
    model = next(models)
    if isinstance(model, TidemarkError):
        return _problem_line(ask, model)
    try:
        judged = answers.judged_fields(model, ask.wanted.body, query)
    except InvalidInput as error:
        return _problem_line(ask, error)
    fields = {"series_id": ask.series_id, "status": 200} | judged
    return orjson.dumps(fields, option=_OPTIONS)


def _problem_line(ask: Asked[Wanted], error: TidemarkError) -> bytes:
    series_id = None if ask.series_id is None else problems.clean(ask.series_id)
    line = {} if ask.line is None else {"line": ask.line}
    return orjson.dumps({"series_id": series_id} | line | problems.error_fields(error), option=_OPTIONS)


def _read(
    line: Line, settings: Settings, caller: Caller, parse: Callable[[str, Mapping[str, object], list[Fault]], Wanted]
) -> Asked[Wanted]:
    if line.data is None:
        error = BodyTooLarge(f"A line may have {settings.max_body_mb} MB (MAX_BODY_MB): send the series in parts.")
        return Asked(line.number, None, error)
    faults: list[Fault] = []
    series_id = None
    try:
        with bodies.in_turn(line.data):
            fields = bodies.parse_object(line.data, settings.max_points, faults)
            series_id = bodies.parse_series_field(fields, faults)
            caller.check_series(series_id)
            return Asked(line.number, series_id, parse(series_id, fields, faults))
    except TidemarkError as error:
        return Asked(line.number, series_id or None, error)
