"""How a group stands with a topic, and how that is asked."""

from __future__ import annotations

from pathlib import Path

import pytest

from infertool.brokers.kafka import standing

_FOLDER = Path(standing.__file__).parent
# As Kafka's protocol has it: a version, then topics, each with partitions.
_VERSION, _TWO, _USER_DATA = b"\0\0", b"\0\0\0\2", b"\0\0\0\0"
_OTHER = b"\0\x0bmore.events" + b"\0\0\0\1" + b"\0\0\0\0"


@pytest.mark.parametrize(
    ("assignment", "has"),
    [
        (b"", False),
        (_VERSION + _TWO + _OTHER + b"\0\6events" + b"\0\0\0\1" + b"\0\0\0\3" + _USER_DATA, True),
        (_VERSION + _TWO + b"\0\6events" + b"\0\0\0\0" + _OTHER + _USER_DATA, False),
        (_VERSION + b"\0\0\0\1" + _OTHER + _USER_DATA, False),
    ],
    ids=["none", "one", "empty", "another"],
)
def test_partitions_of_a_topic_in_an_assignment(assignment: bytes, has: bool) -> None:
    assert standing.has_partition(assignment, "events") is has


def test_only_a_diagnosis_asks_coordinators_by_an_admin_client() -> None:
    """Such a request ends the process when the broker dies at the wrong moment (librdkafka 4605): no consumer may."""
    requests = ("list_consumer_group_offsets(", "describe_consumer_groups(", "delete_consumer_group")
    users = {path.stem for path in _FOLDER.glob("*.py") for each in requests if each in path.read_text()}
    assert users == {"examine"}
