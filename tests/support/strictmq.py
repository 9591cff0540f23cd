"""A real ActiveMQ whose users have different rights, and which has no statistics plugin."""

from __future__ import annotations

from pathlib import Path

from tests.support.activemq import ActiveMQ

EVENTS, DEAD = "events", "dead.letters"
# What each may do besides using temporary queues, unless it is a reader.
USERS = {"worker": "all", "nodead": "events, but not the dead-letter queue", "reader": "read only", "outsider": "none"}
_ENTRY = '<authorizationEntry {kind}="{name}" read="{read}" write="{write}" admin="{admin}"/>'
_ENTRIES = (
    ("queue", "&gt;", "admins", "admins", "admins"),
    ("queue", f"{EVENTS}.&gt;", "admins,workers,nodeads,readers", "admins,workers,nodeads", "admins,workers,readers"),
    ("queue", f"{DEAD}.&gt;", "admins,workers", "admins,workers", "admins,workers"),
    ("topic", "&gt;", "all", "all", "all"),
)


class StrictActiveMQ(ActiveMQ):
    """Each of `USERS` has its name as its password."""

    def __init__(self, base: Path) -> None:
        super().__init__(base)
        config = base / "conf" / "activemq.xml"
        users = "".join(
            f'<authenticationUser username="{name}" password="{name}" groups="{name}s,all"/>' for name in USERS
        )
        entries = "".join(
            _ENTRY.format(kind=kind, name=name, read=read, write=write, admin=admin)
            for kind, name, read, write, admin in _ENTRIES
        )
        temporary = '<tempDestinationAuthorizationEntry read="admins,workers,nodeads" write="admins,workers,nodeads"'
        authorization = (
            f"<authorizationPlugin><map><authorizationMap><authorizationEntries>{entries}</authorizationEntries>"
            f'<tempDestinationAuthorizationEntry>{temporary} admin="admins,workers,nodeads"/>'
            "</tempDestinationAuthorizationEntry></authorizationMap></map></authorizationPlugin>"
        )
        text = config.read_text().replace("<statisticsBrokerPlugin/>", "")
        text = text.replace('groups="admins,users"/>', f'groups="admins,all"/>{users}')
        config.write_text(
            text.replace("</simpleAuthenticationPlugin>", f"</simpleAuthenticationPlugin>{authorization}")
        )
