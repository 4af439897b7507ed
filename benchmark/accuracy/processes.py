"""Work spread over processes, with progress on stderr."""

import contextlib
import multiprocessing
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from benchmark.measures import say

Task = TypeVar("Task")
Result = TypeVar("Result")

_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
_TELL_EVERY_S = 30.0


def in_processes(
    work: Callable[[Task], Result], fail: Callable[[Task, Exception], Result], tasks: Sequence[Task], workers: int
) -> Iterator[Result]:
    """What `work` gives for each task, as it comes, or `fail` for a task that takes its process down, and no other.

    Each process has one thread for arithmetic.
    """
    for name in _ONE_THREAD:
        os.environ[name] = "1"
    waiting = deque(tasks)
    while waiting:
        running: dict[Future[Result], Task] = {}
        with _pool(workers) as pool, contextlib.suppress(BrokenProcessPool):
            while waiting or running:
                while waiting and len(running) < workers:
                    running[pool.submit(work, waiting[0])] = waiting[0]
                    waiting.popleft()
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    result = future.result()
                    del running[future]
                    yield result
        for task in running.values():
            yield _alone(work, fail, task)


def with_progress(
    results: Iterator[Result], total: int, describe: Callable[[Result], str], is_failed: Callable[[Result], bool]
) -> Iterator[Result]:
    """The same results, with their number on stderr: a bar on a terminal, else a line now and then."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    failed, told_s = 0, time.monotonic()
    with Progress(
        *columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console, disable=not console.is_terminal
    ) as progress:
        shown = progress.add_task("", total=total)
        for count, result in enumerate(results, 1):
            failed += is_failed(result)
            what = f"{failed} failed, last {describe(result)}"
            progress.update(shown, advance=1, description=f"{what:60.60}")
            if not console.is_terminal and time.monotonic() - told_s > _TELL_EVERY_S:
                told_s = time.monotonic()
                say(f"{count} of {total}, {what}")
            yield result


def _alone(work: Callable[[Task], Result], fail: Callable[[Task, Exception], Result], task: Task) -> Result:
    """The result of a task that may have taken its process down, by a process of its own."""
    try:
        with _pool(1) as pool:
            return pool.submit(work, task).result()
    except BrokenProcessPool as error:
        return fail(task, error)


def _pool(workers: int) -> ProcessPoolExecutor:
    """Processes that are started afresh: libraries read how many threads they may use when they are imported."""
    return ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"))
