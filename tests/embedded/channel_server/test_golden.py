"""The channel server answers a recorded client as Phoenix did. All omissions and differences are listed here."""

from __future__ import annotations

from typing import Any

import pytest

from infertool.embedded.channel_server.channels import Limits
from tests.embedded.channel_server.golden import FOLDER, Replay, load
from tests.embedded.channel_server.running import RunningHub
from tests.embedded.channel_server.server_under_test import TOKEN, definitions

VERSIONS = ("1.7.24", "1.8.12")
PREFIXES = ("v1_", "v2_", "http_", "idle_timeout_fast", "ws_", "oversize_")
IDLE_SCALE = 1 / 3

LEFT_OUT = {
    "v1_presence": "the hub has no presence",
    "v2_presence": "the hub has no presence",
    "v1_blocked_channel_heartbeat": "the hub's channels never block",
    "v2_blocked_channel_heartbeat": "the hub's channels never block",
    "v1_server_disconnects_socket": "the hub has no socket ids",
    "v2_server_disconnects_socket": "the hub has no socket ids",
    "v2_server_sigkill": "test_process.py kills a real process",
    "v2_slow_subscriber": "the hub drops a slow subscriber by size, not by time: test_slow_subscriber.py",
    "http_connect_info": "a socket of the recorded server only",
}
LEFT_OUT_CONNECTIONS = {
    ("http_check_origin", "mismatch"): "127.0.0.1 is the hub's own address",
    ("http_check_origin", "check_off"): "the hub always checks",
    ("http_connect_refusals", "error_tuple_default_handler"): "the hub has one kind of bad token",
    ("http_connect_refusals", "error_tuple_custom_handler"): "the hub has one kind of bad token",
    ("http_connect_refusals", "bad_token_custom_handler"): "a socket of the recorded server only",
    ("http_connect_refusals", "connect_raises"): "the hub's admission does not raise",
    ("http_connect_refusals", "v2only_with_v1"): "a socket of the recorded server only",
    ("http_connect_refusals", "v2only_without_vsn"): "a socket of the recorded server only",
    ("http_not_upgrades", "zip_socket_with_deflate_offer"): "the hub does not compress",
    ("http_subprotocol", "phoenix_and_auth"): "the hub's socket reads auth tokens",
    ("http_subprotocol", "phoenix_only"): "the hub's socket reads auth tokens",
    ("oversize_frame", "fragmented"): "the hub's limit is the message's, so that fragments do not fill its memory",
    ("v1_server_shutdown_sigterm", "after"): "no server is left to answer",
    ("v2_server_shutdown_sigterm", "after"): "no server is left to answer",
}
# Where the versions differ, the hub does as 1.8.12.
LEFT_OUT_IN_1_7 = {
    ("http_subprotocol", "auth_ok"): "1.7 knows no auth_token",
    ("http_subprotocol", "auth_wrong"): "1.7 knows no auth_token",
    ("http_subprotocol", "auth_bad_base64"): "1.7 knows no auth_token",
    ("http_subprotocol", "auth_none"): "1.7 knows no auth_token",
    ("http_vsn_variants", "array_param"): "500 in 1.7",
    ("oversize_frame_default_limit", "n8000100"): "the limit was 8 MB",
    ("ws_control_frames", "unmasked"): "Bandit 1.11 took unmasked frames",
}
ANSWERED_ONLY_BY_1_7 = {
    "v2_duplicate_join": '["2","3","service:inference","phx_reply",{"response":{"old":1},"status":"ok"}]',
    "v2_binary_frames": "AQIAEQIxMXNlcnZpY2U6aW5mZXJlbmNlb2t4",
}


def relevant() -> list[tuple[str, str]]:
    return [
        (version, path.stem)
        for version in VERSIONS
        for path in sorted((FOLDER / version).glob("*.jsonl"))
        if path.stem.startswith(PREFIXES) and path.stem not in LEFT_OUT
    ]


def expected_steps(version: str, name: str) -> list[dict[str, Any]]:
    left_out = {conn for transcript, conn in LEFT_OUT_CONNECTIONS if transcript == name}
    if version == "1.7.24":
        left_out |= {conn for transcript, conn in LEFT_OUT_IN_1_7 if transcript == name}
    steps = [step for step in load(version, name) if step["conn"] not in left_out]
    return as_1_8(name, steps) if version == "1.7.24" else steps


def as_1_8(name: str, steps: list[dict[str, Any]]) -> list[dict[str, Any]]:
    kept = [step for step in steps if step["data"] != ANSWERED_ONLY_BY_1_7.get(name)]
    return [with_crash_reason(step) if step["type"] == "text" else step for step in kept]


def with_crash_reason(step: dict[str, Any]) -> dict[str, Any]:
    """1.7 sends an empty payload with phx_error."""
    changed = step["data"].replace('"phx_error",{}', '"phx_error",{"reason":"channel_crash"}')
    changed = changed.replace('"phx_error","payload":{}', '"phx_error","payload":{"reason":"channel_crash"}')
    return {**step, "data": changed}


def limits(name: str) -> Limits:
    if name == "oversize_frame":
        # Bandit's 1024 count the frame's header of 8 bytes, too.
        return Limits(max_frame_bytes=1016)
    if name.startswith("idle_timeout_fast"):
        return Limits(idle_s=3 * IDLE_SCALE)
    return Limits()


@pytest.mark.parametrize(("version", "name"), relevant())
def test_the_channel_server_answers_as_phoenix_did(version: str, name: str) -> None:
    time_scale = IDLE_SCALE if name.startswith("idle_timeout_fast") else None
    with RunningHub(definitions(), TOKEN, limits(name)) as hub:
        Replay(hub, time_scale=time_scale).run(expected_steps(version, name))


@pytest.mark.parametrize(("name", "conn"), [*LEFT_OUT_CONNECTIONS, *LEFT_OUT_IN_1_7])
def test_what_is_left_out_exists(name: Any, conn: Any) -> None:
    assert any(step["conn"] == conn for step in load("1.7.24", name))
