"""What the documents promise to be complete about: routes, errors, settings, modules, decisions, diagrams."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

import app.errors
from app import __version__
from app.config import Settings
from app.detectors import DETECTORS, find_detector
from app.errors import ConfigurationError, MissingDependency, SourceUnreadable, TidemarkError, Unavailable
from tests.servers import REPOSITORY

DOCS = REPOSITORY / "docs"
DIAGRAMS = sorted(DOCS.glob("*.mmd"))
NEVER_ANSWERED = {TidemarkError, Unavailable, ConfigurationError, MissingDependency, SourceUnreadable}
"""Roots of the tree, and what ends the start of the service or a command."""
UNLISTED = {("GET", "/")}
"""Routes that the OpenAPI document leaves out and the API reference has."""


def documentation() -> str:
    return "\n".join(path.read_text() for path in [REPOSITORY / "README.md", *sorted(DOCS.rglob("*.md"))])


def test_every_route_has_a_section_and_every_section_a_route(client: httpx.Client) -> None:
    paths = json.loads(client.get("/openapi.json").text)["paths"]
    served = {(method.upper(), path) for path, operations in paths.items() for method in operations}
    text = DOCS.joinpath("API.md").read_text()
    methods = "GET|POST|PUT|DELETE"
    assert set(re.findall(rf"^### ({methods}) (\S+)$", text, re.MULTILINE)) == served | UNLISTED
    assert set(re.findall(rf"^\| \[`({methods}) (\S+)`\]", text, re.MULTILINE)) == served | UNLISTED


def test_every_error_of_a_section_is_in_the_openapi_document(client: httpx.Client) -> None:
    paths = json.loads(client.get("/openapi.json").text)["paths"]
    text = DOCS.joinpath("API.md").read_text()
    sections = re.findall(r"^### (\w+) (\S+)$(.*?)(?=^### |\Z)", text, re.MULTILINE | re.DOTALL)
    unknown = [
        f"{method} {path}: {status}"
        for method, path, section in sections
        for errors in re.findall(r"Errors: (.*?)(?=\n\n|\Z)", section, re.DOTALL)
        for status in re.findall(r"\b[45]\d\d\b", errors)
        if (method, path) not in UNLISTED and status not in paths[path][method.lower()]["responses"]
    ]
    assert unknown == []


def test_every_parameter_of_a_route_is_in_the_reference(client: httpx.Client) -> None:
    paths = json.loads(client.get("/openapi.json").text)["paths"]
    text = DOCS.joinpath("API.md").read_text().lower()
    names = {
        parameter["name"]
        for operations in paths.values()
        for operation in operations.values()
        for parameter in operation.get("parameters", ())
    }
    assert {"series_id", "version"} < names
    assert [name for name in sorted(names) if name.lower() not in text] == []


@pytest.mark.parametrize("error", sorted(TidemarkError.__subclasses__(), key=lambda error: error.__name__))
def test_every_error_is_in_the_table_with_its_status(error: type[TidemarkError]) -> None:
    text = DOCS.joinpath("API.md").read_text()
    for kind, status in kinds_of(error):
        assert f"| `/problems/{kind}` | {status} |" in text


def test_no_error_is_in_the_table_that_does_not_exist() -> None:
    listed = re.findall(r"^\| `/problems/([a-z-]+)` \|", DOCS.joinpath("API.md").read_text(), re.MULTILINE)
    of_the_framework = {"not-found", "method-not-allowed", "unexpected"}
    assert set(listed) - of_the_framework == {kind for kind, _ in kinds_of(TidemarkError)}


def test_the_tree_of_errors_is_drawn_whole() -> None:
    assert app.errors.__doc__ is not None
    for error in [TidemarkError, *descendants(TidemarkError)]:
        assert re.search(rf"\b{error.__name__}\b", app.errors.__doc__), error


def test_every_setting_is_documented() -> None:
    text = documentation()
    assert [name for name in Settings.model_fields if f"`{name.upper()}`" not in text] == []


def test_every_module_is_in_the_map() -> None:
    """By its name, or by the folder that it is in."""
    map_ = DOCS.joinpath("ARCHITECTURE.md").read_text().partition("## Modules")[2]
    modules = [path.relative_to(REPOSITORY) for path in (REPOSITORY / "app").rglob("*.py") if path.stem != "__main__"]
    missing = [
        path.as_posix()
        for path in modules
        if path.name != "__init__.py" and path.name not in map_ and f"`{path.parent.as_posix()}/`" not in map_
    ]
    assert missing == []


def test_no_document_names_a_module_that_does_not_exist() -> None:
    named = set(re.findall(r"`((?:app|tests|benchmark)/[\w/]+\.\w+)`", documentation()))
    assert "app/registry.py" in named
    assert [path for path in sorted(named) if not (REPOSITORY / path).exists()] == []


@pytest.mark.parametrize("diagram", DIAGRAMS, ids=lambda path: path.stem)
def test_every_diagram_is_shown_and_linked(diagram: Path) -> None:
    text = DOCS.joinpath("ARCHITECTURE.md").read_text()
    assert f"```mermaid\n{diagram.read_text()}```" in text, "docs/ARCHITECTURE.md shows another diagram than the file"
    assert f"]({diagram.name})" in text


def test_every_decision_is_listed() -> None:
    listed = re.findall(r"^\| \[(\d{4})\]\((\S+\.md)\)", DOCS.joinpath("decisions/README.md").read_text(), re.MULTILINE)
    files = sorted(path.name for path in DOCS.joinpath("decisions").glob("0*.md"))
    assert [name for _, name in listed] == files
    for number, name in listed:
        text = DOCS.joinpath("decisions", name).read_text()
        assert name.startswith(number)
        assert text.startswith(f"# {int(number)}. ")
        assert re.findall(r"^## (\w+)", text, re.MULTILINE)[0] == "Context"
        assert re.findall(r"^## (\w+)", text, re.MULTILINE)[-1] == "Consequences"


def test_every_detector_is_in_the_table_with_the_line_that_it_has_in_the_code() -> None:
    section = DOCS.joinpath("API.md").read_text().partition("\n## Detectors\n")[2].partition("\n- ")[0]
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", section, re.MULTILINE))
    assert list(rows) == list(DETECTORS)
    lines = {name: (find_detector(name).__doc__ or "").partition("\n")[0] for name in DETECTORS}
    assert [name for name, line in lines.items() if rows[name] != line] == ["auto"], (
        "which says what it is the default of"
    )


def test_the_changelog_knows_this_release() -> None:
    assert f"\n## [{__version__}] - " in REPOSITORY.joinpath("CHANGELOG.md").read_text()


def descendants(error: type[TidemarkError]) -> Iterator[type[TidemarkError]]:
    for child in error.__subclasses__():
        yield child
        yield from descendants(child)


def kinds_of(error: type[TidemarkError]) -> list[tuple[str, int]]:
    """Kind and status of the error and of all below it, as an answer shows them."""
    answered = {error, *descendants(error)} - NEVER_ANSWERED
    return sorted((one.__new__(one).kind, one.status) for one in answered)
