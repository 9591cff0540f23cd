"""Which letter a message is. An id alone does not tell.

One id may be in two queues (a composite SEND, a virtual topic), and in one queue with two contents (a JMS property
`message-id`, a purged queue whose ids are used again). So a letter is its queue, its id and its content.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Final

from infertool.message import Message
from infertool.printable import printable

# They differ from one delivery of a letter to the next, or are in the key already.
_OF_DELIVERY: Final = frozenset({
    "message-id", "destination", "subscription", "ack", "redelivered", "receipt", "transaction", "content-length",
})  # fmt: skip
_DIGEST_BYTES: Final = 16


def key(message: Message) -> str:
    """Return "QUEUE ID DIGEST": the same for each delivery of a letter, and for its record in an archive."""
    return f"{printable(message.source)} {printable(message.id)} {_digest(message)}"


def _digest(message: Message) -> str:
    digest = blake2b(digest_size=_DIGEST_BYTES)
    headers = sorted((name, value) for name, value in message.headers.items() if name not in _OF_DELIVERY)
    for text in (message.source, message.id, message.kind, *(part for pair in headers for part in pair)):
        data = text.encode("utf-8", "surrogatepass")
        digest.update(b"%d:" % len(data))
        digest.update(data)
    digest.update(message.body)
    return digest.hexdigest()
