"""The bus of an embedded broker and an embedded channel server."""

from tests.bus.conftest import embedded_bus, session_hub

__all__ = ["embedded_bus", "session_hub"]
