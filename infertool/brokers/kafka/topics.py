"""Which topics there are. librdkafka would have the broker make a missing one, so each is looked up before its use."""

from __future__ import annotations

import logging
import threading
import time
from concurrent.futures import Future
from typing import Any, Final

from confluent_kafka import TopicCollection
from confluent_kafka.admin import NewTopic

from infertool.brokers.kafka import errors
from infertool.brokers.kafka.session import Session
from infertool.errors import RefusedError, UnroutableError

_log = logging.getLogger(__name__)

# A topic may be deleted, or get more partitions.
_KNOWN_S: Final = 60.0
# The metadata of a new topic spreads over the brokers.
_SPREAD_S: Final = 10.0
_AGAIN_S: Final = 0.1
_EXISTS: Final = "TOPIC_ALREADY_EXISTS"


class Topics:
    """Knows topics and the number of their partitions. Missing ones are made where `makes` is True."""

    def __init__(self, *, makes: bool) -> None:
        self._makes = makes
        self._lock = threading.Lock()
        self._known: dict[str, tuple[int, float]] = {}

    def partitions(self, session: Session, topic: str, timeout_s: float) -> int | None:
        """Return the number of partitions, None if there is no such topic. Raises RefusedError, ConnectionLostError."""
        with self._lock:
            count, until = self._known.get(topic, (0, 0.0))
        if time.monotonic() < until:
            return count
        try:
            count = len(describe(session, topic, timeout_s).partitions)
        except UnroutableError:
            return None
        with self._lock:
            self._known[topic] = count, time.monotonic() + _KNOWN_S
        return count

    def require(self, session: Session, topic: str, timeout_s: float, *, declare: bool = True) -> int:
        """Return the number of partitions of a topic; with `declare`, it is made where the settings allow it.

        Raises UnroutableError, RefusedError, ConnectionLostError.
        """
        count = self.partitions(session, topic, timeout_s)
        if count is None and self._makes and declare:
            make(session, topic, timeout_s)
            count = self._made(session, topic, timeout_s)
        if count is None:
            raise errors.missing(topic, session.address)
        return count

    def _made(self, session: Session, topic: str, timeout_s: float) -> int | None:
        deadline = time.monotonic() + max(timeout_s, _SPREAD_S)
        while (count := self.partitions(session, topic, timeout_s)) is None and time.monotonic() < deadline:
            time.sleep(_AGAIN_S)
        return count

    def forget(self, topic: str) -> None:
        """Look a topic up anew the next time: it may be gone."""
        with self._lock:
            self._known.pop(topic, None)


def describe(session: Session, topic: str, timeout_s: float, *, rights: bool = False) -> Any:
    """Return what the broker tells of a topic. Raises UnroutableError, RefusedError, ConnectionLostError."""
    return session.ask(
        lambda admin: admin.describe_topics(
            TopicCollection([topic]), include_authorized_operations=rights, request_timeout=timeout_s
        )[topic],
        timeout_s,
        of=topic,
    )


def begin_describe(session: Session, topic: str, timeout_s: float) -> Future[Any]:
    """Ask for a topic's description, which has its `topic_id`: another one once it was deleted and made anew.

    Raises ConnectionLostError.
    """
    return session.begin(
        lambda admin: admin.describe_topics(TopicCollection([topic]), request_timeout=timeout_s)[topic]
    )


def make(session: Session, topic: str, timeout_s: float) -> None:
    """Make a topic, with as many partitions and replicas as the broker has by default.

    Another may make it just now. Raises RefusedError, ConnectionLostError.
    """
    try:
        session.ask(
            lambda admin: admin.create_topics([NewTopic(topic, -1, -1)], request_timeout=timeout_s)[topic],
            timeout_s + 1,
            of=topic,
        )
    except RefusedError as refused:
        if _EXISTS not in refused.reason:
            raise
    else:
        _log.info("created the topic %s at %s", topic, session.address)
