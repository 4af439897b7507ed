"""`kill -9` at any point of a fit loses no earlier version and shows no half version."""

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import timedelta

import httpx
import pytest

from app.bootstrap import Services
from app.detectors.mean_std import MeanStd, MeanStdParams
from app.errors import VersionNotFound
from app.migrations import check_schema
from app.versions import LATEST
from tests.crashing import STEPS, WAYS, history
from tests.fleets import read_model
from tests.servers import REPOSITORY, Tidemark, let_time_pass

BuildServices = Callable[..., Services]
PACKED = [("after the data blob", "packed"), ("inside the transaction", "packed"), ("before commit", "packed")]


def fit(services: Services, seed: int) -> int:
    return services.training.fit("s", history(seed), MeanStd, MeanStdParams()).version


def fit_in_a_process_that_dies(step: str, way: str, services: Services, seed: int) -> None:
    settings = services.settings
    arguments = [step, way, str(settings.database_url), str(settings.data_dir), str(seed)]
    ended = subprocess.run([sys.executable, "-m", "tests.crashing", *arguments], cwd=REPOSITORY, check=False)
    assert ended.returncode == -signal.SIGKILL


def files(services: Services) -> set[str]:
    return {entry.key for content in services.stores for entry in content.store.list()}


def named_files(services: Services) -> set[str]:
    models, training = services.stores
    versions = services.registry.catalog.list_versions("s", 100, None)
    return {models.key(v.model_digest) for v in versions} | {training.key(v.data_digest) for v in versions}


@pytest.mark.parametrize(("step", "way"), [*((step, WAYS[i % 2]) for i, step in enumerate(STEPS)), *PACKED])
def test_a_kill_during_a_fit_leaves_the_whole_version_or_nothing(
    build_services: BuildServices, database_url: str, step: str, way: str
) -> None:
    before = build_services(database_url=database_url)
    assert fit(before, seed=1) == 1
    verdict = before.prediction.predict_one("s", LATEST, 60.0, 11.0)
    fit_in_a_process_that_dies(step, way, before, seed=2)

    after = build_services(database_url=database_url)
    is_published = step == "after commit"
    latest = 2 if is_published else 1
    # what was there is there, bit for bit
    assert after.prediction.predict_one("s", 1, 60.0, 11.0) == verdict
    # what was not acknowledged is whole or nothing
    assert [v.version for v in after.registry.catalog.list_versions("s", 10, None)] == list(range(latest, 0, -1))
    assert after.prediction.predict_one("s", LATEST, 60.0, 11.0)[0] == latest
    if is_published:
        version = after.registry.catalog.get_version("s", 2)
        assert after.registry.read_training_data(version).values.tolist() == history(2).values.tolist()
    else:
        with pytest.raises(VersionNotFound):
            after.prediction.predict_one("s", 2, 60.0, 11.0)
    # a process that was running all the while sees the same
    assert before.prediction.predict_one("s", 1, 60.0, 11.0) == verdict
    # nothing stands in the way of the next fit, of the same data or other
    assert fit(after, seed=2) == latest + 1
    assert fit(after, seed=3) == latest + 2
    check_schema(after.database)
    for content in after.stores:
        content.check_writable()


@pytest.mark.parametrize(
    ("step", "orphans"),
    [
        ("while the model blob is unfinished", 1),
        ("after the model blob", 1),
        ("while the data blob is unfinished", 2),
        ("before commit", 2),
    ],
)
def test_what_a_killed_fit_left_behind_is_swept(services: Services, step: str, orphans: int) -> None:
    fit(services, seed=1)
    whole = files(services)
    fit_in_a_process_that_dies(step, "alone", services, seed=2)
    assert len(files(services) - whole) == orphans
    grace = timedelta(minutes=1)
    assert services.registry.sweep(grace).artifacts == 0
    let_time_pass(services.settings.data_dir)
    assert services.registry.sweep(grace).artifacts == orphans
    assert files(services) == whole == named_files(services)
    read_model(services, services.registry.catalog.get_version("s", 1))


def list_versions(client: httpx.Client, series_id: str) -> list[int]:
    numbers: list[int] = []
    cursor = ""
    while True:
        page = client.get(f"/series/{series_id}/versions?limit=1000{cursor}").json()
        numbers += [int(version["version"]) for version in page["versions"]]
        if not page["next_cursor"]:
            return numbers
        cursor = f"&cursor={page['next_cursor']}"


@pytest.fixture
def start_server(serve: Callable[..., Tidemark], database_url: str) -> Callable[[], Tidemark]:
    """Starts the service on an empty database, again and again."""
    return lambda: serve(DATABASE_URL=database_url)


def test_every_acknowledged_fit_of_a_server_killed_under_load_is_there_afterwards(
    start_server: Callable[[], Tidemark],
) -> None:
    first = start_server()
    keyed = {"json": {"timestamps": [1, 2, 3], "values": [1.0, 2.0, 3.0]}, "headers": {"Idempotency-Key": "once"}}
    made_once = first.client.post("/fit/keyed", **keyed).json()
    acknowledged: list[tuple[str, int, float]] = []
    lock = threading.Lock()

    def fit_until_the_server_is_gone(worker: int) -> None:
        with httpx.Client(base_url=first.url, timeout=30.0) as client:
            for n in range(10_000):
                # small bodies go the common way, large ones by themselves; four threads share a series
                points = 4 if n % 3 else 1500
                offset = float(worker * 10_000 + n)
                values = [offset + i % 2 for i in range(points)]
                body = {"timestamps": list(range(points)), "values": values, "detector": "mean_std"}
                series_id = f"s{worker % 2}"
                try:
                    answer = client.post(f"/fit/{series_id}", json=body)
                except httpx.TransportError:
                    return
                with lock:
                    acknowledged.append((series_id, int(answer.json()["version"]), offset + 0.5))

    threads = [threading.Thread(target=fit_until_the_server_is_gone, args=(worker,)) for worker in range(8)]
    for thread in threads:
        thread.start()
    while len(acknowledged) < 50:
        time.sleep(0.01)
    first.process.kill()
    for thread in threads:
        thread.join()
    first.process.wait()

    second = start_server()
    assert second.client.get("/readyz").status_code == 200
    # who never heard of the answer and asks again with the same key gets the version that was made
    assert second.client.post("/fit/keyed", **keyed).json() == made_once
    for series_id in ("s0", "s1"):
        listed = list_versions(second.client, series_id)
        assert listed == list(range(len(listed), 0, -1))
        expected = {number: mean for name, number, mean in acknowledged if name == series_id}
        assert set(expected) <= set(listed)
        for number in listed[:200]:
            answer = second.client.post(f"/predict/{series_id}?version={number}", json={"timestamp": 1, "value": 1})
            assert answer.status_code == 200
            if number in expected:
                assert answer.json()["expected"] == pytest.approx(expected[number])
        body = {"timestamps": [1, 2, 3], "values": [1, 2, 3]}
        assert int(second.client.post(f"/fit/{series_id}", json=body).json()["version"]) == len(listed) + 1
