"""The channels of `infertool dev`: what a bus's Phoenix application has, and a few events to rehearse failures."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

from infertool.devserver.hub.channels import OK, Answer, Channel, Definition, RefuseJoin, Reply, Stop

REBROADCAST = MappingProxyType(
    {
        "new_result": "public:results",
        "new_results": "public:results",  # a batch, {"results": [...]}; whoever listens takes it apart
        "inference_failed": "public:alerts",
        "alert": "public:alerts",
    }
)


def definitions() -> list[Definition]:
    """Return `service:*` (with the token, if one is set) and `public:*` (for anyone)."""
    return [
        Definition("service:*", join_service, handle_service),
        Definition("public:*", join_public, handle_public),
    ]


def join_service(channel: Channel, _params: object) -> dict[str, Any]:
    """Let in who brought the token."""
    if not channel.authorized:
        raise RefuseJoin("unauthorized")
    channel.flow.welcome(channel)
    return {}


def handle_service(channel: Channel, event: str, payload: object) -> Answer:
    """Broadcast results and alerts, and answer every push."""
    public_topic = REBROADCAST.get(event) if isinstance(event, str) else None
    if public_topic:
        channel.broadcast(public_topic, event, payload)
    elif event == "flow":
        channel.flow.say(channel.topic, payload)
    elif event == "echo":
        return Reply(payload)
    elif event == "boom":
        raise RuntimeError("boom")
    elif event == "stop":
        return Stop()
    return OK


def join_public(channel: Channel, params: object) -> dict[str, Any]:
    """Let in anyone; give who comes back what it missed, if it asks for that."""
    after = params.get("after") if isinstance(params, dict) else None
    return {} if after is None else channel.catch_up(after)


def handle_public(_channel: Channel, _event: str, _payload: object) -> Answer:
    """Refuse, with an answer: these topics are for listening."""
    return Reply({"reason": "read_only"}, status="error")
