"""The family of detectors: the table of names, and how a user's choice becomes one."""

from collections.abc import Mapping
from importlib import import_module

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from app.detectors.base import Detector, DetectorParams
from app.errors import Fault, json_pointer
from app.series import MAX_FAULTS

DETECTORS: Mapping[str, str] = {
    "auto": "app.detectors.auto:Auto",
    "mean_std": "app.detectors.mean_std:MeanStd",
    "subsequence_knn": "app.detectors.subsequence_knn:SubsequenceKnn",
    "robust_z": "app.detectors.robust_z:RobustZ",
    "ewma": "app.detectors.ewma:Ewma",
    "seasonal": "app.detectors.seasonal:Seasonal",
    "autoregressive": "app.detectors.autoregressive:Autoregressive",
    "changepoint": "app.detectors.changepoint:Changepoint",
    "spectral_residual": "app.detectors.spectral_residual:SpectralResidual",
    "sub_pca": "app.detectors.sub_pca:SubPca",
    "kmeans_windows": "app.detectors.kmeans_windows:KMeansWindows",
    "isolation_forest": "app.detectors.isolation_forest:IsolationForest",
    "lof": "app.detectors.lof:Lof",
    "ensemble": "app.detectors.ensemble:Ensemble",
    "one_class_svm": "app.detectors.one_class_svm:OneClassSvm",
}
"""Where each detector lives; imported when it is first used."""

DEFAULT_DETECTOR = "auto"
"""Of a fit."""
DETECTOR_OF_MANY = "mean_std"
"""Of a bulk fit: a choice takes about a second a series, which is days for a million of them."""
DETECTOR_IN_VIEW = "auto"
"""Of a detection with all points in view."""


_OF_THE_BASELINE = "k"


def find_detector(name: str) -> type[Detector]:
    """The detector of this name. Raises KeyError when there is none."""
    module, _, attribute = DETECTORS[name].partition(":")
    detector: type[Detector] = getattr(import_module(module), attribute)
    return detector


def default_detector(params: object, default: str = DEFAULT_DETECTOR) -> str:
    """The detector that is meant where none is named: `default`, but for parameters that are those of the baseline."""
    return "mean_std" if isinstance(params, dict) and _OF_THE_BASELINE in params else default


def choose_detector(name: object, params: object, faults: list[Fault]) -> tuple[type[Detector], DetectorParams] | None:
    """The detector and its parameters as a request names them; None stands for the default of each.

    Parameters with a `k` are those of the baseline, whose name may be left out.

    Appends to `faults` and gives None where there is no such detector or a parameter is out of range.
    """
    if name is None:
        name = default_detector(params)
    if not isinstance(name, str) or name not in DETECTORS:
        faults.append(Fault("/detector", f"must be one of {', '.join(DETECTORS)}"))
        return None
    detector = find_detector(name)
    known = ", ".join(_own_first(detector.Params))
    if isinstance(params, dict) and len(params) > MAX_FAULTS:
        faults.append(Fault("/params", f"has {len(params)} names; the parameters of this detector are: {known}"))
        return None
    try:
        return detector, detector.Params.model_validate({} if params is None else params)
    except ValidationError as error:
        faults.extend(_params_fault(fault, known) for fault in error.errors(include_url=False))
        return None


def _own_first(params: type[DetectorParams]) -> list[str]:
    """The names of the parameters, those that are the detector's own before those that all have."""
    from app.detectors.judging import CalibratedParams  # at the first fault, as the detectors themselves

    return sorted(params.model_fields, key=lambda name: name in CalibratedParams.model_fields)


def _params_fault(fault: ErrorDetails, known: str) -> Fault:
    advice = f"{fault['msg']}; the parameters of this detector are: {known}"
    return Fault(json_pointer(["params", *fault["loc"]]), advice)
