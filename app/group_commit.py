"""Group commit: callers that arrive while a commit is under way share the next one."""

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from threading import Lock
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class GroupCommit(Generic[Item, Result]):
    """Turns concurrent calls of `submit` into calls of `commit` with many items.

    There is no thread of its own: the first caller to find no commit under way commits for all who wait.
    """

    def __init__(self, commit: Callable[[Sequence[Item]], Sequence[Result]], *, most: int) -> None:
        """`commit` gives one result for each item, or raises for all of them; it gets at most `most` items."""
        self._commit = commit
        self._most = most
        self._waiting: deque[tuple[Item, Future[Result]]] = deque()
        self._leading = Lock()

    def submit(self, item: Item) -> Result:
        """The result of committing `item`, together with whoever else waits. Raises what `commit` raises."""
        mine: Future[Result] = Future()
        self._waiting.append((item, mine))
        while not mine.done():
            with self._leading:
                if not mine.done():
                    self._commit_waiting()
        return mine.result()

    def _commit_waiting(self) -> None:
        batch = [self._waiting.popleft() for _ in range(min(self._most, len(self._waiting)))]
        try:
            results = self._commit([item for item, _ in batch])
        except BaseException as error:  # noqa: BLE001  every caller must hear of it, whatever it is
            for _, future in batch:
                future.set_exception(error)
        else:
            for (_, future), result in zip(batch, results, strict=True):
                future.set_result(result)
