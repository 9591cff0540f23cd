"""What a commit says beside the watermark: the offsets beyond it that are done, and how far events were given out.

A text of at most 3 KiB (brokers take 4 KiB): `infertool/1 TAKEN`, and with done offsets ` BASE r:RUNS` or
` BASE b:BITS`, whichever is shorter. RUNS are the lengths of the done and the other runs of offsets in turn, from the
offset BASE on, as numbers in base 64 (VLQ: five bits a character, the sixth says that more follow). BITS is a bit for
each offset from BASE on. All offsets are absolute: a text is right whatever offset was committed with it.
"""

from __future__ import annotations

import base64
import binascii
import re
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final

# Characters. A broker's `offset.metadata.max.bytes` is 4 096 unless an administrator changed it.
MOST: Final = 3072
# Without done offsets: the prefix and the largest number; and what precedes the runs.
_PREFIX: Final = "infertool/1 "
_LARGEST: Final = 2**63
_HEAD: Final = len(f"{_PREFIX}{_LARGEST} {_LARGEST} r:")

_TEXT: Final = re.compile(
    r"infertool/1 (?P<taken>\d{1,19})(?: (?P<base>\d{1,19}) (?P<how>[rb]):(?P<code>[-\w]+))?", re.ASCII
)
_DIGITS: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
_VALUES: Final = {digit: value for value, digit in enumerate(_DIGITS)}
_MORE, _LOW = 32, 31
_BITS_A_DIGIT: Final = 5
# Digits of the longest number.
_LONGEST: Final = 13


@dataclass(frozen=True, slots=True)
class Progress:
    """`done` are runs of offsets that are settled, in order and apart. Events below `taken` may have been given out."""

    done: tuple[range, ...] = ()
    taken: int = 0

    def is_done(self, offset: int) -> bool:
        """Return True if the event at `offset` is settled."""
        index = bisect_right(self.done, offset, key=lambda run: run.start)
        return index > 0 and offset in self.done[index - 1]


NOTHING: Final = Progress()


def encode(done: Iterable[range], taken: int, most: int = MOST) -> str:
    """Return the text for runs of done offsets, which are in order and apart, of `most` characters.

    What would not fit is left out from the end: those events are repeated after a restart.
    """
    runs = list(done)
    while True:
        text = f"{_PREFIX}{taken}"
        if runs:
            codes = _runs(runs), _bits(runs)
            text += f" {runs[0].start} {min(codes, key=len)}"
        if len(text) <= most or not runs:
            return text
        runs = runs[: len(runs) * 3 // 4]


def decode(text: str | None) -> Progress | None:
    """Return what `text` says, or None if another program wrote it, or a version that is not known here."""
    match = _TEXT.fullmatch(text or "")
    if match is None:
        return None
    taken = int(match["taken"])
    if match["code"] is None:
        return Progress((), taken)
    try:
        read = _read_runs if match["how"] == "r" else _read_bits
        return Progress(tuple(read(match["code"], int(match["base"]))), taken)
    except (ValueError, binascii.Error):
        return None


def fits(open_count: int, span: int) -> bool:
    """Return True if a text surely fits, however the `open_count` events within `span` offsets are settled.

    A run of n offsets takes a digit, and at most n / 32 or 12 more of them.
    """
    runs = 2 * open_count + 1
    as_runs = runs + min(span // _MORE, runs * (_LONGEST - 1))
    # Four characters for each begun three bytes.
    as_bits = span // 6 + 8
    return min(as_runs, as_bits) <= MOST - _HEAD


def _runs(runs: Sequence[range]) -> str:
    lengths, end = [], runs[0].start
    for run in runs:
        lengths += [run.start - end, len(run)]
        end = run.stop
    return "r:" + "".join(map(_vlq, lengths[1:]))


def _read_runs(code: str, base: int) -> list[range]:
    found: list[range] = []
    start, number, shift, done = base, 0, 0, True
    for value in map(_VALUES.__getitem__, code):
        number |= (value & _LOW) << shift
        shift += _BITS_A_DIGIT
        if value & _MORE:
            continue
        if not 0 < number < _LARGEST:
            raise ValueError(code)
        if done:
            found.append(range(start, start + number))
        start, number, shift, done = start + number, 0, 0, not done
    # The last run is a done one, and whole.
    if shift or done or start > _LARGEST:
        raise ValueError(code)
    return found


def _vlq(number: int) -> str:
    digits = ""
    while number > _LOW:
        digits += _DIGITS[_MORE | (number & _LOW)]
        number >>= _BITS_A_DIGIT
    return digits + _DIGITS[number]


def _bits(runs: Sequence[range]) -> str:
    base, span = runs[0].start, runs[-1].stop - runs[0].start
    if span > MOST * 6:
        return "b:" + "-" * MOST
    flags, end = "", base
    for run in runs:
        flags += "0" * (run.start - end) + "1" * len(run)
        end = run.stop
    flags += "0" * (-len(flags) % 8)
    raw = int(flags, 2).to_bytes(len(flags) // 8, "big")
    return "b:" + base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _read_bits(code: str, base: int) -> list[range]:
    raw = base64.b64decode(code + "=" * (-len(code) % 4), altchars=b"-_", validate=True)
    flags = f"{int.from_bytes(raw, 'big'):0{len(raw) * 8}b}"
    found, start = [], base
    for flag, group in groupby(flags):
        end = start + len(list(group))
        if flag == "1":
            found.append(range(start, end))
        start = end
    if not found or found[0].start != base or start > _LARGEST:
        raise ValueError(code)
    return found
