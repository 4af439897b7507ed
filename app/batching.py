"""Batching: what arrives while some work is under way is worked on next, together."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from threading import Lock, Thread
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class Batching(Generic[Item, Result]):
    """Turns many calls of `submit` into few calls of `work`, made by threads of its own."""

    def __init__(
        self, work: Callable[[Sequence[Item]], Sequence[Result | Exception]], *, most: int, name: str, threads: int = 1
    ) -> None:
        """`work` gives a result or an error for each of at most `most` items, or raises for all of them.

        With one thread, one call of it follows the other.
        """
        self._work = work
        self._most = most
        self._name = name
        self._threads = threads
        self._waiting: SimpleQueue[tuple[Item, Future[Result]]] = SimpleQueue()
        self._is_started = False
        self._starting = Lock()

    def submit(self, item: Item) -> Future[Result]:
        """Work on `item` together with whatever else waits; the future has its result, or what `work` raised."""
        if not self._is_started:
            self._start()
        future: Future[Result] = Future()
        self._waiting.put((item, future))
        return future

    def _start(self) -> None:
        with self._starting:
            if not self._is_started:
                for _ in range(self._threads):
                    Thread(target=self._run, name=self._name, daemon=True).start()
                self._is_started = True

    def _run(self) -> None:
        while True:
            self._finish([self._waiting.get(), *self._others()])

    def _others(self) -> list[tuple[Item, Future[Result]]]:
        others: list[tuple[Item, Future[Result]]] = []
        while len(others) < self._most - 1:
            try:
                others.append(self._waiting.get_nowait())
            except Empty:
                break
        return others

    def _finish(self, batch: Sequence[tuple[Item, Future[Result]]]) -> None:
        batch = [(item, future) for item, future in batch if future.set_running_or_notify_cancel()]
        results: Sequence[Result | Exception]
        try:
            results = self._work([item for item, _ in batch]) if batch else []
        except Exception as error:  # noqa: BLE001  every caller must hear of it, whatever it is
            results = [error] * len(batch)
        for (_, future), result in zip(batch, results, strict=True):
            if isinstance(result, Exception):
                future.set_exception(result)
            else:
                future.set_result(result)
