"""Java servers from Maven Central, kept in the user's cache. Their versions are pinned here and nowhere else."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from xml.sax.saxutils import escape

from tests.support.install import CACHE, apt

ARTEMIS = "2.40.0"
ACTIVEMQ_6 = "6.3.1"
AMQP_CLIENT = "5.25.0"
KAFKA = "4.4.0"
_PLUGIN = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1"
_ACTIVEMQ_6_JARS = (
    f"org.apache.activemq:activemq-broker:{ACTIVEMQ_6}",
    f"org.apache.activemq:activemq-stomp:{ACTIVEMQ_6}",
    f"org.apache.activemq:activemq-kahadb-store:{ACTIVEMQ_6}",
    f"org.apache.activemq:activemq-jaas:{ACTIVEMQ_6}",
    # jms-map-json, the form in which statistics are asked for, needs these two.
    "com.thoughtworks.xstream:xstream:1.4.21",
    "org.codehaus.jettison:jettison:1.5.4",
    "org.slf4j:slf4j-simple:2.0.17",
)
# Kafka's own interface to logs is SLF4J 1.
_KAFKA_JARS = (f"org.apache.kafka:kafka_2.13:{KAFKA}", "org.slf4j:slf4j-simple:1.7.36")


def artemis() -> Path:
    """Return the folder of an unpacked Apache Artemis, downloaded once."""
    return once(f"artemis-{ARTEMIS}", _get_artemis) / f"apache-artemis-{ARTEMIS}"


def activemq_6(launcher: Path) -> Path:
    """Return a folder with ActiveMQ 6's jars in `lib`, and `launcher`'s class."""
    content = hashlib.sha256(launcher.read_bytes() + "".join(_ACTIVEMQ_6_JARS).encode()).hexdigest()[:16]

    def get(folder: Path) -> None:
        _copy_jars(_ACTIVEMQ_6_JARS, folder)
        _compile(launcher, folder, folder)

    return once(f"activemq-{ACTIVEMQ_6}-{content}", get)


def kafka(launcher: Path) -> Path:
    """Return a folder with the jars of Kafka and its clients in `lib`, and `launcher`'s class in `launch.jar`."""
    content = hashlib.sha256(launcher.read_bytes() + "".join(_KAFKA_JARS).encode()).hexdigest()[:16]

    def get(folder: Path) -> None:
        _copy_jars(_KAFKA_JARS, folder)
        _compile(launcher, folder, folder)
        # The JVM shares the classes of jars, not those of folders.
        with zipfile.ZipFile(folder / "launch.jar", "w") as jar:
            jar.write(folder / f"{launcher.stem}.class", f"{launcher.stem}.class")

    return once(f"kafka-{KAFKA}-{content}", get)


def compiled(source: Path, jars: Path) -> Path:
    """Return the folder with the class in `source`, compiled once against `jars`/lib."""
    content = hashlib.sha256(source.read_bytes() + jars.name.encode()).hexdigest()[:16]
    return once(f"{source.stem}-{content}", lambda folder: _compile(source, jars, folder))


def amqp_client() -> Path:
    """Return the folder with the jars of RabbitMQ's Java client."""
    artifacts = (f"com.rabbitmq:amqp-client:{AMQP_CLIENT}", "org.slf4j:slf4j-nop:2.0.17")
    return once(f"amqp-client-{AMQP_CLIENT}", lambda folder: _copy_jars(artifacts, folder)) / "lib"


def _get_artemis(folder: Path) -> None:
    artifact = f"org.apache.activemq:apache-artemis:{ARTEMIS}:zip:bin"
    _mvn("copy", f"-Dartifact={artifact}", f"-DoutputDirectory={folder}")
    archive = next(folder.glob("*.zip"))
    with zipfile.ZipFile(archive) as opened:
        opened.extractall(folder)
    archive.unlink()


def _copy_jars(artifacts: Sequence[str], folder: Path) -> None:
    """Copy `artifacts` and what they depend on to `folder`/lib."""
    names = ("groupId", "artifactId", "version")
    dependencies = "".join(
        "<dependency>"
        + "".join(f"<{n}>{escape(part)}</{n}>" for n, part in zip(names, artifact.split(":"), strict=True))
        + "</dependency>"
        for artifact in artifacts
    )
    pom = folder / "pom.xml"
    pom.write_text(
        '<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>'
        "<groupId>infertool</groupId><artifactId>tests</artifactId><version>1</version>"
        f"<dependencies>{dependencies}</dependencies></project>"
    )
    _mvn("copy-dependencies", "-f", str(pom), f"-DoutputDirectory={folder}/lib", "-DincludeScope=runtime")


def _compile(source: Path, jars: Path, folder: Path) -> None:
    """Compile a class that needs the jars in `jars`/lib into `folder`."""
    # The compiler is in another Debian package than the JVM.
    if not shutil.which("javac"):
        apt("default-jdk-headless")
    _run(["javac", "-cp", f"{jars}/lib/*", "-d", str(folder), str(source)])


def _mvn(goal: str, *options: str) -> None:
    if not (shutil.which("mvn") and shutil.which("java")):
        apt("maven", "default-jre-headless")
    _run(["mvn", "-q", "-B", f"{_PLUGIN}:{goal}", *options])


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        said = (done.stdout + done.stderr).strip()[-2000:]
        raise RuntimeError(f"a server for the tests could not be installed; run: {' '.join(command)}\n{said}")


def once(name: str, get: Callable[[Path], None]) -> Path:
    """Return the cached folder `name`, filled by `get` the first time."""
    folder = CACHE / "servers" / name
    if folder.exists():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Filled aside and renamed, so that an interrupted download is never taken for a finished one.
    aside = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f"{name}."))
    try:
        get(aside)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    try:
        aside.rename(folder)
    except OSError:  # another session was faster
        shutil.rmtree(aside)
    return folder
