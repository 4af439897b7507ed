"""What tables expand to, told before they do; and budgets, which are given back to the last byte."""

import io

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.api.expansion import CheckedStream, check_arrow
from app.capacity import Budget, Share
from app.errors import BodyTooLarge, Overloaded
from tests.streaming import stream_of

COMPRESSIONS = st.sampled_from([None, "lz4", "zstd"])
MANY = 10**9


def table(rows: int, batches: int = 1) -> list[pa.RecordBatch]:
    names = pa.array([f"sensor-{row % 7}" for row in range(rows)]).dictionary_encode()
    columns = {"series_id": names, "timestamp": np.arange(rows) * 1.0, "value": np.zeros(rows)}
    return [pa.record_batch(columns)] * batches


def refuses(body: bytes, limit_bytes: int) -> bool:
    try:
        check_arrow(body, limit_bytes)
    except BodyTooLarge:
        return True
    return False


@given(rows=st.integers(1, 3000), batches=st.integers(1, 3), compression=COMPRESSIONS, legacy=st.booleans())
@settings(deadline=None)
def test_a_stream_is_measured_as_it_is_however_it_is_written(
    rows: int, batches: int, compression: str | None, *, legacy: bool
) -> None:
    body = stream_of(*table(rows, batches), compression=compression, use_legacy_format=legacy)
    least = rows * batches * 16
    assert refuses(body, least - 1)
    assert not refuses(body, 2 * least + 10_000)


@given(rows=st.integers(1, 3000), batches=st.integers(1, 3), compression=COMPRESSIONS, legacy=st.booleans())
@settings(deadline=None)
def test_a_checked_stream_reads_as_the_stream_itself(
    rows: int, batches: int, compression: str | None, *, legacy: bool
) -> None:
    body = stream_of(*table(rows, batches), compression=compression, use_legacy_format=legacy)
    checked = pa.ipc.open_stream(CheckedStream(io.BytesIO(body), MANY, MANY)).read_all()
    assert checked.equals(pa.ipc.open_stream(body).read_all())


@pytest.mark.parametrize(("most_rows", "limit_bytes"), [(10**9, 10_000), (10, 100)])
def test_a_checked_stream_ends_before_a_batch_that_is_too_large(most_rows: int, limit_bytes: int) -> None:
    body = stream_of(*table(1000), compression="zstd")
    with pytest.raises(BodyTooLarge):
        pa.ipc.open_stream(CheckedStream(io.BytesIO(body), most_rows, limit_bytes)).read_all()


@given(data=st.data(), compression=COMPRESSIONS)
@settings(deadline=None)
def test_garbage_is_left_to_arrow_to_refuse(data: st.DataObject, compression: str | None) -> None:
    body = bytearray(stream_of(*table(50), compression=compression))
    for _ in range(data.draw(st.integers(1, 8))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    refuses(bytes(body[: data.draw(st.integers(0, len(body)))]), MANY)


def test_a_budget_is_given_back_to_the_last_byte() -> None:
    budget = Budget(100, "It says what to do")
    one, two = Share(budget), Share(budget)
    one.hold(60)
    assert not two.try_hold(41)
    two.hold(40)
    with pytest.raises(Overloaded, match="what to do"):
        one.hold(61)
    two.add(1000)
    assert budget.held_bytes == 1100
    assert not one.try_hold(61)
    one.hold(10)
    two.release()
    one.release()
    one.release()
    assert budget.held_bytes == 0
