"""A model behind HTTP: a consumer in this process, behind a broker in memory, and the HTTP side in front of them.

So batches, worker processes, retries, time-outs and figures are those of any consumer. Requests wait at the HTTP side
(`gateway/in_process.py`); the broker holds those that the consumer works on, and nothing else.
"""

from __future__ import annotations

import asyncio
import re
import secrets
import socket
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self
from urllib.parse import urlsplit

from infertool import brokers
from infertool.app.consumer import ConsumerApp, check
from infertool.app.gateway import tls_of
from infertool.app.monitoring import Monitor
from infertool.consumer.consumer import Until
from infertool.consumer.tuning import planned
from infertool.errors import InfertoolError, UsageError
from infertool.gateway.chain import Chain, Parts
from infertool.gateway.clients import TrustedProxies, client_address
from infertool.gateway.front import Front, Views
from infertool.gateway.gatekeeper import Gatekeeper
from infertool.gateway.ids import Ids, draw_name
from infertool.gateway.in_process import InProcessEngine
from infertool.gateway.limits import Limits
from infertool.gateway.metrics import Counts
from infertool.gateway.openapi import describe
from infertool.gateway.openapi_models import of_model_server
from infertool.gateway.predict import Predict
from infertool.gateway.problem import Problem, Reason
from infertool.gateway.server import listen
from infertool.gateway.synchronous import Synchronous
from infertool.gateway.v2 import Model
from infertool.gateway.v2_routes import V2Routes
from infertool.models.loader import describe_inputs
from infertool.models.tensors import input_settings
from infertool.net.address import host_and_port
from infertool.rpc import Client
from infertool.settings import BrokerSettings, DeadLetterSettings, Settings
from infertool.text.input import parse_listen_address

if TYPE_CHECKING:
    from starlette.routing import BaseRoute

    from infertool.settings.load import Loaded

_QUEUE: Final = "requests"
_FAILED: Final = "failed"
_LOOK_S: Final = 0.2
# Requests that a call may wait behind at the consumer: the next batch is there when the model has done one.
_AHEAD: Final = 2
_NAME: Final = re.compile(r"[^A-Za-z0-9._-]+")
_V2_MODEL: Final = re.compile(r".*/v2/models/([^/]+)(?:/.*)?")


def for_serving(loaded: Loaded) -> Settings:
    """Return the settings of a model server. The caller tries again, not the server, unless the settings say so."""
    settings, origins = loaded.settings, loaded.origins
    consume = settings.consume
    if origins["consume.max_attempts"] == "default":
        consume = replace(consume, max_attempts=1)
    if consume.processes > 1:
        raise UsageError("a model server is one process", advice="use --executor processes, with --workers")
    return replace(settings, consume=consume)


def model_name(settings: Settings) -> str:
    """Return the name of the model: the configured one, else one that its spec suggests."""
    if settings.serve.name:
        return settings.serve.name
    spec = settings.model.spec
    if spec.lower().startswith(("http://", "https://")):
        path = urlsplit(spec).path
        found = _V2_MODEL.fullmatch(path)
        name = found[1] if found else path.rstrip("/").rpartition("/")[2]
    elif spec.startswith("onnx:"):
        name = Path(spec.partition(":")[2]).stem
    else:
        source = spec.rpartition(":")[0] or spec
        name = Path(source).stem if source.endswith(".py") else source.rpartition(".")[2]
    return _NAME.sub("-", name).strip("-") or "model"


class ModelServer:
    """One model server: built, loaded, run once, closed. Raises `ListenError`, `SettingsError`."""

    def __init__(self, settings: Settings) -> None:
        self._serve = settings.serve
        self._gateway = replace(settings.gateway, listen=settings.serve.listen)
        self.name = model_name(settings)
        self._settings = _of_consumer(settings, self.name)
        check(self._settings, Until())
        self._resources = ExitStack()
        self._bound: socket.socket = self._resources.enter_context(listen(*parse_listen_address(self._serve.listen)))
        self._tls = tls_of(self._gateway)
        self.app = ConsumerApp(self._settings)
        self._resources.callback(self.app.close)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ending: asyncio.Event | None = None
        self._stopping = threading.Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._resources.close()

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return int(self._bound.getsockname()[1])

    @property
    def url(self) -> str:
        """The address that it listens on."""
        host, _ = parse_listen_address(self._serve.listen)
        scheme = "https" if self._tls else "http"
        return f"{scheme}://{host_and_port(host, self.port)}"

    def stop(self) -> None:
        """End in order. Returns at once; from any thread."""
        self._stopping.set()
        if self._loop and self._ending:
            self._loop.call_soon_threadsafe(self._ending.set)

    def run(self, on_listening: Callable[[], None]) -> None:
        """Warm the model up, serve until `stop`, and finish what was begun. Raises the error that ended it early."""
        described = describe_inputs(self._settings.model)
        self.app.start()
        monitor = Monitor(self._settings, self.app, listens=False)
        self._resources.callback(monitor.close)
        monitor.start()
        client = self._resources.enter_context(Client(self._settings.broker, name="model-server"))
        failed = _Failed(self._settings.broker)
        self._resources.callback(failed.close)
        model = Model(self.name, inputs=described, settings=input_settings(self._settings.model.inputs))
        asyncio.run(self._run(client, monitor, model, on_listening))
        self.app.close()

    async def _run(self, client: Client, monitor: Monitor, model: Model, on_listening: Callable[[], None]) -> None:
        loop = self._loop = asyncio.get_running_loop()
        self._ending = asyncio.Event()
        if self._stopping.is_set():
            return
        consume = self._settings.consume
        limits = Limits()
        engine = InProcessEngine(
            client,
            window=_AHEAD * planned(consume, in_batches=self.app.in_batches),
            max_queue=self._serve.max_queue,
            queue_timeout_s=self._serve.queue_timeout_s,
            on_end=lambda request: limits.ended(request.id),
        )
        front = self._front(engine, limits, monitor, model)
        serving = loop.create_task(front.serve(self._bound, self._tls, on_listening))
        watching = loop.create_task(self._watch())
        ending = loop.create_task(self._ending.wait())
        try:
            await asyncio.wait([serving, watching, ending], return_when=asyncio.FIRST_COMPLETED)
            await front.drain(consume.stop_deadline_s)
            front.stop()
            await serving
        finally:
            for task in (watching, ending):
                task.cancel()
            await engine.close()
        if watching.done() and not watching.cancelled():
            watching.result()

    async def _watch(self) -> None:
        """Return when the consumer has ended. Raises the error that ended it."""
        while not self.app.join(0):  # noqa: ASYNC110  (a thread ends without a word)
            await asyncio.sleep(_LOOK_S)
        raise InfertoolError("the consumer of the model ended by itself")

    def _front(self, engine: InProcessEngine, limits: Limits, monitor: Monitor, model: Model) -> Front:
        settings = self._gateway
        proxies = TrustedProxies(settings.trusted_proxies)
        ids = Ids(draw_name())
        parts = Parts(
            engine=engine,
            gatekeeper=Gatekeeper(settings),
            limits=limits,
            webhooks=_NoWebhooks(),
            counts=Counts(),
            queues={model.name: _QUEUE},
            classes={settings.default_class: None},
            address=lambda peer, forwarded: client_address(peer, forwarded or "", proxies),
            new_id=ids.new,
        )
        views = Views(
            live=monitor.live,
            ready=monitor.ready,
            figures=engine.figures,
            description=of_model_server(describe(settings, models=[model.name], classes=[settings.default_class])),
            collectors=[monitor],
        )
        consume = self._settings.consume
        wait_s = self._serve.queue_timeout_s + consume.timeout_s * consume.max_attempts

        def more(chain: Chain) -> Sequence[BaseRoute]:
            synchronous = Synchronous(chain=chain, engine=engine, wait_s=wait_s, has_dead_letters=False)
            v2 = V2Routes(synchronous, {model.name: model}, lambda: front.ready())  # noqa: PLW0108  (not there yet)
            return [*Predict(synchronous, batches=True).routes(), *v2.routes()]

        front = Front(settings, parts, views, name="", more=[more], has_v1=False)
        return front


def _of_consumer(settings: Settings, name: str) -> Settings:
    """Return the settings of the consumer behind the server: requests and replies over a broker of its own."""
    return replace(
        settings,
        broker=BrokerSettings(url=f"memory://{name}-{secrets.token_hex(4)}", queue=_QUEUE),
        deadletter=DeadLetterSettings(queue=_FAILED),
        consume=replace(settings.consume, reply=True, reply_form="result", crash_guard=False, processes=1),
        publish=replace(settings.publish, mode="none"),
        # Details are counted: they are in the metrics. Alert rules are for consumers of events.
        telemetry=replace(settings.telemetry, metrics=settings.serve.listen),
        alerting=replace(settings.alerting, enabled=False),
    )


class _Failed:
    """Drops dead letters: their callers were told of the failure, and try again or not."""

    def __init__(self, settings: BrokerSettings) -> None:
        self._broker = brokers.open(settings, name="model-server-failures")
        self._broker.connect()
        self._letters = self._broker.subscribe(_FAILED, window=100)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="model-server-failures", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End."""
        self._closed.set()
        self._broker.close(1.0)
        self._thread.join()

    def _run(self) -> None:
        while not self._closed.is_set():
            if letters := self._letters.receive(100, 1.0):
                self._letters.ack(letters)


class _NoWebhooks:
    def check(self, url: str) -> None:
        raise Problem(Reason.WEBHOOK_REFUSED, f"a model server sends no webhooks: {url[:80]}")
