"""Group commit: what arrives while a commit is under way goes into the next one together."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from threading import Lock, Thread
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class GroupCommit(Generic[Item, Result]):
    """Turns many calls of `submit` into few calls of `commit`, made one after the other by a thread of its own."""

    def __init__(self, commit: Callable[[Sequence[Item]], Sequence[Result | Exception]], *, most: int) -> None:
        """`commit` gives a result or an error for each of at most `most` items, or raises for all of them."""
        self._commit = commit
        self._most = most
        self._waiting: SimpleQueue[tuple[Item, Future[Result]]] = SimpleQueue()
        self._thread: Thread | None = None
        self._starting = Lock()

    def submit(self, item: Item) -> Future[Result]:
        """Commit `item` together with whatever else waits; the future has its result, or what `commit` raised."""
        if self._thread is None:
            self._start()
        future: Future[Result] = Future()
        self._waiting.put((item, future))
        return future

    def _start(self) -> None:
        with self._starting:
            if self._thread is None:
                self._thread = Thread(target=self._run, name="group-commit", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while True:
            self._commit_batch([self._waiting.get(), *self._others()])

    def _others(self) -> list[tuple[Item, Future[Result]]]:
        others: list[tuple[Item, Future[Result]]] = []
        while len(others) < self._most - 1:
            try:
                others.append(self._waiting.get_nowait())
            except Empty:
                break
        return others

    def _commit_batch(self, batch: Sequence[tuple[Item, Future[Result]]]) -> None:
        batch = [(item, future) for item, future in batch if future.set_running_or_notify_cancel()]
        results: Sequence[Result | Exception]
        try:
            results = self._commit([item for item, _ in batch]) if batch else []
        except Exception as error:  # noqa: BLE001  every caller must hear of it, whatever it is
            results = [error] * len(batch)
        for (_, future), result in zip(batch, results, strict=True):
            if isinstance(result, Exception):
                future.set_exception(result)
            else:
                future.set_result(result)
