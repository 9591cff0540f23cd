"""SEND frames become stored messages."""

from __future__ import annotations

from infertool.brokers.stomp.frames import Frame
from infertool.devserver.broker.errors import ProtocolError
from infertool.devserver.broker.messages import StoredMessage
from infertool.devserver.broker.schedule import take_schedule

_DEFAULT_PRIORITY = 4
_HIGHEST_PRIORITY = 9
# Read by the broker and written anew on a MESSAGE, or (JMSX...) not shown over STOMP at all.
_NOT_KEPT = (
    "destination", "receipt", "transaction", "content-length", "message-id", "subscription", "redelivered",
    "persistent", "JMSXGroupID", "JMSXGroupSeq", "JMSXUserID",
)  # fmt: skip


def to_message(frame: Frame, message_id: str, now_ms: int) -> StoredMessage:
    """Return the message of a SEND; its `destination` header is set when it is routed.

    Raises ProtocolError where ActiveMQ closes the connection: a header that must be a number is none.
    """
    sent = frame.headers
    headers = sent.copy()
    for name in _NOT_KEPT:
        headers.pop(name, None)
    priority = min(max(_number(sent, "priority", _DEFAULT_PRIORITY), 0), _HIGHEST_PRIORITY)
    expires = _number(sent, "expires", 0)
    headers["message-id"] = message_id
    headers["priority"] = str(priority)
    headers["expires"] = str(expires)
    headers["timestamp"] = str(_number(sent, "timestamp", now_ms))
    # A BytesMessage shows its length, a TextMessage does not.
    if "content-length" in sent or sent.get("amq-msg-type") == "bytes":
        headers["content-length"] = str(len(frame.body))
    persistent = sent.get("persistent") == "true"
    if persistent:
        headers["persistent"] = "true"
    schedule = take_schedule(headers)
    return StoredMessage(message_id, headers, frame.body, now_ms, priority, persistent, expires, schedule=schedule)


def _number(headers: dict[str, str], name: str, default: int) -> int:
    text = headers.get(name)
    if text is None:
        return default
    try:
        return int(text)
    except ValueError:
        raise ProtocolError(f"{name} is no number: {text[:40]!r}", fatal=True) from None
