"""What every artifact store does, and the content addresses on top: on a folder, on S3 over HTTP, in memory."""

import io
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from app import training_data
from app.artifacts import open_store
from app.artifacts.base import UNFINISHED, ArtifactStore, ContentStore, Part
from app.artifacts.local import LocalStore
from app.errors import ArtifactDamaged, ArtifactStoreUnavailable, ConfigurationError
from app.series import Series
from app.series_batch import SeriesBatch
from tests.servers import REPOSITORY, S3Server, Tidemark, free_port
from tests.test_content_addresses import put

HISTORY = {"timestamps": [1, 2, 3, 4], "values": [10.0, 10.5, 9.5, 10.0]}


def read(store: ArtifactStore, key: str) -> bytes | None:
    [data] = store.get([Part(key)])
    return data


# ---- the four verbs ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [b"", b"x", random.Random(1).randbytes(3_000_000)], ids=["empty", "small", "3 MB"])
def test_what_was_put_is_read_back(store: ArtifactStore, data: bytes) -> None:
    assert store.put({"ab/one": data}) == {"ab/one"}
    assert read(store, "ab/one") == data


def test_parts_of_what_was_put_are_read_in_the_order_asked_for(store: ArtifactStore) -> None:
    data = random.Random(1).randbytes(10_000)
    store.put({"ab/one": data, "ab/two": b"0123456789"})
    parts = [Part("ab/two", 3, 4), Part("ab/one", 9_000, 1_000), Part("ab/two"), Part("ab/one", 0, 1), Part("ab/two")]
    assert list(store.get(parts)) == [b"3456", data[9_000:], b"0123456789", data[:1], b"0123456789"]
    assert list(store.get([])) == []


@pytest.mark.parametrize(("offset", "length", "found"), [(5, 100, b"56789"), (10, 5, b""), (100, 5, b"")])
def test_a_part_beyond_the_end_has_as_many_bytes_as_there_are(
    store: ArtifactStore, offset: int, length: int, found: bytes
) -> None:
    store.put({"ab/one": b"0123456789"})
    assert list(store.get([Part("ab/one", offset, length), Part("ab/one")])) == [found, b"0123456789"]


def test_an_existing_key_is_never_overwritten(store: ArtifactStore) -> None:
    store.put({"ab/one": b"first"})
    assert store.put({"ab/one": b"second", "ab/two": b"second"}) == {"ab/two"}
    assert (read(store, "ab/one"), read(store, "ab/two")) == (b"first", b"second")


def test_one_put_takes_many_artifacts(store: ArtifactStore) -> None:
    artifacts = {f"{i % 7:02}/artifact-{i}": str(i).encode() for i in range(100)}
    assert store.put(artifacts) == set(artifacts)
    assert {entry.key: read(store, entry.key) for entry in store.list()} == artifacts


def test_putting_nothing_stores_nothing(store: ArtifactStore) -> None:
    assert store.put({}) == set()
    assert list(store.list()) == []


def test_a_key_that_is_not_there_is_none_beside_those_that_are(store: ArtifactStore) -> None:
    store.put({"ab/one": b"1"})
    found = store.get([Part("ab/none"), Part("ab/one"), Part("ab/none", 3, 4), Part("cd/none")])
    assert list(found) == [None, b"1", None, None]


def test_the_listing_has_keys_sizes_and_times(store: ArtifactStore) -> None:
    before = datetime.now(UTC) - timedelta(seconds=2)  # S3 tells whole seconds
    store.put({"ab/one": b"12345", "cd/two": b"123"})
    listed = list(store.list())
    assert {(entry.key, entry.size_bytes) for entry in listed} == {("ab/one", 5), ("cd/two", 3)}
    assert all(before <= entry.written_at <= datetime.now(UTC) + timedelta(seconds=1) for entry in listed)


def test_deleting_removes_one_key_and_may_be_repeated(store: ArtifactStore) -> None:
    store.put({"ab/one": b"1", "ab/two": b"2"})
    store.delete("ab/one")
    store.delete("ab/one")
    store.delete("cd/never")
    assert [entry.key for entry in store.list()] == ["ab/two"]
    assert store.put({"ab/one": b"again"}) == {"ab/one"}


def test_of_many_puts_of_one_key_at_once_exactly_one_is_first(store: ArtifactStore) -> None:
    with ThreadPoolExecutor(8) as pool:
        firsts = list(pool.map(lambda n: store.put({"ab/one": b"%d" % n * 1000}), range(8)))
    winners = [n for n, new in enumerate(firsts) if new]
    assert len(winners) == 1
    assert read(store, "ab/one") == b"%d" % winners[0] * 1000


@pytest.mark.parametrize("location", ["local", "s3"], indirect=True)
def test_another_process_sees_what_was_put(location: str) -> None:
    open_store(location).put({"ab/one": b"1"})
    other = open_store(location)
    assert read(other, "ab/one") == b"1"
    assert other.put({"ab/one": b"2"}) == set()
    assert [entry.key for entry in other.list()] == ["ab/one"]


@pytest.mark.usefixtures("s3")
def test_two_places_in_one_bucket_keep_apart() -> None:
    models, training = open_store("s3://tidemark/apart/models"), open_store("s3://tidemark/apart/training")
    models.put({"ab/one": b"1"})
    assert list(training.list()) == []
    assert training.put({"ab/one": b"2"}) == {"ab/one"}
    assert read(models, "ab/one") == b"1"


# ---- the local folder ----------------------------------------------------------------------------------------


def test_a_truncated_file_is_noticed(tmp_path: Path) -> None:
    content = ContentStore(LocalStore(tmp_path), str(tmp_path), ".bin", ".pack")
    digest = put(content, b"x" * 5000)
    os.truncate(tmp_path / content.key(digest), 4096)
    with pytest.raises(ArtifactDamaged, match=digest.hex()):
        content.get(digest)


WRITER = """
import hashlib, random, sys
from pathlib import Path
from app.artifacts.base import ContentStore
from app.artifacts.local import LocalStore
content = ContentStore(LocalStore(Path(sys.argv[1])), sys.argv[1], ".bin", ".pack")
generator = random.Random(int(sys.argv[2]))
print("writing", flush=True)
while True:
    artifacts = [generator.randbytes(200_000) for _ in range(5)]
    content.put({hashlib.sha256(data).digest(): data for data in artifacts})
"""


def test_a_write_that_a_crash_cuts_off_is_never_readable(tmp_path: Path) -> None:
    folder = tmp_path / "artifacts"
    whole = unfinished = 0
    for seed in range(5):
        command = [sys.executable, "-c", WRITER, str(folder), str(seed)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=REPOSITORY) as writer:
            assert writer.stdout is not None
            writer.stdout.readline()
            time.sleep(0.05 + seed * 0.017)
            writer.kill()
        content = ContentStore(LocalStore(folder), str(folder), ".bin", ".pack")
        for entry in content.store.list():
            if entry.key.startswith(UNFINISHED):
                unfinished += 1
                content.store.delete(entry.key)
            else:
                whole += 1
                digest = bytes.fromhex(Path(entry.key).stem)
                assert len(content.get(digest)) == 200_000
    assert whole
    assert unfinished, "no kill met an unfinished write: the test shows nothing"


@pytest.mark.parametrize("location", ["{}", "{}/below", "file://{}"])
def test_a_file_in_place_of_the_folder_is_said_clearly(tmp_path: Path, location: str) -> None:
    path = tmp_path / "file"
    path.touch()
    with pytest.raises(ArtifactStoreUnavailable, match=str(path)):
        open_store(location.format(path))


def test_a_folder_that_turns_into_a_file_fails_each_verb_clearly(tmp_path: Path) -> None:
    root = tmp_path / "artifacts"
    store = LocalStore(root)
    store.put({"ab/one": b"1"})
    root.rename(tmp_path / "elsewhere")
    root.touch()
    verbs: list[Callable[[], object]] = [
        lambda: store.put({"ab/two": b"2"}),
        lambda: read(store, "ab/one"),
        lambda: list(store.list()),
        lambda: store.delete("ab/one"),
        ContentStore(store, str(root), ".bin", ".pack").check_writable,
    ]
    for verb in verbs:
        with pytest.raises(ArtifactStoreUnavailable, match="cannot be used"):
            verb()


def test_a_store_goes_on_when_its_folders_were_removed_under_it(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.put({"ab/one": b"1"})
    (tmp_path / "ab/one").unlink()
    (tmp_path / "ab").rmdir()
    assert store.put({"ab/one": b"1"}) == {"ab/one"}
    assert read(store, "ab/one") == b"1"


def test_a_file_url_is_a_local_folder(tmp_path: Path) -> None:
    open_store(f"file://{tmp_path}/a%20folder").put({"ab/one": b"1"})
    assert (tmp_path / "a folder/ab/one").read_bytes() == b"1"


# ---- object stores -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("location", ["ftp://host/folder", "s3://", "nonsense://bucket"])
def test_a_url_that_names_no_object_store_is_a_configuration_error(location: str) -> None:
    with pytest.raises(ConfigurationError, match=location) as raised:
        open_store(location)
    assert "\n" not in raised.value.detail


@pytest.mark.usefixtures("s3")
def test_a_bucket_that_does_not_exist_is_unavailable() -> None:
    content = ContentStore(open_store("s3://no-such-bucket/models"), "s3://no-such-bucket/models", ".bin", ".pack")
    with pytest.raises(ArtifactStoreUnavailable, match="no-such-bucket"):
        put(content, b"data")
    with pytest.raises(ArtifactStoreUnavailable, match="no-such-bucket"):
        content.check_writable()


@pytest.mark.usefixtures("s3")
def test_an_object_store_that_is_away_is_unavailable_within_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    store = open_store("s3://tidemark/away")
    started = time.monotonic()
    with pytest.raises(ArtifactStoreUnavailable, match="s3://tidemark/away") as raised:
        store.put({"ab/one": b"1"})
    assert time.monotonic() - started < 10
    assert "\n" not in raised.value.detail


def test_the_whole_service_runs_on_s3_and_comes_back_after_a_restart(
    s3_server: S3Server, serve: Callable[..., Tidemark], tmp_path: Path
) -> None:
    settings = s3_server.settings | {
        "MODEL_STATE_FOLDER": f"s3://tidemark/{tmp_path.name}/models",
        "TRAINING_DATA_FOLDER": f"s3://tidemark/{tmp_path.name}/training",
    }
    first = serve(**settings)
    assert first.client.get("/readyz").json()["status"] == "ready"
    assert [first.client.post("/fit/s", json=HISTORY).json()["version"] for _ in range(3)] == ["1", "2", "3"]
    point = {"timestamp": 5, "value": 13.0}
    judged = first.client.post("/predict/s", json=point)
    assert judged.json()["anomaly"] is True
    first.process.kill()
    first.process.wait()

    second = serve(**settings)
    assert second.client.post("/predict/s", json=point).json() == judged.json()
    assert second.client.post("/predict/s?version=1", json=point).json()["model_version"] == "1"
    assert second.client.get("/plot?series_id=s").status_code == 200
    assert not list((tmp_path / "data").glob("*/*/*"))


def test_while_s3_is_away_fits_are_503_and_warm_predictions_go_on(
    serve: Callable[..., Tidemark], tmp_path: Path
) -> None:
    s3 = S3Server(tmp_path)
    server = serve(
        **s3.settings,
        MODEL_STATE_FOLDER="s3://tidemark/models",
        TRAINING_DATA_FOLDER="s3://tidemark/training",
    )
    point = {"timestamp": 5, "value": 13.0}
    assert server.client.post("/fit/s", json=HISTORY).status_code == 200
    assert server.client.post("/predict/s", json=point).status_code == 200
    s3.stop()
    started = time.monotonic()
    for headers in ({}, {"Idempotency-Key": "k"}):
        refused = server.client.post("/fit/s", json=HISTORY, headers=headers)
        assert refused.status_code == 503
        assert refused.json()["type"].endswith("artifact-store-unavailable")
        assert int(refused.headers["retry-after"]) > 0
    assert server.client.post("/predict/s", json=point).status_code == 200
    ready = server.client.get("/readyz")
    assert ready.status_code == 503
    assert "s3://tidemark/models" in ready.json()["checks"]["model_store"]
    assert time.monotonic() - started < 20
    s3.start()
    assert server.client.get("/readyz").status_code == 200
    assert server.client.post("/fit/s", json=HISTORY).json()["version"] == "2"
    s3.stop()


# ---- what is stored ------------------------------------------------------------------------------------------


def test_training_data_is_parquet_that_other_tools_open_and_equal_data_gives_equal_bytes() -> None:
    history = Series(np.array([1.0, 2.5, 4.0]), np.array([1e300, -0.0, 5e-324]))
    data = training_data.encode(history)
    assert data == training_data.encode(Series(history.timestamps_s.copy(), history.values.copy()))
    table = pq.read_table(io.BytesIO(data))
    assert table.to_pydict() == {"timestamp": [1.0, 2.5, 4.0], "value": [1e300, -0.0, 5e-324]}
    read_back = training_data.decode(data)
    assert read_back.timestamps_s.tobytes() == history.timestamps_s.tobytes()
    assert read_back.values.tobytes() == history.values.tobytes()


def test_training_data_of_many_series_is_one_table_in_long_form_and_equal_data_gives_equal_bytes() -> None:
    histories = [Series(np.array([1.0, 2.5]), np.array([1e300, -0.0])), Series(np.array([4.0]), np.array([5e-324]))]
    data = training_data.encode_many(SeriesBatch.of(list(zip("st", histories, strict=True))))
    assert data == training_data.encode_many(SeriesBatch.of(list(zip("st", histories, strict=True))))
    assert pq.read_table(io.BytesIO(data)).to_pydict() == {
        "series_id": ["s", "s", "t"],
        "timestamp": [1.0, 2.5, 4.0],
        "value": [1e300, -0.0, 5e-324],
    }
    for first, history in ((0, histories[0]), (2, histories[1])):
        read_back = training_data.decode_rows(data, first, len(history))
        assert read_back.timestamps_s.tobytes() == history.timestamps_s.tobytes()
        assert read_back.values.tobytes() == history.values.tobytes()


@pytest.mark.parametrize("data", [b"", b"PAR1", b"not parquet" * 100])
def test_bytes_that_are_no_training_data_are_a_value_error(data: bytes) -> None:
    with pytest.raises(ValueError, match="not a file of training data"):
        training_data.decode(data)
    with pytest.raises(ValueError, match="not a file of training data"):
        training_data.decode_rows(data, 0, 1)


_HOW_MANY_THREADS = """
import os
import numpy as np
from app import training_data
from app.series import Series

data = training_data.encode(Series(np.arange(3000.0), np.ones(3000)))
before = os.listdir("/proc/self/task")
training_data.decode(data)
print(len(before), len(os.listdir("/proc/self/task")))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="threads are counted in /proc")
def test_reading_training_data_starts_no_thread_that_could_outlive_the_interpreter() -> None:
    """One that lets go of Python's bytes while the interpreter ends aborts the process, with its work done."""
    done = subprocess.run([sys.executable, "-c", _HOW_MANY_THREADS], capture_output=True, text=True, check=True)
    before, after = done.stdout.split()
    assert before == after
