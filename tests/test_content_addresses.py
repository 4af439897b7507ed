"""Artifacts under the checksum of their bytes, alone and in packs: on a folder, on S3 over HTTP, in memory."""

import hashlib
from collections.abc import Callable

import numpy as np
import pytest

from app.artifacts.base import UNFINISHED, Address, ContentStore
from app.errors import ArtifactDamaged


def put(content: ContentStore, data: bytes) -> bytes:
    digest = hashlib.sha256(data).digest()
    content.put({digest: data})
    return digest


def replace(content: ContentStore, digest: bytes, data: bytes) -> None:
    content.store.delete(content.key(digest))
    content.store.put({content.key(digest): data})


def test_the_name_of_an_artifact_is_the_checksum_of_its_bytes(content: ContentStore) -> None:
    digest = put(content, b"some bytes")
    name = hashlib.sha256(b"some bytes").hexdigest()
    assert [entry.key for entry in content.store.list()] == [f"{name[:2]}/{name}.bin"]
    assert content.get(digest) == b"some bytes"


def test_equal_bytes_are_stored_once_and_reported_as_shared(content: ContentStore) -> None:
    first, second = hashlib.sha256(b"first").digest(), hashlib.sha256(b"second").digest()
    assert content.put({first: b"first"}) == set()
    written = {entry.key: entry.written_at for entry in content.store.list()}
    assert content.put({first: b"first", second: b"second"}) == {first}
    assert {e.key: e.written_at for e in content.store.list() if e.key in written} == written
    assert len(list(content.store.list())) == 2


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: bytes([data[0] ^ 1]) + data[1:],
        lambda data: data[:-1],
        lambda _: b"",
        lambda data: data + b"\0",
    ],
    ids=["one bit flipped", "truncated", "emptied", "longer"],
)
def test_damaged_bytes_are_refused_and_the_artifact_is_named(
    content: ContentStore, damage: Callable[[bytes], bytes]
) -> None:
    data = bytes(range(256)) * 10
    digest, other = put(content, data), put(content, b"another")
    replace(content, digest, damage(data))
    with pytest.raises(ArtifactDamaged, match=digest.hex()) as raised:
        content.get(digest)
    assert content.location in raised.value.detail
    assert content.get(other) == b"another"


def test_a_missing_artifact_is_named(content: ContentStore) -> None:
    digest = put(content, b"data")
    content.store.delete(content.key(digest))
    with pytest.raises(ArtifactDamaged, match=f"{digest.hex()}.bin in {content.location} is missing"):
        content.get(digest)


def test_putting_the_same_bytes_again_heals_a_damaged_artifact(content: ContentStore) -> None:
    digest = put(content, b"data")
    for damaged in (b"dat", b"DATA", b""):
        replace(content, digest, damaged)
        put(content, b"data")
        assert content.get(digest) == b"data"


def put_pack(content: ContentStore, files: list[bytes]) -> tuple[bytes, list[Address]]:
    """A pack of these, and where each of them is."""
    pack = hashlib.sha256(b"".join(files)).digest()
    content.put_pack(pack, b"".join(files))
    ends = np.cumsum([len(file) for file in files]).tolist()
    return pack, [
        Address(hashlib.sha256(file).digest(), pack, end - len(file), len(file))
        for file, end in zip(files, ends, strict=True)
    ]


def test_a_pack_is_named_by_its_checksum_stored_once_and_read_whole_or_in_parts(content: ContentStore) -> None:
    files = [b"first", b"2", b"a third one", b"4"]
    pack, addresses = put_pack(content, files)
    assert [entry.key for entry in content.store.list()] == [f"{pack.hex()[:2]}/{pack.hex()}.pack"]
    assert content.put_pack(pack, b"".join(files))
    assert content.get_pack(pack) == b"".join(files)
    single = put(content, b"a file of its own")
    found = content.get_many([addresses[3], Address(single), addresses[0], addresses[2]])
    assert found == [b"4", b"a file of its own", b"first", b"a third one"]


@pytest.mark.parametrize(
    ("damage", "harmed"),
    [
        (lambda data: data[:2] + b"?" + data[3:], [0]),
        (lambda data: data[:-1], [2]),
        (lambda data: data[:7], [1, 2]),
        (lambda _: None, [0, 1, 2]),
    ],
    ids=["changed", "cut", "cut off", "missing"],
)
def test_a_damaged_pack_harms_only_what_stood_at_the_damage(
    content: ContentStore, damage: Callable[[bytes], bytes | None], harmed: list[int]
) -> None:
    files = [b"first", b"second", b"third"]
    pack, addresses = put_pack(content, files)
    content.store.delete(content.pack_key(pack))
    if (damaged := damage(b"".join(files))) is not None:
        content.store.put({content.pack_key(pack): damaged})
    found = content.get_many(addresses)
    assert [place for place, data in enumerate(found) if isinstance(data, ArtifactDamaged)] == harmed
    for place, data in enumerate(found):
        if isinstance(data, ArtifactDamaged):
            assert f"{pack.hex()}.pack in {content.location}" in data.detail
            assert f"at byte {addresses[place].offset} " in data.detail
        else:
            assert data == files[place]
    with pytest.raises(ArtifactDamaged, match=f"{pack.hex()}.pack"):
        content.get_pack(pack)
    put_pack(content, files)  # heals it
    assert content.get_many(addresses) == files


def test_a_pack_is_an_orphan_as_a_single_artifact_is(content: ContentStore) -> None:
    pack, _ = put_pack(content, [b"first", b"second"])
    [entry] = content.store.list()
    assert content.is_orphan(entry.key, named=set())
    assert not content.is_orphan(entry.key, named={pack})
    assert not content.is_orphan(f"{entry.key}.pack", named=set())


def test_only_what_this_store_wrote_can_be_an_orphan(content: ContentStore) -> None:
    digest = put(content, b"data")
    [entry] = content.store.list()
    assert content.is_orphan(entry.key, named=set())
    assert not content.is_orphan(entry.key, named={digest})
    assert content.is_orphan(f"{UNFINISHED}0123abcd", named={digest})
    name = digest.hex()
    strangers = ["README.md", f"{name[:2]}/{name}.txt", f"zz/{name}.bin", f"{name}.bin", "ab/ab.bin", "ab/notes.bin"]
    assert not any(content.is_orphan(key, named=set()) for key in strangers)


def test_checking_that_a_store_is_writable_leaves_nothing_there(content: ContentStore) -> None:
    content.check_writable()
    content.check_writable()
    assert list(content.store.list()) == []
