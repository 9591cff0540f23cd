"""The commands that README.md prints, in order."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
_COMMENT = re.compile(r"\s{2,}#.*")


def blocks(text: str) -> list[list[str]]:
    """Return the indented blocks of Markdown `text`, without their indent."""
    found: list[list[str]] = [[]]
    for line in text.split("\n"):
        if line.startswith("    "):
            found[-1].append(line[4:])
        elif line.strip() or not found[-1]:
            found.append([])
        else:
            found[-1].append("")
    return [block for block in found if any(block)]


def is_session(block: list[str]) -> bool:
    """Return True for a block that shows commands behind `$` and what they print."""
    return block[0].startswith("$ ")


def commands(text: str) -> list[str]:
    """Return the commands, lines that go on joined, comments left out."""
    found = []
    for block in blocks(text):
        whole = "\n".join(block).replace("\\\n", " ")
        for line in whole.split("\n"):
            command = _COMMENT.sub("", line.removeprefix("$ ")).strip()
            is_command = (
                line.startswith("$ ") if is_session(block) else re.match(r"(infertool|python3|export|\. ) ?", line)
            )
            if is_command and command:
                found.append(re.sub(r"\s+", " ", command))
    return found
