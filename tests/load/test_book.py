from __future__ import annotations

import time

from infertool.load.book import SendBook


def test_sums_add_up() -> None:
    book, now = SendBook(), time.monotonic()
    for name in "abcd":
        book.sent(name, now)
    book.seen("a", success=True)
    book.seen("a", success=True)
    book.seen("b", success=False)
    book.unsent("c")
    book.seen("stranger", success=True)
    tally = book.tally()
    assert (tally.sent, tally.results, tally.failures, tally.lost, tally.duplicates) == (3, 1, 1, 1, 1)
    assert tally.sent == tally.results + tally.failures + tally.lost
    assert not book.wait_complete(0)
    book.seen("d", success=True)
    assert book.wait_complete(0)
