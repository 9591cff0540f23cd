"""The rights on a topic and its group, and what becomes of its messages, asked for without taking or leaving one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from confluent_kafka.admin import AclOperation, ConfigResource, ResourceType

from infertool.brokers.examining import ConnectionFacts, QueueAccess, Right
from infertool.brokers.kafka import topics
from infertool.brokers.kafka.session import Session
from infertool.errors import RefusedError, UnroutableError

_NO_TOPIC: Final = "there is no such topic"
_NO_GROUP: Final = "GROUP_ID_NOT_FOUND"
_FOREVER: Final = "-1"
_KIB: Final = 1024
_DAY_S, _HOUR_S, _MINUTE_S = 86_400, 3600, 60


def facts(session: Session) -> ConnectionFacts:
    """Return the facts of a connection."""
    nodes = len(session.cluster.nodes)
    interval_s = session.clients.settings.heartbeat_s or None
    return ConnectionFacts(
        sends_every_s=interval_s,
        receives_every_s=interval_s,
        product=f"Apache Kafka, cluster {session.cluster.cluster_id} of {nodes} broker{'s' if nodes > 1 else ''}",
        no_round_trip="a topic is not a queue of one connection",
    )


def examine(session: Session, topic: str, group: str, timeout_s: float, *, makes: bool) -> QueueAccess:
    """See `infertool.brokers.examining.Examined`, but for what the caller measures."""
    try:
        found = topics.describe(session, topic, timeout_s, rights=True)
    except UnroutableError:
        unknown = Right(allowed=None, reason=_NO_TOPIC)
        return QueueAccess(exists=False, is_made=makes, read=unknown, write=unknown, is_empty=True, untold=_NO_TOPIC)
    except RefusedError as refused:
        unknown = Right(allowed=False, reason=refused.reason)
        return QueueAccess(exists=None, read=unknown, write=unknown, untold=refused.reason)
    rights = found.authorized_operations
    policy, untold = _policy(session, topic, len(found.partitions), timeout_s)
    return QueueAccess(
        exists=True,
        read=_both(_right(rights, AclOperation.READ, f"Read on the topic {topic}"), _group(session, group, timeout_s)),
        write=_right(rights, AclOperation.WRITE, f"Write on the topic {topic}"),
        policy=policy,
        untold=untold,
    )


def _right(rights: Any, operation: Any, name: str) -> Right:
    if rights is None:
        return Right(allowed=None, reason="the broker does not tell this user its rights")
    allowed = operation in rights or AclOperation.ALL in rights
    return Right(allowed=allowed, reason="" if allowed else f"the user lacks the right to {name}")


def _group(session: Session, group: str, timeout_s: float) -> Right:
    try:
        told = session.ask(
            lambda admin: admin.describe_consumer_groups(
                [group], include_authorized_operations=True, request_timeout=timeout_s
            )[group],
            timeout_s + 1,
            of=f"group {group}",
        )
    except RefusedError as refused:
        if _NO_GROUP in refused.reason:
            # Its first member makes it; whether this user may is shown then.
            return Right(allowed=True)
        return Right(allowed=False, reason=refused.reason)
    return _right(told.authorized_operations, AclOperation.READ, f"Read on the group {group}")


def _both(topic: Right, group: Right) -> Right:
    """Return the right to consume, which needs one on the topic and one on the group."""
    return topic if topic.allowed is not True else group


def _policy(session: Session, topic: str, partitions: int, timeout_s: float) -> tuple[str | None, str]:
    """Return what Kafka does with messages of a topic, and why that is not known."""
    resource = ConfigResource(ResourceType.TOPIC, topic)
    try:
        told = session.ask(
            lambda admin: admin.describe_configs([resource], request_timeout=timeout_s)[resource],
            timeout_s + 1,
            of=topic,
        )
    except RefusedError as refused:
        return None, refused.reason
    return words({name: str(entry.value) for name, entry in told.items()}, partitions), ""


def words(config: Mapping[str, str], partitions: int) -> str:
    """Return the settings of a topic that say what becomes of its messages, in words."""
    parts = [f"{partitions} partition{'s' if partitions != 1 else ''}"]
    cleanup = config.get("cleanup.policy", "delete")
    if "compact" in cleanup:
        parts.append("compacted: the last message of each key is kept")
    if "delete" in cleanup:
        parts.append(_kept(config.get("retention.ms", _FOREVER), config.get("retention.bytes", _FOREVER)))
    if largest := config.get("max.message.bytes"):
        parts.append(f"messages up to {_size(int(largest))}")
    return ", ".join(parts)


def _kept(milliseconds: str, limit: str) -> str:
    texts = []
    if milliseconds != _FOREVER:
        texts.append(_span(int(milliseconds) // 1000))
    if limit != _FOREVER:
        texts.append(f"{_size(int(limit))} a partition")
    if not texts:
        return "kept for ever"
    return f"kept for {' or '.join(texts)}, settled or not, then deleted"


def _size(count: int) -> str:
    return f"{count / _KIB:.4g} KiB" if count < _KIB * _KIB else f"{count / _KIB / _KIB:.4g} MiB"


def _span(seconds: int) -> str:
    for unit, name in ((_DAY_S, "days"), (_HOUR_S, "hours"), (_MINUTE_S, "minutes")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.3g} {name}"
    return f"{seconds} s"
