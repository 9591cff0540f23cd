"""Standard output, standard error and exit codes. Data goes to stdout, everything else to stderr.

No other module of the command line writes to these streams.
"""

from __future__ import annotations

import codecs
import contextlib
import errno
import io
import os
import sys
import traceback
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TextIO

from infertool.errors import InfertoolError, OutputError, UsageError
from infertool.hangup import stderr
from infertool.telemetry import uncaught
from infertool.text.sanitize import clean, clean_json, encodable, is_terminal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from infertool.settings.load import Loaded


EXIT_INTERRUPTED = 130
_STDIN, _STDERR = 0, 2
# Taken at the start: is_terminal is False for a terminal that is gone.
_stdout_was_terminal = is_terminal(sys.stdout)

_data: TextIO | None = None


@dataclass(frozen=True, slots=True)
class Globals:
    """The options every subcommand takes."""

    config: Path | None = None
    profile: str | None = None
    debug: bool = False
    quiet: bool = False
    log_format: str | None = None

    def load(self, flags: Mapping[str, tuple[str, object]] | None = None) -> Loaded:
        """Return the settings of this run. `flags` maps dotted keys to (flag as typed, value); None means unset.

        Raises `SettingsError`.
        """
        from infertool.cli.common.options import in_full
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


def prepare_streams() -> None:
    """Make stdout write characters that its encoding lacks as JSON escapes, instead of failing.

    If a standard stream was closed (`>&-`), its descriptor is opened, so that no file or connection gets its number.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= _STDERR:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
    if sys.stdin is None:
        sys.stdin = os.fdopen(_STDIN)
    if sys.stderr is None:
        sys.stderr = os.fdopen(_STDERR, "w", closefd=False)
    codecs.register_error("infertool.escape", _escape)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="infertool.escape")


def write_data_to(stream: TextIO) -> None:
    """Write data to `stream` from now on, instead of `sys.stdout`."""
    global _data  # noqa: PLW0603  (a process has one standard output)
    _data = stream


def data_stream() -> TextIO:
    """Return the stream for data. Raises `OutputError` if stdout was closed from the start."""
    stream = _data or sys.stdout
    if stream is None:
        raise OutputError("it is closed")
    return stream


def on_terminal() -> bool:
    """Return True if standard output is a terminal."""
    return is_terminal(_data or sys.stdout)


def out(*lines: str) -> None:
    """Write lines of text to stdout, unbuffered. Control characters, line breaks included, are escaped.

    Raises `OutputError`, and `BrokenPipeError` if the reader is gone (`| head`), as every function here that writes to
    stdout.
    """
    _write_data(map(clean, lines))


def out_data(*lines: str) -> None:
    """Write lines of JSON or another format to stdout: unchanged, or escaped by `clean_json` on a terminal."""
    _write_data(map(clean_json, lines) if on_terminal() else lines)


@contextmanager
def reporting(done: Callable[[], str] | str = "") -> Iterator[None]:
    """Report work in the block on stdout. If stdout cannot be written, the error says what was `done`.

    Raises `OutputError`. If nothing was done, a reader that is gone (`| head`) is not an error.
    """
    try:
        yield
    except (OutputError, BrokenPipeError) as fault:
        if isinstance(fault, BrokenPipeError) and not done:
            raise
        give_up_stdout()
        reason = fault.reason if isinstance(fault, OutputError) else os.strerror(errno.EPIPE)
        raise OutputError(reason, done=done() if callable(done) else done) from None


def emit_json(value: Any) -> None:
    """Write `value` to stdout as one line of JSON. What is not UTF-8 in it, such as a file's name, is replaced."""
    from infertool.text import json_text

    try:
        line = json_text.dumps(value)
    except TypeError:
        line = json_text.dumps(encodable(value))
    out_data(line.decode())


def err(*lines: str) -> None:
    """Write lines for people to stderr, escaped as by `out`; as JSON objects with --log-format json.

    Lines that cannot be written are dropped: the work continues.
    """
    with contextlib.suppress(OSError, ValueError):
        if _is_json():
            for line in lines:
                _write_json("info", line, {})
        else:
            _write(stderr(), map(clean, lines))


def ask(question: str, *, otherwise: str) -> str:
    """Ask a question on the terminal and return the stripped answer. Raises `UsageError` without a terminal.

    `otherwise` is the option that agrees beforehand.
    """
    if not is_terminal(sys.stdin):
        raise UsageError("there is no terminal to ask on", advice=f"add {otherwise} to agree beforehand")
    sys.stderr.write(clean(question))
    sys.stderr.flush()
    return sys.stdin.readline().strip()


def progress(line: str) -> None:
    """Write `line` to the terminal in place of the previous progress line."""
    with contextlib.suppress(OSError):
        stream = stderr()
        stream.write(f"\r\x1b[K{clean(line)}")
        stream.flush()


def fail(error: InfertoolError, *, debug: bool) -> NoReturn:
    """Print `error` in one line (with --debug also the trace) and exit with its exit code."""
    if _is_json():
        fields: dict[str, Any] = {"error_type": type(error).__name__, "exit_code": error.exit_code}
        if debug:
            fields["trace"] = "".join(traceback.format_exception(error))
        _write_json("error", str(error), fields)
        sys.exit(error.exit_code)
    if debug:
        uncaught.say_trace(type(error), error, error.__traceback__)
    # It may contain text from a server: `err` escapes it.
    first, *rest = error.lines()
    err(f"infertool: {first}", *rest)
    sys.exit(error.exit_code)


def _write_data(lines: Iterable[str]) -> None:
    try:
        _write(data_stream(), lines)
    except BrokenPipeError:
        raise
    except OSError as fault:
        give_up_stdout()
        # If the terminal is gone, SIGHUP ends the process, unless it is ignored.
        if fault.errno != errno.EIO or not _stdout_was_terminal:
            raise OutputError(fault.strerror or str(fault)) from None


def _write(stream: TextIO, lines: Iterable[str]) -> None:
    stream.write("".join([f"{line}\n" for line in lines]))
    stream.flush()


def use_json() -> None:
    """Make each line of stderr a JSON object from now on."""
    from infertool.telemetry import json_logs

    json_logs.wrap_stderr()


def _is_json() -> bool:
    # Not imported here: most commands never write logs.
    module = sys.modules.get("infertool.telemetry.json_logs")
    return module is not None and module.is_on()


def _write_json(level: str, text: str, fields: Mapping[str, Any]) -> None:
    from infertool.telemetry import json_logs

    json_logs.write_message(level, text, fields)


def _escape(fault: UnicodeError) -> tuple[str, int]:
    import json

    assert isinstance(fault, UnicodeEncodeError)  # noqa: S101  (only an encoder calls it)
    return json.dumps(fault.object[fault.start : fault.end])[1:-1], fault.end


def show_cursor() -> None:
    """Show the terminal's cursor before an immediate exit: a live display has hidden it."""
    if os.environ.get("TERM") != "dumb":
        for stream in (_data or sys.stdout, stderr()):
            if is_terminal(stream):
                os.write(stream.fileno(), b"\x1b[?25h\n")


def give_up_stdout() -> None:
    """Discard the buffered output, so that it is not written again at exit."""
    stream = _data or sys.stdout
    if stream is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def finish() -> None:
    """Flush stdout. Raises `OutputError`, also for output of other code that could not be written."""
    try:
        if (stream := _data or sys.stdout) is not None:
            stream.flush()
    except OSError as fault:
        give_up_stdout()
        if not isinstance(fault, BrokenPipeError):
            raise OutputError(fault.strerror or str(fault)) from None


def leave_quietly() -> NoReturn:
    """Exit without a message: the reader of stdout is gone (`| head`)."""
    give_up_stdout()
    sys.exit(0)
