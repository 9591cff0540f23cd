"""The temporary destinations of one client. No I/O."""

from __future__ import annotations

from infertool.devserver.broker import destinations
from infertool.devserver.broker.core import Broker
from infertool.devserver.broker.destinations import Destination, Kind

_REMOTE = {Kind.TEMP_QUEUE: Kind.REMOTE_TEMP_QUEUE, Kind.TEMP_TOPIC: Kind.REMOTE_TEMP_TOPIC}


class Temporaries:
    """Maps what the client calls `/temp-queue/x` to the name others use. Made at first use, deleted with it."""

    def __init__(self, broker: Broker, session_id: str) -> None:
        self._broker = broker
        self._session_id = session_id
        self._remote: dict[Destination, Destination] = {}

    def resolve(self, text: str) -> Destination:
        """Read a destination header. Raises DestinationError."""
        local = destinations.parse(text)
        kind = _REMOTE.get(local.kind)
        if kind is None:
            return local
        if local not in self._remote:
            name = f"{self._session_id}:{len(self._remote) + 1}"
            self._remote[local] = Destination(kind, name)
            self._broker.add_temporary(name, local)
        return self._remote[local]

    def may_receive_from(self, destination: Destination) -> bool:
        """Tell whether this client may subscribe: not to another one's temporary destination (JMS 1.1, 4.4.3)."""
        return destination.kind not in _REMOTE.values() or destination in self._remote.values()

    def clear(self) -> None:
        """Delete them all."""
        for remote in self._remote.values():
            self._broker.remove_temporary(remote.name)
        self._remote.clear()
