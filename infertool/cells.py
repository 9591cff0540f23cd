"""Text in terminal cells: a character may take one, two or none, so `len`, `ljust` and `:<10` do not align columns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.cells import cell_len

GAP = "  "


def left(text: str, width: int) -> str:
    """Return `text` at the left of `width` cells; longer text stays as it is."""
    return text + " " * (width - cell_len(text))


def right(text: str, width: int) -> str:
    """Return `text` at the right of `width` cells; longer text stays as it is."""
    return " " * (width - cell_len(text)) + text


def widest(texts: Iterable[str]) -> int:
    """Return the cells that the widest of `texts` takes."""
    return max(map(cell_len, texts), default=0)


def aligned(rows: Sequence[Sequence[str]], *, rights: Sequence[bool] = ()) -> list[str]:
    """Return rows as lines with columns of equal width. `rights` says which columns stand at their right edge."""
    widths = [widest(column) for column in zip(*rows, strict=True)]
    at_right = [*rights, *[False] * (len(widths) - len(rights))]
    return [
        GAP.join(
            right(cell, width) if is_right else left(cell, width)
            for cell, width, is_right in zip(row, widths, at_right, strict=True)
        ).rstrip()
        for row in rows
    ]
