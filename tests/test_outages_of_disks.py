"""A disk that is full or read-only, and artifacts that are damaged: what fails, what goes on, what is said."""

import errno
import os
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path

import httpx
import pytest

from tests.servers import Tidemark, serve_tidemark
from tests.streaming import send_lines
from tests.test_outages import POINT, is_unavailable, predict

PIECE_BYTES = 65_536


def fit(server: Tidemark, series_id: str, base: float = 0.0) -> httpx.Response:
    body = {"timestamps": [1, 2, 3, 4], "values": [base, base + 1, base, base + 1], "detector": "mean_std"}
    return server.client.post(f"/fit/{series_id}", json=body)


def fill(folder: Path) -> Path:
    """A file that takes all room there is."""
    path = folder / "filling"
    with path.open("wb", buffering=0) as file:
        for size in (PIECE_BYTES, 512):
            with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
                write_without_end(file, bytes(size))
    return path


def write_without_end(file: FileIO, piece: bytes) -> None:
    while True:
        file.write(piece)


@contextmanager
def mounted(folder: Path, *options: str) -> Iterator[bool]:
    """A file system of its own there, where the machine lets us; whether it did."""
    folder.mkdir(parents=True)
    is_mounted = subprocess.run(["mount", *options, str(folder)], capture_output=True, check=False).returncode == 0
    try:
        yield is_mounted
    finally:
        if is_mounted:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)


def is_not_ready(server: Tidemark, part: str) -> None:
    ready = server.client.get("/readyz")
    assert ready.status_code == 503
    assert ready.json()["checks"][part] != "ok"


def test_on_a_full_disk_fits_are_503_and_warm_predictions_go_on_until_there_is_room(tmp_path: Path) -> None:
    """Of artifacts and of the embedded database."""
    with mounted(tmp_path / "disk", "-t", "tmpfs", "-o", "size=8m", "tmpfs") as is_mounted:
        if not is_mounted:  # no rights to mount; then what the limit below has to say must do
            pytest.skip(
                "mounting needs rights that this machine does not give; see the test with a limit of file sizes"
            )
        with serve_tidemark(tmp_path, {"DATA_DIR": str(tmp_path / "disk/data")}) as server:
            assert fit(server, "s").status_code == 200
            before = predict(server).content
            filling = fill(tmp_path / "disk")
            is_unavailable(fit(server, "s", 1.0), "artifact-store-unavailable")
            [line] = send_lines(
                server.client, "/fit", [{"series_id": "b", "timestamps": [1, 2, 3], "values": [1, 2, 3]}]
            )
            assert line["status"] == 503
            is_not_ready(server, "model_store")
            assert predict(server).content == before
            filling.unlink()
            assert server.client.get("/readyz").status_code == 200
            assert fit(server, "s", 1.0).json()["version"] == "2"
            assert "Traceback" not in server.log.read_text()


def test_a_database_that_cannot_grow_is_503_and_not_ready_while_the_artifacts_are_well(tmp_path: Path) -> None:
    """SQLite on a disk of its own that is full: by a mount, or by a limit of the size of its files."""
    with serve_tidemark(tmp_path, {}) as server:
        assert fit(server, "s").status_code == 200
        before = predict(server).content
        assert server.client.get("/readyz").status_code == 200
        # Its files may not grow, and those of artifacts are smaller: what a quota or a full disk of the database does.
        log = tmp_path / "data/tidemark.db-wal"
        limit = min(log.stat().st_size, 40_000)
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        for n in range(100):
            if fit(server, "s", n).status_code != 200:
                break
        is_unavailable(fit(server, "s", 1.0), "database-unavailable")
        is_not_ready(server, "database")
        assert server.client.get("/readyz").json()["checks"]["model_store"] == "ok"
        assert predict(server, version="1").content == before
        made = int(server.client.get("/series/s").json()["latest_version"])
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        assert server.client.get("/readyz").status_code == 200
        assert fit(server, "s", 1.0).json()["version"] == str(made + 1)


def test_on_a_read_only_disk_fits_are_503_and_what_is_stored_is_served(tmp_path: Path) -> None:
    """A disk with errors is mounted read-only by its kernel; here chattr, a mount, or another user do it."""
    models = tmp_path / "data/models"
    with serve_tidemark(tmp_path, {}) as server:
        for series_id in ("s", "cold"):
            assert fit(server, series_id).status_code == 200
        before = predict(server).content
        with read_only(models):
            is_unavailable(fit(server, "s", 1.0), "artifact-store-unavailable")
            is_not_ready(server, "model_store")
            assert predict(server).content == before
            assert predict(server, "cold").status_code == 200
        assert server.client.get("/readyz").status_code == 200
        assert fit(server, "s", 1.0).json()["version"] == "2"


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Nothing can be written below it, by root neither."""
    folders = [folder, *(path for path in folder.rglob("*") if path.is_dir())]
    if os.geteuid() != 0:
        for path in folders:
            path.chmod(0o555)
        undo: Callable[[], object] = lambda: [path.chmod(0o755) for path in folders]  # noqa: E731
    elif (
        shutil.which("chattr")
        and not subprocess.run(["chattr", "+i", *folders], capture_output=True, check=False).returncode
    ):
        undo = lambda: subprocess.run(["chattr", "-i", *folders], check=True)  # noqa: E731
    else:
        bind = ["mount", "--bind", str(folder), str(folder)]
        subprocess.run(bind, check=True)
        subprocess.run(["mount", "-o", "remount,ro,bind", str(folder)], check=True)
        undo = lambda: subprocess.run(["umount", "--lazy", str(folder)], check=True)  # noqa: E731
    try:
        with pytest.raises(OSError, match=r"ermitted|denied|Read-only"):
            (folder / "probe").touch()
        yield
    finally:
        undo()


# ---- damaged artifacts -------------------------------------------------------------------------------------------


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


DAMAGES: list[Callable[[Path], None]] = [truncate, flip_a_bit, Path.unlink]


def files_since(folder: Path, known: set[Path]) -> tuple[Path, Path]:
    """The model's and the training data's file, or pack, that are new under the folder; they are known from now on."""
    new = {path for path in folder.rglob("*.*") if path.is_file()} - known
    known |= new
    [model] = [path for path in new if path.suffix in {".safetensors", ".pack"}]
    [data] = new - {model}
    return model, data


def test_a_damaged_artifact_is_an_error_that_names_it_and_others_are_not_touched(
    serve: Callable[..., Tidemark], tmp_path: Path
) -> None:
    """Each kind of damage, to models and to training data, in files of their own and in packs."""
    first = serve()
    known = set((tmp_path / "data").glob("*.*"))
    damages: list[tuple[Callable[[Path], None], Path]] = []
    models: dict[str, Path] = {}
    histories: dict[str, Path] = {}
    for n, damage in enumerate(DAMAGES):
        for is_packed in (False, True):
            for whose, damaged in (("model", models), ("data", histories)):
                name = f"{whose}-{n}-{is_packed}"
                values = [float(len(damages)), n + 1.0, 7.0]
                body = {"timestamps": [1, 2, 3], "values": values, "detector": "mean_std"}
                if is_packed:
                    assert send_lines(first.client, "/fit", [body | {"series_id": name}])[0]["status"] == 200
                else:
                    assert first.client.post(f"/fit/{name}", json=body).status_code == 200
                damaged[name] = files_since(tmp_path / "data", known)[whose == "data"]
                damages.append((damage, damaged[name]))
    assert fit(first, "well", 1000).status_code == 200
    first.process.kill()
    first.process.wait()
    for damage, path in damages:
        damage(path)

    client = serve().client
    for name, path in models.items():
        is_damaged(client.post(f"/predict/{name}", json=POINT), path)
    for name, path in histories.items():
        assert client.post(f"/predict/{name}", json=POINT).status_code == 200
        is_damaged(client.get("/plot/data", params={"series_id": name, "version": "1"}), path)
    assert client.post("/predict/well", json=POINT).status_code == 200
    assert client.get("/plot/data", params={"series_id": "well", "version": "1"}).status_code == 200


def is_damaged(answer: httpx.Response, path: Path) -> None:
    assert answer.status_code == 500
    assert answer.json()["type"] == "/problems/artifact-damaged"
    assert path.name in answer.json()["detail"]
    assert "Restore it from a backup" in answer.json()["detail"]
