"""The one owner of standard output, standard error and exit codes. Data goes to stdout, everything else to stderr."""

from __future__ import annotations

import codecs
import io
import os
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from infertool.errors import InfertoolError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from infertool.settings.load import Loaded

EXIT_INTERRUPTED = 130


@dataclass(frozen=True, slots=True)
class Globals:
    """The options every subcommand takes."""

    config: Path | None = None
    profile: str | None = None
    debug: bool = False
    quiet: bool = False
    log_format: str | None = None

    def load(self, flags: Mapping[str, tuple[str, object]] | None = None) -> Loaded:
        """Return the settings for this run. `flags` maps dotted keys to (flag as typed, value); None values are unset.

        Raises `SettingsError`.
        """
        from infertool.cli.queues import in_full
        from infertool.settings.load import load

        given = {key: pair for key, pair in (flags or {}).items() if pair[1] is not None}
        if self.log_format is not None:
            given["telemetry.log_format"] = ("--log-format", self.log_format)
        if self.debug:
            given["telemetry.log_level"] = ("--debug", "debug")
        elif self.quiet:
            given["telemetry.log_level"] = ("--quiet", "warning")
        return in_full(load(config=self.config, profile=self.profile, environ=os.environ, flags=given))


def escape_unknown() -> None:
    """Make stdout write characters that its encoding lacks as JSON's escapes, instead of failing."""
    codecs.register_error("infertool.escape", _escape)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="infertool.escape")


def out(text: str) -> None:
    """Write a line of data to stdout, at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def emit_json(value: Any) -> None:
    """Write `value` to stdout as one line of JSON."""
    import orjson

    out(orjson.dumps(value).decode())


def err(text: str) -> None:
    """Write a line for people to stderr."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def fail(error: InfertoolError, *, debug: bool) -> NoReturn:
    """Print `error` in one line (with the trace under --debug) and leave with its exit code."""
    if debug:
        traceback.print_exception(error)
    from infertool.telemetry.logs import clean

    # A server's own words may be in it.
    err("infertool: " + "\n".join(map(clean, str(error).splitlines())))
    sys.exit(error.exit_code)


def _escape(fault: UnicodeError) -> tuple[str, int]:
    import json

    assert isinstance(fault, UnicodeEncodeError)  # noqa: S101  (only an encoder calls it)
    return json.dumps(fault.object[fault.start : fault.end])[1:-1], fault.end


def show_cursor() -> None:
    """Show the terminal's cursor, which a live display hides, where nothing else will any more."""
    if os.environ.get("TERM") != "dumb":
        for stream in (sys.stdout, sys.stderr):
            if stream.isatty():
                os.write(stream.fileno(), b"\x1b[?25h\n")


def leave_quietly() -> NoReturn:
    """Leave without a word: the reader of stdout has gone (`| head`)."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(0)
