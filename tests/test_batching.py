"""Calls that arrive during a commit share the next one, and each hears its own result."""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from threading import Event, get_ident

import pytest

from app.batching import Batching

PATIENCE_S = 10.0


class Recorder:
    """Commits by remembering; waits at a gate first."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.threads: set[int] = set()
        self.begun, self.gate = Event(), Event()

    def commit(self, items: Sequence[int]) -> list[int | Exception]:
        self.begun.set()
        assert self.gate.wait(PATIENCE_S)
        self.batches.append(list(items))
        self.threads.add(get_ident())
        return [item * 10 if item >= 0 else ValueError(f"item {item}") for item in items]


def busy(recorder: Recorder, most: int = 100) -> tuple[Batching[int, int], Future[int]]:
    """A group commit whose first commit is under way and waits at the gate."""
    commits = Batching[int, int](recorder.commit, most=most, name="commit")
    first = commits.submit(0)
    assert recorder.begun.wait(PATIENCE_S)
    return commits, first


def test_what_arrives_during_a_commit_goes_into_the_next_one_together() -> None:
    recorder = Recorder()
    commits, first = busy(recorder)
    futures = [commits.submit(n) for n in range(1, 6)]
    recorder.gate.set()
    assert [future.result(PATIENCE_S) for future in (first, *futures)] == [0, 10, 20, 30, 40, 50]
    assert recorder.batches == [[0], [1, 2, 3, 4, 5]]


def test_a_batch_has_at_most_as_many_items_as_allowed() -> None:
    recorder = Recorder()
    commits, _ = busy(recorder, most=3)
    futures = [commits.submit(n) for n in range(1, 8)]
    recorder.gate.set()
    wait(futures, PATIENCE_S)
    assert recorder.batches == [[0], [1, 2, 3], [4, 5, 6], [7]]


def test_one_error_in_a_batch_is_heard_by_its_own_caller_only() -> None:
    recorder = Recorder()
    commits, _ = busy(recorder)
    good, bad, also_good = (commits.submit(n) for n in (1, -2, 3))
    recorder.gate.set()
    assert (good.result(PATIENCE_S), also_good.result(PATIENCE_S)) == (10, 30)
    with pytest.raises(ValueError, match="item -2"):
        bad.result(PATIENCE_S)


def test_a_commit_that_fails_altogether_is_heard_by_all_and_the_next_one_works() -> None:
    def commit(items: Sequence[int]) -> list[int | Exception]:
        if -1 in items:
            raise RuntimeError("away")
        return list(items)

    commits = Batching[int, int](commit, most=10, name="commit")
    with pytest.raises(RuntimeError, match="away"):
        commits.submit(-1).result(PATIENCE_S)
    assert commits.submit(7).result(PATIENCE_S) == 7


def test_a_caller_that_gave_up_while_waiting_is_left_out_and_harms_nobody() -> None:
    recorder = Recorder()
    commits, _ = busy(recorder)
    given_up, patient = commits.submit(1), commits.submit(2)
    assert given_up.cancel()
    recorder.gate.set()
    assert patient.result(PATIENCE_S) == 20
    assert commits.submit(3).result(PATIENCE_S) == 30
    assert recorder.batches == [[0], [2], [3]]


def test_when_every_caller_of_a_batch_gave_up_the_next_one_is_served() -> None:
    recorder = Recorder()
    commits, _ = busy(recorder)
    assert commits.submit(1).cancel()
    recorder.gate.set()
    assert commits.submit(2).result(PATIENCE_S) == 20


def test_a_caller_cannot_give_up_once_its_commit_is_under_way() -> None:
    recorder = Recorder()
    commits, first = busy(recorder)
    assert not first.cancel()
    recorder.gate.set()
    assert first.result(PATIENCE_S) == 0
    assert commits.submit(1).result(PATIENCE_S) == 10


def test_from_many_threads_every_call_is_committed_exactly_once_by_one_thread() -> None:
    recorder = Recorder()
    recorder.gate.set()
    commits = Batching[int, int](recorder.commit, most=50, name="commit")
    with ThreadPoolExecutor(16) as pool:
        results = list(pool.map(lambda n: commits.submit(n).result(PATIENCE_S), range(2000)))
    assert results == [n * 10 for n in range(2000)]
    assert sorted(n for batch in recorder.batches for n in batch) == list(range(2000))
    assert len(recorder.threads) == 1
