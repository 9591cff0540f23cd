"""A viewer that does not read is disconnected, and blocks no other."""

from __future__ import annotations

from infertool.embedded.channel_server import server
from infertool.embedded.channel_server.channels import Limits
from tests.embedded.channel_server.peer import Peer
from tests.embedded.channel_server.running import RunningHub

# More than the kernel's buffers on both sides take in, so that the hub has to keep it.
PUSHES = 600
PAYLOAD = {"filler": "x" * 100_000}


def heard_before_the_end(peer: Peer) -> int:
    heard = 0
    try:
        while peer.hear():
            heard += 1
    except (EOFError, ConnectionResetError):
        pass
    return heard


def test_a_slow_viewer_is_dropped_and_a_healthy_one_gets_everything() -> None:
    with RunningHub(server.definitions(), limits=Limits(max_unsent_bytes=1_000_000)) as hub:
        service, slow, healthy = Peer(hub.port), Peer(hub.port), Peer(hub.port)
        service.join("service:inference")
        slow.join("public:results")
        healthy.join("public:results")
        for number in range(PUSHES):
            service.tell("1", str(number), "service:inference", "new_result", PAYLOAD)
            assert service.hear()[1] == str(number)
            assert healthy.hear()[4] == PAYLOAD
        assert heard_before_the_end(slow) < PUSHES
        for peer in (service, slow, healthy):
            peer.close()
