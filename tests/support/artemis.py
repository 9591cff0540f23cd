"""A real Apache Artemis for tests, set up as `artemis create` does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tests.support import maven
from tests.support.activemq import QUICK_START
from tests.support.rawstomp import RawStomp
from tests.support.serverprocess import ServerProcess

# A queue that nobody may send to, by the configuration.
FORBIDDEN = "/queue/nobody.may.send"
_TEMPLATE = Path(__file__).parents[2] / "fixtures" / "artemis" / "broker.xml"
_BOOTSTRAP = """<broker xmlns="http://activemq.apache.org/schema">
  <jaas-security domain="activemq"/>
  <server configuration="file:@ETC@/broker.xml"/>
</broker>
"""
_LOGIN = """activemq {
  org.apache.activemq.artemis.spi.core.security.jaas.PropertiesLoginModule required
    org.apache.activemq.jaas.properties.user="artemis-users.properties"
    org.apache.activemq.jaas.properties.role="artemis-roles.properties";
};
"""
_MANAGEMENT = '<management-context xmlns="http://activemq.apache.org/schema"/>\n'


class Artemis(ServerProcess):
    """One Artemis; its user is admin, its password admin."""

    def raw(self) -> RawStomp:
        return RawStomp(
            self.stomp_port,
            spell=lambda queue: queue.removeprefix("/queue/"),
            send={"destination-type": "ANYCAST"},
            subscribe={"subscription-type": "ANYCAST", "consumer-window-size": "1000000"},
            counts_late=True,
        )

    def configure(self) -> None:
        etc = self.base / "etc"
        for folder in (etc, self.base / "tmp", self.base / "lib"):
            folder.mkdir()
        config = _TEMPLATE.read_text().replace("@STOMP_PORT@", str(self.stomp_port))
        (etc / "broker.xml").write_text(config.replace("@DATA@", f"{self.base}/data"))
        (etc / "bootstrap.xml").write_text(_BOOTSTRAP.replace("@ETC@", str(etc)))
        (etc / "login.config").write_text(_LOGIN)
        (etc / "management.xml").write_text(_MANAGEMENT)
        (etc / "artemis-users.properties").write_text("admin = admin\n")
        (etc / "artemis-roles.properties").write_text("amq = admin\n")

    def command(self) -> Sequence[str]:
        home, etc = maven.artemis(), self.base / "etc"
        return [
            "java", "-Xms128M", "-Xmx768M", *QUICK_START, "-Djava.awt.headless=true",
            f"-Djava.io.tmpdir={self.base}/tmp", f"-Djava.security.auth.login.config={etc}/login.config",
            f"-Dartemis.home={home}", f"-Dartemis.instance={self.base}", f"-Dartemis.instance.etc={etc}",
            f"-Ddata.dir={self.base}/data", "-cp", f"{home}/lib/artemis-boot.jar",
            "org.apache.activemq.artemis.boot.Artemis", "run",
        ]  # fmt: skip
