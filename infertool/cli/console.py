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
        loaded = in_full(load(config=self.config, profile=self.profile, environ=os.environ, flags=given))
        if loaded.settings.telemetry.log_format == "json":
            use_json()
        return loaded


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
    """Write a line for people to stderr; a JSON object with --log-format json."""
    if _is_json():
        _write_json("info", text, {})
        return
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def pass_on(line: str) -> None:
    """Write a line of a process of ours to stderr, as it would have written it itself."""
    if _is_json() and line.startswith("{"):
        from infertool.telemetry import jsonlogs

        jsonlogs.write(line)
    else:
        err(line)


def fail(error: InfertoolError, *, debug: bool) -> NoReturn:
    """Print `error` in one line (with the trace under --debug) and leave with its exit code."""
    if _is_json():
        fields: dict[str, Any] = {"error_type": type(error).__name__, "exit_code": error.exit_code}
        if debug:
            fields["trace"] = "".join(traceback.format_exception(error))
        _write_json("error", str(error), fields)
        sys.exit(error.exit_code)
    if debug:
        traceback.print_exception(error)
    from infertool.telemetry.logs import clean

    # A server's own words may be in it.
    err("infertool: " + "\n".join(map(clean, str(error).splitlines())))
    sys.exit(error.exit_code)


def use_json() -> None:
    """Make each line of stderr a JSON object from now on."""
    from infertool.telemetry import jsonlogs

    jsonlogs.wrap_stderr()


def _is_json() -> bool:
    # Not imported for this: most commands never write logs.
    module = sys.modules.get("infertool.telemetry.jsonlogs")
    return module is not None and module.is_on()


def _write_json(level: str, text: str, fields: Mapping[str, Any]) -> None:
    from infertool.telemetry import jsonlogs

    jsonlogs.write_message(level, text, fields)


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
