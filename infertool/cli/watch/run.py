"""One run of `infertool watch`: buses from profiles or a recording, on a screen or printed once."""

from __future__ import annotations

import dataclasses
import os
import sys
import termios
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from infertool.channels.recording import STDIN, Recorder, RecordReader
from infertool.cli.common import console
from infertool.cli.common.console import Globals
from infertool.cli.common.options import check_apart
from infertool.cli.common.signals import stopped_by_signals
from infertool.errors import UsageError
from infertool.settings import Settings
from infertool.text.input import parse_stats_url
from infertool.watch import formatting, keys, snapshot
from infertool.watch.bus import Bus, LiveSource, RecordingSource
from infertool.watch.state import State

_LOOK_S = 5.0
# Ends what Textual begins: the mouse, pasting, resizes and focus events, no line wrap, the keyboard's protocol, the
# alternate screen, a hidden cursor.
_LEAVE = (
    b"\x1b[?1000l\x1b[?1003l\x1b[?1015l\x1b[?1006l\x1b[?1016l\x1b[?2004l\x1b[?2048l\x1b[?1004l\x1b[?7h\x1b[<u"
    b"\x1b[?1049l\x1b[?25h"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The options of `watch`."""

    topics: tuple[str, ...]
    buses: tuple[str, ...]
    recording: str | None
    speed: float
    record: str | None
    once: bool
    seconds: float | None
    as_json: bool
    stats_url: str = ""


def run(given: Globals, flags: Mapping[str, tuple[str, object]], options: Options) -> None:
    """Watch until the user quits. Raises `SettingsError`, `UsageError`, `RecordError`; with --once `ServerError`."""
    _check(options)
    settings = {name: _load(given, name, flags) for name in options.buses or (given.profile,)}
    first = next(iter(settings.values()))
    chosen = keys.resolve(first.watch.keys)
    with ExitStack() as stack:
        recorder = Recorder(options.record) if options.record else None
        if recorder:
            stack.callback(recorder.close)
        # Standard input may be the recording; the keyboard takes its place.
        record_path = options.recording or ""
        if not options.once and not sys.stdin.isatty():
            stdin_path = _give_stdin_to_keyboard()
            record_path = stdin_path if options.recording == STDIN else record_path
        stats_url = parse_stats_url(options.stats_url) if options.stats_url else ""
        if options.recording is not None:
            buses = [_recorded(given, record_path, options, first, recorder)]
        else:
            buses = [
                _live(given, name, tree, options.topics, recorder, stats_url=stats_url)
                for name, tree in settings.items()
            ]
        for bus in buses:
            stack.callback(bus.stop)
        if options.once:
            _print_once(buses, options)
        else:
            _show(buses, chosen, first.watch.theme)


def _check(options: Options) -> None:
    if options.recording is not None and (options.buses or options.topics):
        raise UsageError("--from plays a record; it takes neither topics nor --bus")
    if options.record is not None and options.recording not in {None, STDIN}:
        check_apart("--record", Path(options.record), ("--from", Path(options.recording)))
    if options.stats_url and (options.recording is not None or len(options.buses) > 1):
        raise UsageError("--stats-url follows one running consumer", advice="leave out --from, and all but one --bus")
    if options.seconds is not None and not options.once:
        raise UsageError("--for is for --once", advice="leave the view with q")
    if options.once:
        return
    if not console.on_terminal() or os.environ.get("TERM") == "dumb":
        raise UsageError("there is no terminal to show it on", advice="--once prints the view, tail the events")
    if options.recording == STDIN and sys.stdin.isatty():
        raise UsageError("--from - reads standard input, but that is the terminal", advice="pipe a record into it")


def _load(given: Globals, profile: str | None, flags: Mapping[str, tuple[str, object]]) -> Settings:
    return dataclasses.replace(given, profile=profile).load(flags).settings


def _live(
    given: Globals,
    profile: str | None,
    settings: Settings,
    topics: tuple[str, ...],
    recorder: Recorder | None,
    *,
    stats_url: str,
) -> Bus:
    followed = topics or (settings.phoenix.result_topic, settings.phoenix.alert_topic)
    state = State(profile or "bus", settings.watch.keep)
    source = LiveSource(settings, followed, label=profile or "")
    url = settings.telemetry.trace_url
    options = _options(given, profile)
    return Bus(state, source, options=options, recorder=recorder, trace_url=url, stats_url=stats_url)


def _recorded(given: Globals, path: str, options: Options, settings: Settings, recorder: Recorder | None) -> Bus:
    reader = RecordReader(path)
    if options.recording == STDIN:
        reader.name = "standard input"
    state = State(reader.name, settings.watch.keep, recording=True)
    source, url = RecordingSource(reader, options.speed), settings.telemetry.trace_url
    return Bus(state, source, options=_options(given, given.profile), recorder=recorder, trace_url=url)


def _options(given: Globals, profile: str | None) -> list[str]:
    """Return the global options that make another `infertool` use the same settings."""
    config = [f"--config={given.config}"] if given.config else []
    return [*config, *([f"--profile={profile}"] if profile else [])]


def _print_once(buses: list[Bus], options: Options) -> None:
    seconds = options.seconds
    if seconds is None and options.recording is None:
        seconds = _LOOK_S
    for bus in buses:
        bus.start()
    snapshot.watch(buses, seconds)
    for bus in buses:
        snapshot.check_recorded(bus)
        if options.as_json:
            console.emit_json(snapshot.document(bus))
        else:
            console.out(*snapshot.text(bus).split("\n"))
            if bus.state.note:
                console.err(bus.state.note)


def _show(buses: list[Bus], chosen: Mapping[str, tuple[str, ...]], theme: str) -> None:
    from infertool.watch.app import WatchApp

    for name in ("COLUMNS", "LINES"):  # with these set, Textual would not follow resizes
        os.environ.pop(name, None)
    signs = formatting.of_terminal(os.environ)
    app = WatchApp(buses, keys=chosen, theme=theme, glyphs=signs, folder=Path.cwd())
    with stopped_by_signals(app.end, "", restore=_restoring()):
        app.run()
    # Errors on the screen are gone with it.
    for bus in buses:
        snapshot.check_recorded(bus)


def _restoring() -> Callable[[], None]:
    """Return a function that gives the terminal back as it is now, for an end that Textual does not see."""
    modes = termios.tcgetattr(0)

    def restore() -> None:
        with suppress(OSError, termios.error):
            os.write(2, _LEAVE)
            termios.tcsetattr(0, termios.TCSANOW, modes)

    return restore


def _give_stdin_to_keyboard() -> str:
    """Make the terminal the standard input. Return a path at which the previous standard input can be read."""
    record = os.dup(0)
    try:
        terminal = os.open("/dev/tty", os.O_RDWR)
    except OSError:
        raise UsageError("there is no terminal for the keyboard", advice="add --once") from None
    os.dup2(terminal, 0)
    os.close(terminal)
    return f"/dev/fd/{record}"
