"""The shape of the house: imports point down only, and each library stays in its room."""

import ast
import subprocess
import sys
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import app
from app.detectors import DETECTORS

ROOT = Path(app.__file__).parent
LAYERS = [
    "errors series config logs background batching",
    "api_keys series_batch tables capacity",
    (
        "detectors artifacts sources sinks db telemetry simulation injection quality unit_jumps preconditions "
        "training_data watchdog"
    ),
    (
        "versions alarms migrations rows catalog model_cache model_lookup model_loader packs follower registry "
        "key_catalog keyring rate_limits inventory verification warm_up"
    ),
    "services",
    "bootstrap",
    "api dashboard",
    "main",
    "cli",
    "__main__",
]
LEVEL = {part: level for level, parts in enumerate(LAYERS) for part in parts.split()}
FAMILIES = ("detectors", "artifacts", "sources", "sinks")
ROOMS = {
    "sqlalchemy": ("db", "rows", "catalog", "key_catalog", "inventory", "model_lookup", "migrations"),
    "psycopg2": ("db", "watchdog"),
    "alembic": ("migrations",),
    "fastapi": ("main", "api", "dashboard"),
    "starlette": ("main", "api", "dashboard"),
    "uvicorn": ("cli",),
    "typer": ("cli",),
    "redis": ("telemetry", "rate_limits"),
    "prometheus_client": ("telemetry",),
    "obstore": ("artifacts.object_store",),
    "safetensors": ("detectors.codec",),
    "numba": ("detectors",),
    "scipy": ("detectors",),
    "sklearn": ("detectors",),
    "pydantic_settings": ("config",),
}
DETECTOR_MODULES = {place.partition(":")[0].removeprefix("app.") for place in DETECTORS.values()}
CHOICES = {"detectors.auto", "detectors.ensemble"}
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(ROOT.rglob("*.py"))
}
OURS = [module for module in MODULES if module != "__init__"]


@cache
def imports(module: str) -> frozenset[str]:
    """Everything that a module imports, anywhere in it: `x.y` for `from x import y`, which may be a module."""
    found = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"app.{module} has a relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(found)


def own_imports(module: str) -> set[str]:
    """The modules of ours that it imports."""
    names = {name.removeprefix("app.") for name in imports(module) if name.startswith("app.")}
    found = {name if name in MODULES else name.rpartition(".")[0] for name in names}
    return {name for name in found if name in OURS}


def part(module: str) -> str:
    return module.partition(".")[0]


@pytest.mark.parametrize("module", OURS)
def test_imports_point_down_only(module: str) -> None:
    assert part(module) in LEVEL, "a new part of the house: give it its place in LAYERS"
    upwards = {name for name in own_imports(module) if LEVEL[part(name)] > LEVEL[part(module)]}
    assert not upwards


def test_there_are_no_cycles() -> None:
    # A package and its modules are one another's neighbours, not a cycle: `detectors` names its members in a table.
    TopologicalSorter({module: own_imports(module) - {part(module)} for module in OURS}).prepare()


@pytest.mark.parametrize("module", [m for m in OURS if part(m) in FAMILIES and m.count(".") == 1])
def test_a_member_of_a_family_imports_its_contract_and_no_other_member(module: str) -> None:
    family = part(module)
    allowed = {"errors", "series", "series_batch", "tables", f"{family}.base"}
    if family == "detectors":
        if module not in DETECTOR_MODULES or module in CHOICES:
            return  # a part of the contract, or made of members
        allowed |= {name for name in OURS if part(name) == family} - DETECTOR_MODULES - {family}
    assert own_imports(module) <= allowed


@pytest.mark.parametrize("library", ROOMS)
def test_a_library_stays_in_its_room(library: str) -> None:
    users = {module for module in OURS if any(name.partition(".")[0] == library for name in imports(module))}
    assert users, f"nothing uses {library}"
    assert {m for m in users if not any(m == room or m.startswith(f"{room}.") for room in ROOMS[library])} == set()


def test_a_service_of_the_baseline_never_imports_the_heavy_libraries(tmp_path: Path) -> None:
    script = """
import sys
from app.bootstrap import build
from app.config import Settings
from app.detectors.mean_std import MeanStd, MeanStdParams
from app.main import create_app
from app.migrations import migrate
from app.simulation import simulate_sensor

services = build(Settings())
create_app(services).openapi()
migrate(services.database)
series = simulate_sensor(100).series
services.training.fit("s", series, MeanStd, MeanStdParams())
services.prediction.predict("s", 1, series)
print(sorted({"numba", "scipy", "sklearn"} & set(sys.modules)))
"""
    environment = {"DATA_DIR": str(tmp_path), "PATH": "/usr/bin:/bin"}
    run = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT.parent, env=environment, capture_output=True, text=True, check=False
    )
    assert run.stdout.strip() == "[]", run.stderr


@pytest.mark.parametrize("module", OURS)
def test_only_config_reads_the_environment(module: str) -> None:
    tree = ast.parse(MODULES[module].read_text())
    attributes = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    read = {"environ", "getenv", "environb"} & (attributes | {name.rpartition(".")[2] for name in imports(module)})
    assert not read or module == "config"


@pytest.mark.parametrize("folder", ["app", "alembic", "tests", "benchmark"])
def test_no_file_has_more_than_500_lines(folder: str) -> None:
    paths = (ROOT.parent / folder).rglob("*.py")
    assert {path.name for path in paths if len(path.read_text().splitlines()) > 500} == set()
