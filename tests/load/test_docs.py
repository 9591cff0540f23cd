"""The documentation of loadgen names every option, and no others."""

from __future__ import annotations

import re
from pathlib import Path

from tests.support.running import infertool

PAGE = Path(__file__).parents[2] / "docs" / "loadgen.md"
# Options of other commands, options of every command, and the default of a pair.
ELSEWHERE = {
    "--concurrency", "--html", "--help", "--output", "--broker", "--queue", "--dlq", "--phoenix",
    "--persistent",
}  # fmt: skip


def test_the_page_and_the_command_have_the_same_options() -> None:
    option = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]*")
    help_text = infertool("loadgen", "--help").stdout
    options = set(option.findall(help_text.partition("Examples:")[0]))
    assert set(option.findall(PAGE.read_text())) - ELSEWHERE <= options
    assert options - ELSEWHERE <= set(option.findall(PAGE.read_text()))
