"""The README and the API reference: their curl lines run, their answers are true, their links lead somewhere.

A ```sh block with curl in it is run as it stands, with the address of a new service in place of localhost:8000. The
```json block that follows it holds its answers, one after the other; objects may leave fields out, and of VARYING
fields only the type is compared. In a ```http block each line must appear, in order; ... stands for anything.
"""

import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

import pytest

from app.cli.commands import cli
from app.config import Settings
from tests.servers import REPOSITORY, Tidemark

ADDRESS = re.compile(r"(localhost|127\.0\.0\.1):8000")
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
PAGE = re.compile(r"<(http://localhost:8000/[^>]*)>")
SETTING_ROW = re.compile(r"^\| `([A-Z_]+)` \| (?:`(.*?)`|(\w+)) \|", re.MULTILINE)
VARYING = {"created_at", "updated_at", "model_digest", "data_digest", "libraries", "avg", "p95"}
WITH_CURL = [REPOSITORY / "README.md", REPOSITORY / "docs" / "API.md"]
DOCUMENTS = sorted([*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").rglob("*.md")])

needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl on the PATH")


class Example(NamedTuple):
    """Commands, and what the document says that they answer."""

    commands: str
    language: str | None
    shown: str


def examples(document: Path) -> list[Example]:
    blocks: list[tuple[str | None, str]] = [(match[1], match[2]) for match in BLOCK.finditer(document.read_text())]
    found = []
    for (language, text), (next_language, next_text) in zip(blocks, [*blocks[1:], (None, "")], strict=True):
        if language == "sh" and "curl " in text:
            answer = next_language if next_language in {"json", "http"} else None
            found.append(Example(text, answer, next_text))
    return found


def name_of(document: Path) -> str:
    return document.relative_to(REPOSITORY).as_posix()


@needs_curl
@pytest.mark.parametrize("document", WITH_CURL, ids=name_of)
def test_every_curl_line_answers_what_the_document_shows(document: Path, serve: Callable[..., Tidemark]) -> None:
    address = serve().url.removeprefix("http://")
    found = examples(document)
    assert len(found) > 5
    for example in found:
        commands = ADDRESS.sub(address, example.commands).replace(".venv/bin/python", shlex.quote(sys.executable))
        done = subprocess.run(
            ["sh", "-ec", commands], cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, commands + done.stderr
        if example.language == "json":
            answers, shown = list(documents_in(done.stdout)), list(documents_in(example.shown))
            assert len(answers) == len(shown), f"{commands}\nanswers\n{done.stdout}"
            for index, (answer, promised) in enumerate(zip(answers, shown, strict=True)):
                assert differences(promised, answer, f"answer {index}") == [], f"{commands}\nanswers\n{done.stdout}"
        elif example.language == "http":
            assert missing_line(example.shown, done.stdout) is None, f"{commands}\nanswers\n{done.stdout}"


@pytest.mark.parametrize("document", [REPOSITORY / "README.md"], ids=name_of)
def test_every_page_that_the_readme_opens_is_served(document: Path, serve: Callable[..., Tidemark]) -> None:
    service = serve()
    points = {"timestamps": [1, 2, 3], "values": [1.0, 2.0, 3.0]}
    pages = PAGE.findall(document.read_text())
    assert len(pages) > 3
    for page in pages:
        path = page.removeprefix("http://localhost:8000")
        if "series_id=" in path:
            service.client.post(f"/fit/{path.partition('series_id=')[2]}", json=points).raise_for_status()
        answer = service.client.get(path, headers={"Accept": "text/html"})
        assert (answer.status_code, answer.headers["content-type"].partition(";")[0]) == (200, "text/html"), path


def test_the_table_of_settings_is_that_of_the_code() -> None:
    table = REPOSITORY.joinpath("README.md").read_text().partition("## Configuration")[2].partition("\n## ")[0]
    shown = {name: literal or {"none": None, "empty": ""}[word] for name, literal, word in SETTING_ROW.findall(table)}
    assert shown == defaults()
    assert list(shown) == list(defaults())


def test_every_command_is_in_the_table() -> None:
    table = REPOSITORY.joinpath("README.md").read_text().partition("## Command line")[2].partition("\n## ")[0]
    commands = {command.name or getattr(command.callback, "__name__", "") for command in cli.registered_commands}
    commands |= {group.name for group in cli.registered_groups}
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == commands


def test_every_make_command_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", REPOSITORY.joinpath("Makefile").read_text(), re.MULTILINE))
    for document in DOCUMENTS:
        shell = "\n".join(text for language, text in BLOCK.findall(document.read_text()) if language == "sh")
        used = re.findall(r"`make ([a-z-]+)", document.read_text()) + re.findall(
            r"^make ([a-z-]+)", shell, re.MULTILINE
        )
        assert set(used) <= targets, document


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_every_link_leads_to_a_file_and_a_heading(document: Path) -> None:
    dead = []
    for link in LINK.findall(BLOCK.sub("", document.read_text())):
        if "://" in link or link.startswith("mailto:"):
            continue
        path, _, anchor = unquote(link).partition("#")
        target = (document.parent / path).resolve() if path else document
        if not target.exists() or (anchor and anchor not in anchors(target)):
            dead.append(link)
    assert dead == []


def test_the_comparison_sees_every_difference() -> None:
    answer = {"a": 1, "b": [1, 2], "created_at": "now", "c": {"d": None}}
    assert differences({"b": [1, 2], "created_at": "then", "c": {}}, answer) == []
    for wrong in ({"a": 2}, {"b": [1]}, {"b": [1, 3]}, {"created_at": 1}, {"e": 1}, {"c": {"d": 0}}, {"a": True}, [1]):
        assert differences(wrong, answer) != []
    assert missing_line('etag: "..."\n{"a":...}', 'x: y\netag: "5"\n\n{"a":1}') is None
    assert missing_line("one\ntwo", "two\none") == "two"


def defaults() -> dict[str, str | None]:
    """Every setting as it is written in the environment, with its default."""
    found: dict[str, str | None] = {}
    for name, field in Settings.model_fields.items():
        value = field.default
        if hasattr(value, "get_secret_value"):
            value = value.get_secret_value()
        elif isinstance(value, Path):
            value = f"./{value}"
        found[name.upper()] = None if value is None else str(value)
    return found


def documents_in(text: str) -> Iterator[object]:
    """The JSON documents that stand one after the other in a text."""
    decoder, position = json.JSONDecoder(), 0
    while rest := text[position:].lstrip():
        document, length = decoder.raw_decode(rest)
        yield document
        position = len(text) - len(rest) + length


def differences(promised: object, answer: object, place: str = "") -> list[str]:
    """Where an answer is not what was promised."""
    if isinstance(promised, dict) and isinstance(answer, dict):
        found = [f"{place}: {key} is missing" for key in promised.keys() - answer.keys()]
        for key in promised.keys() & answer.keys():
            if key in VARYING:
                varies = type(promised[key]) is not type(answer[key])
                found += [f"{place}/{key}: another type"] if varies else []
            else:
                found += differences(promised[key], answer[key], f"{place}/{key}")
        return found
    if isinstance(promised, list) and isinstance(answer, list) and len(promised) == len(answer):
        pairs = enumerate(zip(promised, answer, strict=True))
        return [fault for i, (one, other) in pairs for fault in differences(one, other, f"{place}/{i}")]
    if isinstance(promised, float) and isinstance(answer, float):
        is_same = answer == pytest.approx(promised, rel=1e-9)
    else:
        is_same = type(promised) is type(answer) and promised == answer
    return [] if is_same else [f"{place}: {promised!r} is promised, {answer!r} came"]


def missing_line(shown: str, output: str) -> str | None:
    """The first line of `shown` that does not come, in its order, in `output`."""
    lines = iter(output.splitlines())
    for line in filter(None, map(str.strip, shown.splitlines())):
        pattern = re.compile(".*".join(map(re.escape, line.split("..."))))
        if not any(pattern.fullmatch(candidate.strip()) for candidate in lines):
            return line
    return None


def anchors(document: Path) -> set[str]:
    """The anchors that GitHub gives the headings of a document."""
    headings = re.findall(r"^#+ (.+)$", BLOCK.sub("", document.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", LINK.sub("", heading).lower()).replace(" ", "-") for heading in headings}
