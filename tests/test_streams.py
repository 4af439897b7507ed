"""Lines out of bytes, and bytes on their way: whatever the pieces and the pace, nothing is lost and nothing is kept."""

import asyncio
import os
import tracemalloc
from collections.abc import AsyncIterator, Callable, Sequence
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.requests import ClientDisconnect, Request
from starlette.types import Message

from app.api.streams import Line, LineCutter, Spool, batches_of_lines, open_lines
from app.capacity import Budget, Share

TEXT = st.lists(st.sampled_from([b"\n", b"\r\n", b" ", b"\t", b"a", b"bb", b"c" * 9, b"\xff", b"\0"]), max_size=40).map(
    b"".join
)
PIECES = st.lists(st.sampled_from([b"", b"\n", b"\n\n", b" ", b"a", b"bb\n", b"c" * 9, b"\r\n"]), max_size=30)
PLENTY = Budget(2**40, "It says what to do")
ROOMY = Share(PLENTY), Share(PLENTY)


def slowly(data: bytes, limit: int, first: int = 1) -> list[Line]:
    """The lines of all bytes at once."""
    lines = []
    for number, text in enumerate(data.split(b"\n"), start=first):
        if len(text) > limit:
            lines.append(Line(number, None))
        elif text.strip():
            lines.append(Line(number, text))
    return lines


def cut(pieces: Sequence[bytes], limit: int, first: int = 1) -> list[Line]:
    cutter = LineCutter(limit, first)
    lines = [line for piece in pieces for line in cutter.cut(piece)]
    return lines + cutter.end()


# ---- LineCutter ----------------------------------------------------------------------------------------------


@given(data=TEXT, places=st.lists(st.integers(0, 100), max_size=20), limit=st.integers(0, 12), first=st.integers(1, 9))
def test_the_lines_are_the_same_wherever_the_bytes_are_cut(
    data: bytes, places: list[int], limit: int, first: int
) -> None:
    edges = [0, *sorted(min(place, len(data)) for place in places), len(data)]
    pieces = [data[start:end] for start, end in pairwise(edges)]
    assert cut(pieces, limit, first) == cut([data], limit, first) == slowly(data, limit, first)
    assert cut([bytes([byte]) for byte in data], limit, first) == slowly(data, limit, first)


@given(pieces=PIECES, limit=st.integers(0, 12))
def test_a_line_is_there_as_soon_as_its_end_is(pieces: list[bytes], limit: int) -> None:
    cutter = LineCutter(limit)
    found: list[Line] = []
    sent = b""
    for piece in pieces:
        sent += piece
        found += cutter.cut(piece)
        assert found == slowly(sent[: sent.rfind(b"\n") + 1], limit)


def test_of_a_line_that_is_too_long_nothing_is_kept() -> None:
    cutter = LineCutter(2**20)
    tracemalloc.start()
    try:
        for _ in range(200):
            assert cutter.cut(b"x" * 2**18) == []
        assert tracemalloc.get_traced_memory()[1] < 3 * 2**20
    finally:
        tracemalloc.stop()
    assert cutter.cut(b"\nnext\n") == [Line(1, None), Line(2, b"next")]


# ---- Spool ---------------------------------------------------------------------------------------------------

WRITES = st.lists(st.tuples(st.booleans(), st.binary(min_size=1, max_size=40)), max_size=60)


@given(steps=WRITES, memory_bytes=st.integers(0, 60))
@settings(deadline=None)
def test_bytes_come_out_in_the_order_in_which_they_went_in(steps: list[tuple[bool, bytes]], memory_bytes: int) -> None:
    """Through memory, through the file, and back to memory, at any pace of the reader."""

    async def run() -> None:
        spool = Spool(*ROOMY, memory_bytes)
        written = read = b""
        for reads, data in steps:
            spool.write(data)
            written += data
            assert sum(map(len, spool._pieces)) <= memory_bytes
            if reads:
                got = await spool.read()
                assert got
                read += got
                assert written.startswith(read)
        spool.close()
        while data := await spool.read():
            read += data
        assert read == written
        assert spool._file is None
        assert await spool.read() == b""

    asyncio.run(run())


@given(chunks=st.lists(st.binary(min_size=1, max_size=30), max_size=30), pauses=st.lists(st.integers(0, 3), min_size=1))
@settings(deadline=None, max_examples=50)
def test_a_reader_that_waits_gets_what_is_written_meanwhile_and_then_the_end(
    chunks: list[bytes], pauses: list[int]
) -> None:
    async def run() -> bytes:
        spool = Spool(*ROOMY, 50)
        read = b""

        async def write() -> None:
            for number, chunk in enumerate(chunks):
                spool.write(chunk)
                for _ in range(pauses[number % len(pauses)]):
                    await asyncio.sleep(0)
            spool.close()

        writing = asyncio.ensure_future(write())
        while data := await spool.read():
            read += data
        await writing
        return read

    assert asyncio.run(asyncio.wait_for(run(), 5)) == b"".join(chunks)


def test_what_is_not_read_lies_in_a_file_that_has_no_name_and_goes_when_it_was_read() -> None:
    def open_files() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    async def run() -> None:
        spool = Spool(*ROOMY, 2**20)
        before = open_files()
        piece = os.urandom(2**18)
        tracemalloc.start()
        try:
            for _ in range(100):
                spool.write(piece)
            assert tracemalloc.get_traced_memory()[1] < 2 * 2**20
            assert open_files() == before + 1
            spool.close()
            size = 0
            while data := await spool.read():
                size += len(data)
                assert len(data) <= 2**20
            assert tracemalloc.get_traced_memory()[1] < 4 * 2**20
        finally:
            tracemalloc.stop()
        assert size == 100 * 2**18
        assert open_files() == before
        # once it is empty, memory is used again
        spool.write(b"x")
        assert open_files() == before

    asyncio.run(run())


# ---- batches of lines ----------------------------------------------------------------------------------------


def request_of(pieces: Sequence[bytes | float | None]) -> Request:
    """A request whose body comes in these pieces: a number is a pause in seconds, None the end of the client."""

    async def messages() -> AsyncIterator[Message]:
        for piece in pieces:
            if piece is None:
                yield {"type": "http.disconnect"}
            elif isinstance(piece, bytes):
                yield {"type": "http.request", "body": piece, "more_body": True}
            else:
                await asyncio.sleep(piece)
        yield {"type": "http.request", "body": b"", "more_body": False}

    coming = messages()

    async def receive() -> Message:
        return await anext(coming)

    return Request({"type": "http", "method": "POST", "headers": []}, receive)


def batches(
    pieces: Sequence[bytes | float | None],
    enough_lines: int = 3,
    enough_bytes: int = 100,
    work: Callable[[list[Line]], float] = lambda _: 0.0,
) -> list[list[Line]]:
    found: list[list[Line]] = []

    async def run() -> None:
        lines = batches_of_lines(
            await open_lines(request_of(pieces)), 12, PLENTY, enough_lines=enough_lines, enough_bytes=enough_bytes
        )
        async for batch in lines:
            found.append(batch)
            await asyncio.sleep(work(batch))

    asyncio.run(asyncio.wait_for(run(), 10))
    return found


@given(pieces=PIECES, enough_lines=st.integers(1, 5), enough_bytes=st.integers(1, 30))
@settings(deadline=None, max_examples=60)
def test_batches_have_the_lines_of_the_body_in_their_order(
    pieces: list[bytes], enough_lines: int, enough_bytes: int
) -> None:
    found = batches(pieces, enough_lines, enough_bytes)
    assert [line for batch in found for line in batch] == slowly(b"".join(pieces), 12)
    assert all(found)


def test_a_batch_is_worked_on_when_there_are_enough_lines() -> None:
    assert [len(batch) for batch in batches([b"a\n"] * 10)] == [3, 3, 3, 1]
    assert [len(batch) for batch in batches([b"a\n"] * 10, enough_lines=100, enough_bytes=8)] == [4, 4, 2]
    assert [len(batch) for batch in batches([b"a\na\na\na\na\n", b"a\n"])] == [5, 1]


def test_a_batch_is_worked_on_when_no_more_lines_come_for_a_moment() -> None:
    found = batches([b"a\nb\nc", 0.2, b"c\n", 0.2, b"\n \n", 0.1, b"d"], enough_lines=100)
    assert found == [
        [Line(1, b"a"), Line(2, b"b")],
        [Line(3, b"cc")],
        [Line(6, b"d")],
    ]


def test_a_slow_trickle_of_bytes_holds_no_line_up() -> None:
    found = batches([b"a\n", *[b"x", 0.02] * 8, b"\n"], enough_lines=100)
    assert sum(map(len, found)) == 2


def test_only_one_piece_is_taken_in_while_a_batch_is_worked_on() -> None:
    taken = 0
    ahead: list[int] = []

    async def receive() -> Message:
        nonlocal taken
        taken += 1
        return {"type": "http.request", "body": b"a\n", "more_body": taken < 20}

    async def run() -> None:
        request = Request({"type": "http", "method": "POST", "headers": []}, receive)
        done = 0
        async for batch in batches_of_lines(await open_lines(request), 12, PLENTY, enough_lines=1, enough_bytes=1):
            await asyncio.sleep(0.005)
            done += len(batch)
            ahead.append(taken - done)

    asyncio.run(run())
    assert len(ahead) == 20
    assert max(ahead) <= 1


def test_of_a_client_that_goes_away_the_unfinished_line_is_lost_and_no_other() -> None:
    found: list[Line] = []

    async def run() -> None:
        pieces = request_of([b"a\nb\n", b"c\nd", 0.1, None])
        async for batch in batches_of_lines(await open_lines(pieces), 12, PLENTY, enough_lines=1, enough_bytes=1):
            found.extend(batch)

    with pytest.raises(ClientDisconnect):
        asyncio.run(run())
    assert [line.data for line in found] == [b"a", b"b", b"c"]
