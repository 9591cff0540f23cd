"""The look of each screen, reached by keys alone. The pictures are in snapshots/."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from infertool.net.connection_state import ConnectionEvent, ConnectionState
from infertool.watch.bus import Bus
from infertool.watch.formatting import ASCII
from infertool.watch.state import Depths
from tests.watch.driving import check_snapshot, driven, press
from tests.watch.samples import NOW, alert, bus, failure, result


def link(state: ConnectionState, reason: str = "", retry_in_s: float | None = None) -> ConnectionEvent:
    return ConnectionEvent(state, "ws://live.example.com/socket/websocket", 1, reason, retry_in_s)


def busy() -> Bus:
    """A bus with every kind of entry: two minutes of traffic, failures, a firing rule, a gap, unknown events."""
    made = bus()
    state = made.state
    state.take_connection(link(ConnectionState.CONNECTED), NOW - 200)
    for second in range(120, 0, -1):
        state.take([result(7 * second + n, ago=float(second)) for n in range(1 + second % 5)])
    state.take_connection(link(ConnectionState.LOST, "it was restarted"), NOW - 30)
    state.take_connection(link(ConnectionState.CONNECTED), NOW - 22)
    state.take([alert("failure_rate", "firing", ago=21), failure(1, ago=20), failure(2, ago=9, attempts=1)])
    odd = {"request_id": "\x1b[31mred\u202e", "prediction": {"class": "日本語のクラス", "confidence": "much"}}
    state.take([result(9001, ago=4, received_at=NOW + 60), result(9002, ago=3, **odd), result(9003, ago=1)])
    state.depths = Depths(queue=1234, dlq=2)
    return made


async def look(name: str, made: Bus, *keys: str, **options: Any) -> None:
    async with driven([made], **options) as pilot:
        await press(pilot, *keys)
        check_snapshot(pilot, name)


SCREENS: list[tuple[str, tuple[str, ...], dict[str, Any]]] = [
    ("live_dark_80x24", (), {}),
    ("detail_light_120x30", ("t", "down", "down", "enter"), {"size": (120, 30)}),
    ("wide_160x26", ("tab", "down"), {"size": (160, 26)}),
    ("paused_sorted_ascii", ("space", "s", "down"), {"glyphs": ASCII}),
    ("filter_broken", ("/", *"class = 'A'"), {}),
    ("filter_kept", ("/", *"prediction.confidence < 0.2", "enter"), {}),
    ("help", ("?",), {"size": (84, 34)}),
    ("replay_asks", ("tab", "down", "r"), {}),
    ("palette", (":", *"exp"), {}),
    ("too_small_40x10", (), {"size": (40, 10)}),
]


@pytest.mark.parametrize(("name", "keys", "options"), SCREENS, ids=[name for name, *_ in SCREENS])
def test_a_screen(name: str, keys: tuple[str, ...], options: dict[str, Any]) -> None:
    asyncio.run(look(name, busy(), *keys, **options))


def test_a_server_that_is_not_there() -> None:
    made = bus()
    reason = (
        "nothing listens at ws://localhost:4000/socket/websocket; `infertool dev` starts a \x1b[31mchannel\u202e server"
    )
    made.state.take_connection(link(ConnectionState.LOST, reason, 5.0), NOW)
    asyncio.run(look("unreachable", made))
