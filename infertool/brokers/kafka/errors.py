"""What librdkafka and Kafka say, in words: what happened, to what, and what to do."""
# ruff: noqa: SLF001  # librdkafka's own errors have names with an underscore

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from confluent_kafka import KafkaError

from infertool.errors import (
    ConnectionLostError,
    InfertoolError,
    ReceiptTimeoutError,
    RefusedError,
    UnroutableError,
)

# Where librdkafka says it: "sasl_ssl://host:9092/bootstrap: ... (after 3ms in state CONNECT)".
_WHERE: Final = re.compile(r"^(\w+://)?\S+:\d+/\w+: ")
_WHEN: Final = re.compile(r" \(after \d+ms in state \w+[^)]*\)(: \(.*\))?$")

_MISSING: Final = frozenset({
    KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION,
})  # fmt: skip
_PURGED: Final = frozenset({KafkaError._PURGE_QUEUE, KafkaError._PURGE_INFLIGHT, KafkaError._DESTROY})
_TIMED_OUT: Final = frozenset({
    KafkaError._MSG_TIMED_OUT, KafkaError._TIMED_OUT, KafkaError._TIMED_OUT_QUEUE, KafkaError.REQUEST_TIMED_OUT,
})  # fmt: skip
# What ends with a connection, a broker, a leader or a membership, and may be asked again. Kafka's protocol guide marks
# its own as retriable. All else of librdkafka's own words (below zero) is about the request or the settings.
_LOST: Final = frozenset({
    KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN, KafkaError._RESOLVE, KafkaError._SSL, KafkaError._FAIL,
    KafkaError._DESTROY_BROKER, KafkaError._UNKNOWN_BROKER, KafkaError._NODE_UPDATE, KafkaError._ISR_INSUFF,
    KafkaError._WAIT_COORD, KafkaError._WAIT_CACHE, KafkaError._IN_PROGRESS, KafkaError._PREV_IN_PROGRESS,
    KafkaError._RETRY, KafkaError._OUTDATED, KafkaError._INTR, KafkaError._PARTIAL, KafkaError._UNDERFLOW,
    KafkaError._STATE, KafkaError._QUEUE_FULL, KafkaError._MAX_POLL_EXCEEDED, KafkaError._ASSIGNMENT_LOST,
    KafkaError._INVALID_DIFFERENT_RECORD, KafkaError._BAD_MSG, KafkaError._CRIT_SYS_RESOURCE,
    KafkaError.BROKER_NOT_AVAILABLE, KafkaError.LEADER_NOT_AVAILABLE, KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.REPLICA_NOT_AVAILABLE, KafkaError.NETWORK_EXCEPTION, KafkaError.LISTENER_NOT_FOUND,
    KafkaError.PREFERRED_LEADER_NOT_AVAILABLE, KafkaError.ELIGIBLE_LEADERS_NOT_AVAILABLE,
    KafkaError.FENCED_LEADER_EPOCH, KafkaError.UNKNOWN_LEADER_EPOCH, KafkaError.OFFSET_NOT_AVAILABLE,
    KafkaError.UNKNOWN_TOPIC_ID, KafkaError.INCONSISTENT_TOPIC_ID, KafkaError.REASSIGNMENT_IN_PROGRESS,
    KafkaError.NOT_CONTROLLER, KafkaError.STALE_BROKER_EPOCH, KafkaError.REBOOTSTRAP_REQUIRED,
    KafkaError.NOT_ENOUGH_REPLICAS, KafkaError.NOT_ENOUGH_REPLICAS_AFTER_APPEND, KafkaError.KAFKA_STORAGE_ERROR,
    KafkaError.COORDINATOR_NOT_AVAILABLE, KafkaError.COORDINATOR_LOAD_IN_PROGRESS, KafkaError.NOT_COORDINATOR,
    KafkaError.REBALANCE_IN_PROGRESS, KafkaError.ILLEGAL_GENERATION, KafkaError.UNKNOWN_MEMBER_ID,
    KafkaError.MEMBER_ID_REQUIRED, KafkaError.FENCED_MEMBER_EPOCH, KafkaError.STALE_MEMBER_EPOCH,
    KafkaError.UNSTABLE_OFFSET_COMMIT, KafkaError.CONCURRENT_TRANSACTIONS, KafkaError.THROTTLING_QUOTA_EXCEEDED,
    KafkaError.FETCH_SESSION_ID_NOT_FOUND, KafkaError.INVALID_FETCH_SESSION_EPOCH,
    KafkaError.SHARE_SESSION_NOT_FOUND, KafkaError.INVALID_SHARE_SESSION_EPOCH,
    KafkaError.SHARE_SESSION_LIMIT_REACHED, KafkaError.FENCED_STATE_EPOCH,
})  # fmt: skip
END: Final = KafkaError._PARTITION_EOF
ALL_DOWN: Final = KafkaError._ALL_BROKERS_DOWN
LOGIN: Final = frozenset({
    KafkaError._AUTHENTICATION, KafkaError.SASL_AUTHENTICATION_FAILED, KafkaError.UNSUPPORTED_SASL_MECHANISM,
    KafkaError.ILLEGAL_SASL_STATE,
})  # fmt: skip
_RIGHTS: Final = "give the user the right (kafka-acls.sh --add)"
_ADVICE: Final[Mapping[int, str]] = {
    KafkaError.TOPIC_AUTHORIZATION_FAILED: f"{_RIGHTS} on the topic: Read to consume, Write to send, Describe for both",
    KafkaError.GROUP_AUTHORIZATION_FAILED: f"{_RIGHTS} to Read on the group, or use another one with ?group=NAME",
    KafkaError.CLUSTER_AUTHORIZATION_FAILED: f"{_RIGHTS} to IdempotentWrite on the cluster, or to Write on a topic",
    KafkaError.INVALID_TIMESTAMP: "its time is outside message.timestamp.before.max.ms or .after.max.ms of the topic",
    KafkaError.POLICY_VIOLATION: "ask who set the policy",
    KafkaError.INVALID_RECORD: "a compacted topic takes no message without a key (header kafka_key)",
    KafkaError.INCONSISTENT_GROUP_PROTOCOL: "the group has members of another protocol or assignor: use another ?group",
    KafkaError.FENCED_INSTANCE_ID: "another consumer has the same group.instance.id: give each one of its own",
    KafkaError.UNRELEASED_INSTANCE_ID: "wait until the group drops the consumer that had this group.instance.id before",
    KafkaError.UNSUPPORTED_VERSION: "the broker is too old for this",
}


def said(error: KafkaError) -> str:
    """Return what librdkafka says, without where and when it happened."""
    return _WHEN.sub("", _WHERE.sub("", str(error.str()))).strip()


def is_fatal(error: KafkaError) -> bool:
    """Return True for an error that ended its client: another one is to be made."""
    return bool(error.fatal()) or error.code() == KafkaError._FATAL


def code_of(error: KafkaError) -> int:
    """Return the code of an error; of one that ended its client, that of its cause, which stands in the text only."""
    code = int(error.code())
    if code != KafkaError._FATAL:
        return code
    return next((cause for cause in _ADVICE if str(KafkaError(cause).str()) in str(error.str())), code)


def reason_of(error: KafkaError) -> str:
    """Return the name of an error of Kafka and what is said of it."""
    name = str(KafkaError(code_of(error)).name())
    return said(error) if name.startswith("_") else f"{said(error).removeprefix('Broker: ')} ({name})"


def translate(error: KafkaError, address: str, *, of: str = "", masked: str | None = None) -> InfertoolError:
    """Return the error for what librdkafka reports. `of` is the topic or group; `masked` what it says, if changed."""
    code = code_of(error)
    reason = reason_of(error) if masked is None else masked
    about = f" ({of})" if of else ""
    if code in _MISSING:
        return missing(of, address, reason)
    if code in _TIMED_OUT:
        return ReceiptTimeoutError(f"{address} did not answer in time{about}: {reason}", address=address)
    if code in _PURGED or code in _LOST:
        return ConnectionLostError(f"the connection to {address} was lost{about}: {reason}", address=address)
    if code in LOGIN:
        return login(reason, address)
    return RefusedError(
        f"{address} refused{about}: {reason}", address=address, reason=reason, advice=_ADVICE.get(code, "")
    )


def too_large(size: int, topic: str, address: str) -> RefusedError:
    """Return the error for a message that is too large for its topic; `size` is that of its body."""
    reason = f"a message of {size} bytes is larger than the topic's max.message.bytes (MSG_SIZE_TOO_LARGE)"
    return RefusedError(
        f"{address} refused ({topic}): {reason}",
        address=address,
        reason=reason,
        advice="raise it for the topic, or message.max.bytes of the brokers",
    )


def login(reason: str, address: str) -> RefusedError:
    """Return the error for a login that failed."""
    return RefusedError(
        f"{address} refused the login: {reason}",
        address=address,
        reason=reason,
        advice="check broker.user and broker.password, and sasl.mechanism in broker.kafka",
    )


def missing(topic: str, address: str, reason: str = "") -> UnroutableError:
    """Return the error for a topic, or partition of one, that does not exist."""
    name, slash, partition = topic.partition("/")
    what = f"there is no partition {partition} of topic {name}" if slash else f"there is no topic {name}"
    return UnroutableError(
        f"{what} at {address}",
        address=address,
        reason=reason or what,
        advice="create it, check its name, or use --declare",
    )
