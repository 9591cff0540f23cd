"""A real RabbitMQ with its STOMP and management plugins for tests: Debian's package, a node and an epmd of its own."""

from __future__ import annotations

import contextlib
import copy
import os
import subprocess
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from tests.support.install import apt
from tests.support.ports import listens
from tests.support.rabbitadmin import RabbitAdmin
from tests.support.rawstomp import RawStomp
from tests.support.serverprocess import ServerProcess

# Not the wrapper in /usr/sbin, which changes the user.
_BIN = Path("/usr/lib/rabbitmq/bin")
_CONFIG = """listeners.tcp.default = 127.0.0.1:{amqp}
stomp.listeners.tcp.1 = 127.0.0.1:{stomp}
management.tcp.ip = 127.0.0.1
management.tcp.port = {management}
default_user = admin
default_pass = admin
log.console = true
log.file = false
vm_memory_high_watermark.absolute = 512MB
disk_free_limit.absolute = 50MB
"""
_LOOPBACK = "-kernel inet_dist_use_interface {127,0,0,1}"


class RabbitMQ(ServerProcess):
    """One RabbitMQ node; its user is admin, its password admin."""

    ports = 5
    # The virtual host of its URLs, of `pika` and of `admin`.
    vhost = "/"

    @property
    def amqp_port(self) -> int:
        return self.other_ports[0]

    @property
    def url(self) -> str:
        return f"{super().url}{self._path}"

    @property
    def amqp_url(self) -> str:
        return f"amqp://127.0.0.1:{self.amqp_port}{self._path}"

    @property
    def _path(self) -> str:
        return "" if self.vhost == "/" else f"/{self.vhost}"

    @contextmanager
    def own_vhost(self) -> Iterator[RabbitMQ]:
        """Return the same node with an empty virtual host, in which no other test has a queue."""
        own = copy.copy(self)
        own.vhost = f"own-{uuid.uuid4().hex}"
        with self.admin.virtual_host(own.vhost):
            yield own

    @property
    def admin(self) -> RabbitAdmin:
        """What an administrator of this node and virtual host does."""
        return RabbitAdmin(self.management_url, self.vhost, self.environment())

    @property
    def management_url(self) -> str:
        return f"http://127.0.0.1:{self.other_ports[3]}"

    @contextmanager
    def pika(self) -> Iterator[Any]:
        """Return a channel of pika's, for declaring queues and for messages that only other clients send."""
        import pika

        parameters = pika.ConnectionParameters(
            "127.0.0.1", self.amqp_port, self.vhost, pika.PlainCredentials("admin", "admin")
        )
        connection = pika.BlockingConnection(parameters)
        try:
            yield connection.channel()
        finally:
            if connection.is_open:
                connection.close()

    @classmethod
    @contextmanager
    def of_a_test(cls, folder: Path, queue_type: str, *queues: str) -> Iterator[RabbitMQ]:
        """Run a node that a test may kill, with durable `queues`."""
        server = cls(folder / "rabbitmq")
        try:
            server.start()
            with server.pika() as channel:
                for queue in queues:
                    channel.queue_declare(queue, durable=True, arguments={"x-queue-type": queue_type})
            server.store_queues()
            yield server
        finally:
            server.remove()

    def store_queues(self) -> None:
        """Have what was declared be on disk. A node that is killed within seconds loses it, with all that it holds."""
        ask = [str(_BIN / "rabbitmqctl"), "eval", "mnesia:sync_log()."]
        env = {**os.environ, **self.environment()}
        subprocess.run(ask, env=env, stdout=subprocess.DEVNULL, check=True, timeout=240)

    def _answers(self) -> bool:
        """Return True if all its listeners take connections: they begin one after the other."""
        amqp, _, _, management = self.other_ports
        return super()._answers() and all(map(listens, (amqp, management)))

    def raw(self) -> RawStomp:
        return RawStomp(self.stomp_port, subscribe={"prefetch-count": "1000"}, confirm_each=True, counts_late=True)

    def configure(self) -> None:
        if not (_BIN / "rabbitmq-server").exists():
            apt("rabbitmq-server")
        amqp, _, _, management = self.other_ports
        for folder in ("home", "mnesia", "log", "conf"):
            (self.base / folder).mkdir()
        (self.base / "conf" / "enabled_plugins").write_text("[rabbitmq_stomp,rabbitmq_management].\n")
        config = _CONFIG.format(amqp=amqp, stomp=self.stomp_port, management=management)
        (self.base / "conf" / "rabbitmq.conf").write_text(config)

    def command(self) -> Sequence[str]:
        return [str(_BIN / "rabbitmq-server")]

    def environment(self) -> Mapping[str, str]:
        amqp, epmd, distribution, _ = self.other_ports
        return {
            "HOME": f"{self.base}/home",
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_NODENAME": f"infertool{amqp}@localhost",
            "RABBITMQ_BASE": str(self.base),
            "RABBITMQ_MNESIA_BASE": f"{self.base}/mnesia",
            "RABBITMQ_LOG_BASE": f"{self.base}/log",
            "RABBITMQ_CONFIG_FILE": f"{self.base}/conf/rabbitmq.conf",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{self.base}/conf/enabled_plugins",
            "RABBITMQ_PID_FILE": f"{self.base}/node.pid",
            "RABBITMQ_DIST_PORT": str(distribution),
            "ERL_EPMD_PORT": str(epmd),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": f"{_LOOPBACK} +S 2:2",
        }

    @property
    def epmd_port(self) -> int:
        return self.other_ports[1]

    def remove(self) -> None:
        super().remove()
        # The node started it, in the background; it outlives the node. `epmd -kill` is refused while it knows a node.
        daemons = self.epmds()
        for daemon in daemons:
            with contextlib.suppress(psutil.Error):
                daemon.kill()
        psutil.wait_procs(daemons, timeout=60)

    def epmds(self) -> list[psutil.Process]:
        """Return the daemons for names of nodes that were started for this one."""
        return [each for each in psutil.process_iter() if _epmd_port(each) == str(self.epmd_port)]


# Bytes of a message that `SmallRabbitMQ` takes at most.
MOST = 1000


class SmallRabbitMQ(RabbitMQ):
    """A node with a limit that it tells of when a message is above it."""

    def configure(self) -> None:
        super().configure()
        with (self.base / "conf" / "rabbitmq.conf").open("a") as file:
            file.write(f"max_message_size = {MOST}\n")


def _epmd_port(process: psutil.Process) -> str:
    try:
        return process.environ().get("ERL_EPMD_PORT", "") if process.name() == "epmd" else ""
    except psutil.Error:
        return ""
