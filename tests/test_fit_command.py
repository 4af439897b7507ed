"""`python -m app fit`: files of any form become versions, and what is refused is said with its place."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from app.bootstrap import Services
from app.db import Database
from app.migrations import migrate
from app.versions import LATEST
from tests.servers import REPOSITORY, Tidemark, run_tidemark
from tests.test_cli import fails_with

NOON = 1_705_000_000
BuildServices = Callable[..., Services]
Ended = subprocess.CompletedProcess[str]
WAVE = [10.0, 10.5, 9.5, 10.0]


def fit(folder: Path, *arguments: object, **settings: str) -> Ended:
    return run_tidemark(folder, "fit", *map(str, arguments), settings=settings)


def long_csv(folder: Path, names: Sequence[str], name: str = "long.csv", values: Sequence[float] = WAVE) -> Path:
    path = folder / name
    rows = [f"{series},{NOON + n},{value}\n" for n, value in enumerate(values) for series in names]
    path.write_text("series_id,timestamp,value\n" + "".join(rows))
    return path


def ndjson(folder: Path, lines: Sequence[object], name: str = "fleet.ndjson") -> Path:
    path = folder / name
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return path


def line(series_id: str, values: Sequence[float] = WAVE, **fields: object) -> dict[str, object]:
    return {"series_id": series_id, "timestamps": list(range(1, len(values) + 1)), "values": list(values)} | fields


def latest(services: Services) -> dict[str, int]:
    """The latest version of each series."""
    listed = services.registry.catalog.list_series(100_000, None, None)
    return {series.series_id: series.latest.version for series in listed}


@pytest.fixture
def embedded(build_services: BuildServices, tmp_path: Path) -> Callable[[], Services]:
    """The service on the embedded database that the command leaves behind."""
    return lambda: build_services(database_url=f"sqlite:///{tmp_path / 'data/tidemark.db'}")


def test_files_of_every_form_are_fitted_and_a_running_service_sees_it_by_itself(
    tmp_path: Path, serve: Callable[..., Tidemark], embedded: Callable[[], Services]
) -> None:
    wide = tmp_path / "wide.csv"
    wide.write_text("time,cpu,memory,host\n" + "".join(f"{NOON + n},{n % 3},{n % 2},web\n" for n in range(6)))
    single = tmp_path / "lonely.csv"
    single.write_text("ds,y\n" + "".join(f"2024-01-1{n}T00:00:00Z,{n % 3}\n" for n in range(5)))
    table = tmp_path / "table.parquet"
    columns = {"sensor": ["p", "q"] * 4, "at": np.repeat(np.arange(NOON, NOON + 4), 2), "watts": np.arange(8.0) % 5}
    pq.write_table(pa.table(columns), table)
    lines = ndjson(tmp_path, [line("n1"), "", line("n2", params={"k": 5.0}), line("a")])
    long = long_csv(tmp_path, ["a", "b"])

    first = fit(
        tmp_path, long, wide, single, lines, "--params", '{"k": 4.0}', "--workers", 2
    )  # the first to need the database
    assert first.returncode == 0, first.stderr
    assert "8 series of 37 points fitted in " in first.stdout
    assert "refused" not in first.stdout
    assert "host" in first.stderr
    assert "left out" in first.stderr
    expected = {"a": 2, "b": 1, "cpu": 1, "memory": 1, "lonely": 1, "n1": 1, "n2": 1}
    services = embedded()
    assert latest(services) == expected
    k = {name: services.registry.catalog.get_version(name, LATEST).params["k"] for name in expected}
    assert k == dict.fromkeys(expected, 4.0) | {"n2": 5.0}

    server = serve()
    judged = server.client.post("/predict/a", json={"timestamp": NOON, "value": 10.0}).json()
    assert (judged["model_version"], judged["expected"]) == ("2", 10.0)
    named = ("--series-column", "sensor", "--time-column", "at", "--value-column", "watts")
    table = table.rename(tmp_path / "table.pq")
    assert server.client.post("/predict/p", json={"timestamp": NOON, "value": 10.0}).status_code == 404
    assert "2 series of 8 points" in fit(tmp_path, table, *named, "--detector", "mean_std").stdout
    deadline = time.monotonic() + 2
    while server.client.post("/predict/p", json={"timestamp": NOON, "value": 10.0}).status_code != 200:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert latest(services) == expected | {"p": 1, "q": 1}
    for number in (1, 2):
        version = services.registry.catalog.get_version("a", number)
        assert services.registry.read_training_data(version).values.tolist() == WAVE


def test_series_that_are_refused_are_named_with_file_and_line_and_the_others_are_fitted(
    tmp_path: Path, embedded: Callable[[], Services]
) -> None:
    bad_name = {**line("x"), "series_id": "a..b"}
    lines: list[object] = [line("good"), "", "no JSON", bad_name, line("level", [1, 1, 1, 1]), line("short", [1])]
    fleet = ndjson(tmp_path, [*lines, line("k", params={"k": -1}), {"series_id": "good"}, line("last")])
    twice = tmp_path / "twice.csv"
    twice.write_text(f"series_id,timestamp,value\nt,{NOON},1\nt,{NOON},2\nt,{NOON + 1},3\nc,1,1\nc,2,2\nc,3,3\n")
    many = long_csv(tmp_path, [f"many{n}" for n in range(20)], "many.csv", [7.0] * 4)
    ended = fit(tmp_path, fleet, twice, many)
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr
    assert "3 series of 11 points fitted" in ended.stdout
    assert "27 refused" in ended.stdout
    for part in (
        f"{fleet}:3: a series is refused: is not valid JSON",
        f"{fleet}:4: a..b is refused: /series_id must be",
        f"{fleet}:5: level is refused: /values all 4 values equal 1",
        f"{fleet}:6: short is refused: /values has 1 points",
        f"{fleet}:7: k is refused: /params/k",
        f"{fleet}:8: good is refused: /timestamps must be a list",
        f"{twice}: t is refused: /timestamp 1 times come more than once",
        f"{many}: many0 is refused: /value all 4 values equal 7",
    ):
        assert part in ended.stderr
    assert ended.stderr.count(" is refused: ") == 10
    assert latest(embedded()) == {"c": 1, "good": 1, "last": 1}


def test_a_file_that_cannot_be_read_is_said_before_anything_is_fitted(tmp_path: Path) -> None:
    good = long_csv(tmp_path, ["a"])
    unknown, damaged = tmp_path / "table.xlsx", tmp_path / "table.parquet"
    unknown.touch()
    damaged.write_bytes(b"PAR1 no Parquet")

    def refusal(path: Path) -> Ended:
        return fit(tmp_path, good, path)

    with ThreadPoolExecutor() as threads:
        endings = list(threads.map(refusal, [unknown, damaged, tmp_path / "missing.csv"]))
    for ended, said in zip(endings, ("table.xlsx", "table.parquet", "missing.csv"), strict=True):
        assert ended.returncode == 1
        fails_with(ended, said)
        assert ended.stdout == ""
    assert not (tmp_path / "data").exists()


def test_what_is_wrong_with_an_option_is_said_in_one_line(tmp_path: Path) -> None:
    path = long_csv(tmp_path, ["a"])
    stub = tmp_path / "stub"
    stub.mkdir()
    (stub / "distributed.py").write_text("raise ModuleNotFoundError('No module', name='distributed')")
    elsewhere = {"DATABASE_URL": "postgresql://localhost:1/none"}
    without = elsewhere | {"PYTHONPATH": f"{stub}:{REPOSITORY}"}
    cases: list[tuple[list[str], dict[str, str], list[str]]] = [
        (["--detector", "nonsense", "--params", "{"], {}, ["--detector", "mean_std", "--params is not valid JSON"]),
        (["--executor", "ray://localhost:1"], elsewhere, ["ray://localhost:1", "dask://host:port"]),
        (["--executor", "dask://localhost:1"], {}, ["DATABASE_URL"]),
        (["--executor", "dask://localhost:1"], without, ["distributed", "requirements-cluster.txt"]),
    ]

    def ended(case: tuple[list[str], dict[str, str], list[str]]) -> Ended:
        return fit(tmp_path, path, *case[0], **case[1])

    with ThreadPoolExecutor(2) as threads:
        for end, (_, _, parts) in zip(threads.map(ended, cases), cases, strict=True):
            fails_with(end, *parts)
            assert "series of" not in end.stdout or "0 series of 0 points" in end.stdout


# ---- a cluster -----------------------------------------------------------------------------------------------

CLUSTER = """
import sys
from distributed import LocalCluster
if __name__ == "__main__":
    cluster = LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, worker_dashboard_address=None
    )
    print(cluster.scheduler_address, flush=True)
    sys.stdin.read()
    cluster.close()
"""


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[str]:
    """A Dask cluster of two processes: host and port of its scheduler."""
    script = tmp_path / "cluster.py"
    script.write_text(CLUSTER)
    names = ("PATH", "HOME", "TMPDIR", "LANG")
    environment = {name: os.environ[name] for name in names if name in os.environ} | {"PYTHONPATH": str(REPOSITORY)}
    with (tmp_path / "cluster.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, str(script)],
            cwd=tmp_path, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
        )  # fmt: skip
    assert process.stdout is not None
    yield process.stdout.readline().strip().removeprefix("tcp://")
    process.communicate(timeout=15)


def test_a_cluster_fits_into_the_same_registry(
    tmp_path: Path, cluster: str, new_postgres_url: str, build_services: BuildServices
) -> None:
    database = Database(new_postgres_url, timeout_s=10)
    migrate(database)
    database.close()
    fleet = ndjson(tmp_path, [line(f"s{n}", [n, n + 1.0, n]) for n in range(500)] + ["no JSON"])
    long = long_csv(tmp_path, ["s0", "other"])
    ended = fit(tmp_path, fleet, long, "--executor", f"dask://{cluster}", DATABASE_URL=new_postgres_url)
    assert ended.returncode == 1, ended.stderr
    assert "Traceback" not in ended.stderr, ended.stderr
    assert "502 series of 1,508 points fitted" in ended.stdout
    assert f"{fleet}:501: a series is refused" in ended.stderr
    services = build_services(database_url=new_postgres_url)
    assert latest(services) == {f"s{n}": 1 for n in range(1, 500)} | {"s0": 2, "other": 1}
    version, verdict = services.prediction.predict_one("s7", LATEST, 1.0, 0.0)
    assert (version, round(verdict.expected, 6)) == (1, round(22 / 3, 6))


# ---- Ctrl+C --------------------------------------------------------------------------------------------------

_MORE_THAN_ARE_FITTED = 80_000
"""Before the signal comes: twenty batches, of which the first is looked for."""


@pytest.mark.parametrize("workers", [1, 2])
def test_ctrl_c_ends_it_with_a_summary_of_what_is_durable(
    tmp_path: Path, embedded: Callable[[], Services], workers: int
) -> None:
    services = embedded()
    migrate(services.database)
    numbers = ", ".join(map(str, range(40)))
    path = tmp_path / "fleet.ndjson"
    with path.open("w") as file:
        for n in range(_MORE_THAN_ARE_FITTED):
            file.write(f'{{"series_id": "s{n}", "timestamps": [{numbers}], "values": [{numbers}]}}\n')
    environment = {"PATH": os.environ["PATH"], "DATA_DIR": str(tmp_path / "data"), "PYTHONPATH": str(REPOSITORY)}
    process = subprocess.Popen(
        [sys.executable, "-m", "app", "fit", str(path), "--workers", str(workers)],
        cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    catalog = services.registry.catalog
    deadline = time.monotonic() + 20
    while not catalog.count_series():
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    said, complained = process.communicate(timeout=20)
    assert process.returncode != 0
    assert " series of " in said, complained
    counted = int(said.split(" series of ")[0].replace(",", ""))
    durable = catalog.count_series()
    assert counted <= durable < _MORE_THAN_ARE_FITTED
    assert "Traceback" not in complained
