"""The channels of the real server that the golden transcripts were recorded from."""

from __future__ import annotations

from typing import Any, NoReturn

from infertool.embedded.channel_server.channels import OK, Channel, Definition, RefuseJoin, Reply, Stop

TOKEN = "supersecret"
BROADCASTS = {
    "new_result": "public:results",
    "new_result_ack": "public:results",
    "inference_failed": "public:alerts",
}
ANSWERS = {
    "new_result_ack": Reply({"accepted": True}),
    "new_result": None,
    "inference_failed": None,
    "ack_only": OK,
    "refuse": Reply({"reason": "bad_payload"}, status="error"),
    "odd_status": Reply({"retry_ms": 250}, status="busy"),
    "stop": Stop(),
    "stop_shutdown": Stop(),
    "stop_reply": Stop(Reply({"bye": True})),
}


def definitions() -> list[Definition]:
    return [
        Definition("service:*", join_service, handle_service),
        Definition("public:*", lambda _channel, _params: {}, handle_public),
        Definition("strict:*", lambda _channel, _params: {}, handle_nothing),
    ]


def join_service(channel: Channel, params: Any) -> dict[str, Any]:
    if not channel.authorized:
        raise RefuseJoin("unauthorized")
    if channel.topic == "service:crashjoin":
        raise RuntimeError("crash")
    if channel.topic == "service:reply":
        return {"hello": "service", "you_sent": params}
    return {}


def handle_service(channel: Channel, event: str, payload: Any) -> Reply | Stop | None:
    if event in {"echo", "bin"}:
        return Reply(payload)
    if event.startswith("flow"):
        return _flow(channel, event, payload)
    if event == "bin_push":
        channel.push(event, payload)
        return None
    if event == "bin_cast":
        channel.broadcast("public:results", event, payload)
        return None
    if event in BROADCASTS:
        name = event.removesuffix("_ack")
        channel.broadcast(BROADCASTS[event], name, payload)
    return ANSWERS[event]  # KeyError, the crash, for boom, stop_error and unknown events


def _flow(channel: Channel, event: str, payload: Any) -> Reply | None:
    if event == "flow_all":
        channel.broadcast(channel.topic, "flow", payload)
        return None
    channel.push("flow", payload)
    return Reply(payload) if event == "flow_reply" else None


def handle_public(_channel: Channel, _event: str, _payload: object) -> Reply:
    return Reply({"reason": "read_only"}, status="error")


def handle_nothing(_channel: Channel, event: str, _payload: object) -> NoReturn:
    raise KeyError(event)
