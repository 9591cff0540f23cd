"""Any letter comes back out of an archive, and whatever becomes of the file, no other letter is lost or changed."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infertool.deadletters.archive import records
from infertool.deadletters.archive.records import ArchiveError
from infertool.deadletters.archive.writer import ArchiveWriter
from infertool.deadletters.letters import key
from infertool.message import Message
from tests.deadletters.archive.test_archive import SUFFIXES, batch
from tests.deadletters.replay.test_any_crossing import KINDS
from tests.support.examples import examples

_numbers = itertools.count()
LETTERS = st.sampled_from(sorted(KINDS)).flatmap(lambda kind: KINDS[kind].given)
# What becomes of a file: a place in it as a share of its size, how many bytes are lost there, and what comes instead.
DAMAGE = st.tuples(
    st.floats(0, 1), st.integers(0, 30) | st.just(10_000),
    st.binary(max_size=6) | st.sampled_from([b"\0" * 40, b"\n", b"{}\n", b"\xff\xff\xff\xff"]),
)  # fmt: skip


def read(path: Path) -> tuple[list[Message], ArchiveError | None]:
    found: list[Message] = []
    try:
        for each in records.read(path):
            found += each.messages
    except ArchiveError as fault:
        return found, fault
    return found, None


@pytest.mark.parametrize("suffix", SUFFIXES)
@examples(25)
@given(letters=st.lists(LETTERS, min_size=1, max_size=3))
def test_any_letter_comes_back(tmp_path_factory: pytest.TempPathFactory, suffix: str, letters: list[Message]) -> None:
    path = tmp_path_factory.getbasetemp() / f"any-{next(_numbers)}.{suffix}"
    with ArchiveWriter(path) as writer:
        for letter in letters:
            writer.append([letter])
    found, fault = read(path)
    assert fault is None
    for came, went in zip(found, letters, strict=True):
        assert key(came) == key(went)
        assert (came.body, came.kind, came.death) == (went.body, went.kind, went.death)
        assert (came.headers, dict(came.types)) == (went.headers, dict(went.types))
        assert came.properties == went.properties
    path.unlink()


@pytest.mark.parametrize("suffix", SUFFIXES)
@given(damage=DAMAGE)
def test_a_damaged_file_costs_no_letter_beside_the_damage(
    tmp_path_factory: pytest.TempPathFactory, suffix: str, damage: tuple[float, int, bytes]
) -> None:
    path = tmp_path_factory.getbasetemp() / f"any-{next(_numbers)}.{suffix}"
    ends = []
    with ArchiveWriter(path) as writer:
        for number in range(4):
            writer.append(batch(number, 1))
            ends.append(path.stat().st_size)
    whole = path.read_bytes()
    share, size, other = damage
    at = round(share * len(whole))
    path.write_bytes(whole[:at] + other + whole[at + size :])
    before = sum(end <= at for end in ends)
    after = 4 - sum(end - end_of < at + size for end, end_of in zip(ends, sizes(ends), strict=True))
    found, fault = read(path)
    # A packed file is looked at as a whole before any of it is read.
    assert fault or found[:before] == batch(0, before)
    # What is behind the damage is told to be there, or is read.
    assert fault or after == 0 or found[-after:] == batch(4 - after, after)
    data = path.read_bytes()
    try:
        ArchiveWriter(path).close()
    except ArchiveError:
        assert path.read_bytes() == data
    else:
        assert fault is None
        assert read(path) == (found, None)
    path.unlink()


def sizes(ends: list[int]) -> list[int]:
    return [end - begin for begin, end in itertools.pairwise([0, *ends])]
