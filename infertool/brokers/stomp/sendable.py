"""Which headers of others can be sent again: ActiveMQ closes the connection over some, and acts upon others.

A JMS producer may give a string property any name and text, and over STOMP it looks like a header of the broker's own.
Measured on ActiveMQ 5.17.2: what `is_refused` names ends the connection without an ERROR.
"""

from __future__ import annotations

import re
from typing import Final

# A number in its one spelling: what Java reads from another one would come out changed.
_LONG: Final = re.compile(r"0|-?[1-9][0-9]{0,17}")
_INT: Final = re.compile(r"0|-?[1-9][0-9]{0,8}")
_FORMS: Final = {
    "priority": re.compile(r"[0-9]"),
    "expires": _LONG,
    "timestamp": _LONG,
    "JMSXGroupSeq": _INT,
    "JMSXDeliveryCount": _INT,
    "JMSDeliveryMode": re.compile(r"[12]|(NON_)?PERSISTENT"),
    "JMSExpiration": _LONG,
    "JMSPriority": re.compile(r"[0-9]"),
    "JMSTimestamp": _LONG,
    "AMQ_SCHEDULED_DELAY": _LONG,
    "AMQ_SCHEDULED_PERIOD": _LONG,
    "AMQ_SCHEDULED_REPEAT": _INT,
    "AMQ_SCHEDULED_CRON": re.compile(r"(\S+ ){4}\S+"),
    # A name of nothing is refused; lists, options and `/temp-queue/` come out as something else.
    "reply-to": re.compile(r"/(queue|topic|remote-temp-queue|remote-temp-topic)/[^\s,?]+|(?![\s/])[^,?]*(?<!\s)|"),
    "": re.compile(r"(?!)"),
}
_SCHEDULES: Final = "AMQ_SCHEDULE"
# What addresses, settles, converts, expires or dates a message in a SEND.
_ACTING: Final = frozenset({
    "destination", "message-id", "subscription", "ack", "redelivered", "content-length", "amq-msg-type", "persistent",
    "transaction", "receipt", "transformation", "scheduledJobId", "JMSXDeliveryCount", "JMSXUserID",
    "JMSDeliveryMode", "JMSExpiration", "JMSPriority", "JMSTimestamp", "JMSReplyTo", "JMSRedelivered",
    "JMSCorrelationID", "JMSType",
})  # fmt: skip


def is_refused(name: str, value: str) -> bool:
    """Return True if ActiveMQ would close the connection over this header of a SEND, or change its value."""
    form = _FORMS.get(name)
    return form is not None and form.fullmatch(value) is None


def is_sendable(name: str, value: str) -> bool:
    """Return True if this header comes out of a SEND as it went in, and makes the broker do nothing unasked-for.

    `priority`, `expires`, `timestamp`, `reply-to`, `correlation-id`, `type` and JMSXGroupID are meant to be sent again.
    """
    return not (name in _ACTING or name.startswith(_SCHEDULES) or is_refused(name, value))
