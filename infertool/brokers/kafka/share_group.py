"""What holds for a share group: how long its consumers may hold an event, and how often it is delivered."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from infertool.brokers.kafka.session import Session
from infertool.errors import ConnectionLostError, RefusedError

_log = logging.getLogger(__name__)

_LOCK, _LIMIT = "share.record.lock.duration.ms", "share.delivery.count.limit"
_USABLE: Final = 0.9
# A new group would begin with what is sent from now on, and get events of aborted transactions.
_WANTED: Final[Mapping[str, str]] = {
    "share.auto.offset.reset": "earliest", "share.isolation.level": "read_committed",
}  # fmt: skip


UNTOLD: Final = (
    "Kafka does not tell its clients what a share group has not settled; "
    "kafka-share-groups.sh --describe --offsets --group {} does"
)


@dataclass(frozen=True, slots=True)
class Terms:
    """After `lock_s` an event is delivered to another consumer; after `most_deliveries` the group forgets it."""

    lock_s: float = 30.0
    most_deliveries: int = 5

    @property
    def usable_s(self) -> float:
        """How long a consumer works on an event before it releases it, so that the broker takes that."""
        return self.lock_s * _USABLE


@dataclass(frozen=True, slots=True)
class Group:
    """A share group and its terms."""

    name: str
    terms: Terms


def prepare(session: Session, group: str, timeout_s: float) -> Terms:
    """Have the group begin at the beginning of a topic, and without aborted transactions; return its terms.

    What an administrator set is left as it is. A user who may not do it gets a warning. Raises `ConnectionLostError`.
    """
    try:
        told = _described(session, group, timeout_s)
        if missing := {name: value for name, value in _WANTED.items() if name in told and told[name].is_default}:
            _set(session, group, missing, timeout_s)
    except ConnectionLostError:
        raise
    except RefusedError as refused:
        _log.warning(
            "the settings of the share group %s cannot be read and set (%s): a new group begins with what is sent from "
            "now on, and gets events of aborted transactions; set %s",
            group, refused.reason, " and ".join(f"{name}={value}" for name, value in _WANTED.items()),
        )  # fmt: skip
        return Terms()
    return terms({name: str(entry.value) for name, entry in told.items()})


def told(session: Session, group: str, timeout_s: float) -> Terms:
    """Return the terms of a group, as they are. Raises `RefusedError`, `ConnectionLostError`."""
    return terms({name: str(entry.value) for name, entry in _described(session, group, timeout_s).items()})


def terms(config: Mapping[str, str]) -> Terms:
    """Return the terms that a group's settings say."""
    known = Terms()
    return Terms(int(config.get(_LOCK, known.lock_s * 1000)) / 1000, int(config.get(_LIMIT, known.most_deliveries)))


def _described(session: Session, group: str, timeout_s: float) -> Any:
    resource = ConfigResource(ResourceType.GROUP, group)
    return session.ask(
        lambda admin: admin.describe_configs([resource], request_timeout=timeout_s)[resource],
        timeout_s + 1,
        of=f"group {group}",
    )


def _set(session: Session, group: str, values: Mapping[str, str], timeout_s: float) -> None:
    changes = [ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET) for name, value in values.items()]
    resource = ConfigResource(ResourceType.GROUP, group, incremental_configs=changes)
    session.ask(
        lambda admin: admin.incremental_alter_configs([resource], request_timeout=timeout_s)[resource],
        timeout_s + 1,
        of=f"group {group}",
    )
