"""Where figures come from: the code, the commit and the machine."""

import hashlib
import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

import app.detectors
from app import __version__

ROOT = Path(__file__).parents[2]
_MEASURING = ("datasets", "false_alarms", "metrics", "peers", "regimes", "runs")


def code_version() -> str:
    """A digest of the code that the figures depend on: results of one version can be put together."""
    measuring = [Path(__file__).with_name(f"{name}.py") for name in _MEASURING]
    paths = [*Path(app.detectors.__file__).parent.glob("*.py"), *measuring]
    return hashlib.sha256(b"".join(path.read_bytes() for path in sorted(paths))).hexdigest()[:12]


def provenance(command: str) -> dict[str, str]:
    """What a report says of how it was made, and `code`, the version of the code."""
    return {
        "command": command,
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "tidemark": _git_version(),
        "machine": _machine(),
        "code": code_version(),
    }


def told(made: dict[str, str]) -> str:
    """The same as the first lines of a report."""
    return (
        f"Made by `{made['command']}` on {made['date']}.\n"
        f"Tidemark {made['tidemark']}, code {made['code']}.\n{made['machine']}."
    )


def _git_version() -> str:
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty= with changes"]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    return f"{__version__}, commit {answer.stdout.strip()}" if answer.returncode == 0 else __version__


def _machine() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    processor = models[0] if models else platform.machine()
    python = f"Python {platform.python_version()}, NumPy {np.__version__}"
    return f"{processor}, {os.cpu_count()} cores, {platform.system()}, {python}"
