"""The stress notebook, executed against a really running service with a small load."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.servers import REPOSITORY, Tidemark


def test_the_stress_notebook_runs_without_a_failed_request(
    tidemark: Tidemark, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = {"STRESS_SERIES": "5", "STRESS_POINTS": "50", "STRESS_PREDICTIONS": "100", "STRESS_CLIENTS": "1,4"}
    for name, value in {"BASE_URL": tidemark.url, **load}.items():
        monkeypatch.setenv(name, value)
    notebook = nbformat.read(REPOSITORY / "benchmark" / "benchmark_stress.ipynb", as_version=4)
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": tmp_path}}).execute()
    verdict = notebook.cells[-1].outputs[0].text
    assert verdict == "111 requests, none failed.\n"
    pictures = [
        output for cell in notebook.cells for output in cell.get("outputs", ()) if "image/png" in output.get("data", ())
    ]
    assert len(pictures) == 2
