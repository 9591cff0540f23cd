"""Which of librdkafka's and Kafka's errors are a refusal, and which end with a connection: every one is decided."""

from __future__ import annotations

import pytest
from confluent_kafka import KafkaError

from infertool.brokers.kafka.errors import translate
from infertool.errors import ConnectionLostError, ReceiptTimeoutError, RefusedError, UnroutableError

# About a request, a message or a setting: the same would come again.
_REFUSALS = {
    "_BAD_COMPRESSION", "_PARTITION_EOF", "_FS", "_INVALID_ARG", "_UNKNOWN_GROUP",
    "_EXISTING_SUBSCRIPTION", "_ASSIGN_PARTITIONS", "_REVOKE_PARTITIONS", "_CONFLICT", "_UNKNOWN_PROTOCOL",
    "_NOT_IMPLEMENTED", "_AUTHENTICATION", "_NO_OFFSET", "_UNSUPPORTED_FEATURE", "_KEY_SERIALIZATION",
    "_VALUE_SERIALIZATION", "_KEY_DESERIALIZATION", "_VALUE_DESERIALIZATION", "_READ_ONLY", "_NOENT", "_INVALID_TYPE",
    "_FATAL", "_INCONSISTENT", "_GAPLESS_GUARANTEE", "_NOT_CONFIGURED", "_FENCED", "_APPLICATION", "_NOOP",
    "_AUTO_OFFSET_RESET", "_LOG_TRUNCATION",
}  # fmt: skip
_MISSING = {"_UNKNOWN_TOPIC", "_UNKNOWN_PARTITION"}
_LATE = {"_MSG_TIMED_OUT", "_TIMED_OUT", "_TIMED_OUT_QUEUE"}

_LOCAL = sorted(name for name in dir(KafkaError) if name.startswith("_") and isinstance(getattr(KafkaError, name), int))
# Of those that Kafka's protocol guide calls retriable, what the adapter may be told.
_RETRIABLE = (
    "LEADER_NOT_AVAILABLE", "NOT_LEADER_FOR_PARTITION", "REPLICA_NOT_AVAILABLE", "NETWORK_EXCEPTION",
    "COORDINATOR_LOAD_IN_PROGRESS", "COORDINATOR_NOT_AVAILABLE", "NOT_COORDINATOR", "NOT_ENOUGH_REPLICAS",
    "NOT_ENOUGH_REPLICAS_AFTER_APPEND", "NOT_CONTROLLER", "CONCURRENT_TRANSACTIONS", "KAFKA_STORAGE_ERROR",
    "FETCH_SESSION_ID_NOT_FOUND", "INVALID_FETCH_SESSION_EPOCH", "LISTENER_NOT_FOUND", "FENCED_LEADER_EPOCH",
    "UNKNOWN_LEADER_EPOCH", "OFFSET_NOT_AVAILABLE", "PREFERRED_LEADER_NOT_AVAILABLE",
    "ELIGIBLE_LEADERS_NOT_AVAILABLE", "UNSTABLE_OFFSET_COMMIT", "THROTTLING_QUOTA_EXCEEDED", "UNKNOWN_TOPIC_ID",
    "INCONSISTENT_TOPIC_ID", "SHARE_SESSION_NOT_FOUND", "INVALID_SHARE_SESSION_EPOCH", "SHARE_SESSION_LIMIT_REACHED",
)  # fmt: skip
_MEMBERSHIP = (
    "REBALANCE_IN_PROGRESS", "ILLEGAL_GENERATION", "UNKNOWN_MEMBER_ID", "MEMBER_ID_REQUIRED", "FENCED_MEMBER_EPOCH",
    "STALE_MEMBER_EPOCH",
)  # fmt: skip


def _kind_of(name: str) -> type[Exception]:
    return type(translate(KafkaError(getattr(KafkaError, name)), "kafka://host", of="orders"))


@pytest.mark.parametrize("name", _LOCAL)
def test_what_the_client_says_by_itself_is_a_refusal_only_where_it_would_come_again(name: str) -> None:
    if name in _REFUSALS:
        expected: type[Exception] = RefusedError
    elif name in _MISSING:
        expected = UnroutableError
    else:
        expected = ReceiptTimeoutError if name in _LATE else ConnectionLostError
    assert _kind_of(name) is expected


@pytest.mark.parametrize("name", [*_RETRIABLE, *_MEMBERSHIP])
def test_what_may_be_asked_again_is_no_refusal(name: str) -> None:
    assert _kind_of(name) is ConnectionLostError


@pytest.mark.parametrize(
    "name", ["INVALID_RECORD", "INVALID_TIMESTAMP", "TOPIC_AUTHORIZATION_FAILED", "MSG_SIZE_TOO_LARGE", "INVALID_MSG"]
)
def test_a_refusal_stays_one(name: str) -> None:
    assert _kind_of(name) is RefusedError
