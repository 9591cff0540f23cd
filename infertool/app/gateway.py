"""Builds a gateway from settings, and runs it. Usable without the command line."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from infertool import brokers
from infertool.app import extra
from infertool.errors import SettingsError, UsageError
from infertool.ipv6 import bracketed_url
from infertool.net.address import host_and_port
from infertool.secret import mask_url
from infertool.settings import GatewaySettings, Settings
from infertool.settings.load import gateway_dir
from infertool.telemetry.health import Condition
from infertool.text.input import parse_listen_address

if TYPE_CHECKING:
    from starlette.routing import Route

    from infertool.gateway.chain import Chain
    from infertool.gateway.front import Front
    from infertool.gateway.tls import Tls

DEFAULT_MODEL: Final = "default"


@dataclass(frozen=True, slots=True)
class Address:
    """Where a gateway listens, what it is named, and the queues of its models."""

    url: str
    port: int
    name: str
    models: dict[str, str] = field(default_factory=dict)


def check(settings: Settings) -> None:
    """Raise `SettingsError` where the extra is missing, a peer is none, or a time contradicts another.

    Raises `UsageError` for what is no model's queue.
    """
    extra.check("the gateway")
    queues(settings)
    wait_s, max_wait_s = settings.gateway.wait_s, settings.gateway.max_wait_s
    if wait_s > max_wait_s:
        raise SettingsError(
            f"gateway.wait_s is {wait_s:g} s, but gateway.max_wait_s allows at most {max_wait_s:g} s",
            key="gateway.wait_s",
            advice="lower gateway.wait_s, or raise gateway.max_wait_s",
        )
    for name, url in settings.gateway.peers.items():
        _check_peer(name, url)


def _check_peer(name: str, url: Any) -> None:
    """Raise `SettingsError` for a peer that clients cannot be sent to."""
    from infertool.gateway.ids import is_name  # noqa: PLC0415  (few have peers)
    from infertool.net.http_client import Target  # noqa: PLC0415

    where = f"gateway.peers.{name}"
    if not is_name(name):
        raise SettingsError(f"{where} cannot be a gateway's name, which is of a-z, 0-9, dot and hyphen", key=where)
    if isinstance(url, str) and (meant := bracketed_url(url)):
        raise SettingsError(f"{where} names an IPv6 address, which needs brackets", key=where, advice=f"write {meant}")
    try:
        is_base = isinstance(url, str) and "?" not in Target.of(url).path and "#" not in url
    except ValueError:
        is_base = False
    if not is_base:
        raise SettingsError(
            f"{where} is {mask_url(str(url))!r}, but must be the URL of a gateway",
            key=where,
            advice="write http://gateway-b:8080",
        )


def queues(settings: Settings) -> dict[str, str]:
    """Return the queue of each model, as the broker spells it. Raises `UsageError`, `SettingsError`."""
    conventions = brokers.conventions(settings.broker.url)
    models: Mapping[str, Any] = settings.gateway.models or {DEFAULT_MODEL: settings.broker.queue}
    for name, queue in models.items():
        if not name or not name.isascii() or not name.isprintable() or set(name) & set("/?# "):
            raise SettingsError(f"gateway.models: {name!r} cannot be a model's name", key="gateway.models")
        if not isinstance(queue, str):
            raise SettingsError(f"gateway.models.{name} is no queue", key="gateway.models")
    return {name: conventions.queue(queue) for name, queue in models.items()}


class GatewayApp:
    """A gateway. `run` blocks until `stop`, which may be called from any thread."""

    def __init__(self, settings: Settings) -> None:
        """Raise `SettingsError`, `UsageError`."""
        check(settings)
        self._settings = settings
        self._queues = queues(settings)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None
        self._is_stopped = False

    def run(self, on_ready: Callable[[Address], None] | None = None) -> None:
        """Serve until `stop`. `on_ready` is told where, once requests can come.

        Raises `SettingsError`, `ListenError`, and `StoreError` where the requests cannot be kept.
        """
        asyncio.run(self._main(on_ready or (lambda _address: None)))

    def stop(self) -> None:
        """End: refuse new requests, answer those that wait, or hand out 202, then return from `run`."""
        self._is_stopped = True
        if self._loop and self._stopping:
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._stopping.set)

    async def _main(self, on_ready: Callable[[Address], None]) -> None:
        from infertool.gateway.server import listen  # noqa: PLC0415  (the extra)

        self._loop, self._stopping = asyncio.get_running_loop(), asyncio.Event()
        if self._is_stopped:
            return
        gateway = self._settings.gateway
        host, port = parse_listen_address(gateway.listen)
        tls = tls_of(gateway)
        async with AsyncExitStack() as stack:
            bound = stack.enter_context(listen(host, port))
            front, name = await self._build(stack, tls)
            address = self._address(bound, host, name)
            serving = asyncio.create_task(front.serve(bound, tls, lambda: on_ready(address)))
            stopping = asyncio.create_task(self._stopping.wait())
            await asyncio.wait([serving, stopping], return_when=asyncio.FIRST_COMPLETED)
            stopping.cancel()
            if not serving.done():
                await front.drain(gateway.drain_s)
                front.stop()
            await serving

    async def _build(self, stack: AsyncExitStack, tls: Tls | None) -> tuple[Front, str]:
        """Return the HTTP side, and the name of this gateway; what is started ends with `stack`."""
        from infertool.gateway import classes  # noqa: PLC0415
        from infertool.gateway.chain import Parts  # noqa: PLC0415
        from infertool.gateway.clients import TrustedProxies, client_address  # noqa: PLC0415
        from infertool.gateway.engine import Engine  # noqa: PLC0415
        from infertool.gateway.front import Front, Views  # noqa: PLC0415
        from infertool.gateway.gatekeeper import Gatekeeper  # noqa: PLC0415
        from infertool.gateway.limits import Limits  # noqa: PLC0415
        from infertool.gateway.metrics import Counts  # noqa: PLC0415
        from infertool.gateway.openapi import describe  # noqa: PLC0415
        from infertool.gateway.predict import Predict  # noqa: PLC0415
        from infertool.gateway.request import Progress  # noqa: PLC0415
        from infertool.gateway.synchronous import Synchronous  # noqa: PLC0415
        from infertool.gateway.v2 import Model  # noqa: PLC0415
        from infertool.gateway.v2_routes import V2Routes  # noqa: PLC0415
        from infertool.gateway.webhooks import Webhooks  # noqa: PLC0415

        settings = self._settings.gateway
        gatekeeper, known_classes = Gatekeeper(settings), classes.parse(settings)
        trusted, limits, counts = TrustedProxies(settings.trusted_proxies), Limits(), Counts()
        folder = gateway_dir(os.environ, settings.state_dir)
        engine = Engine(settings, self._settings.broker, known_classes, folder, self._queues)
        stack.push_async_callback(engine.close)
        webhooks = Webhooks(settings, engine.database)

        def ended(progress: Progress) -> None:
            limits.ended(progress.request.id)
            webhooks.send(progress)

        engine.on_outcome = ended
        await engine.start()
        for request in engine.unfinished():
            limits.resume(request.id, request.client, len(request.body))
        await webhooks.start()
        stack.push_async_callback(webhooks.close)
        parts = Parts(
            engine=engine, gatekeeper=gatekeeper, limits=limits, webhooks=webhooks, counts=counts,
            queues=self._queues, classes=known_classes,
            address=lambda peer, forwarded: client_address(peer, forwarded or "", trusted), new_id=engine.new_id,
        )  # fmt: skip
        views = Views(
            live=lambda: [Condition("loop", ok=True, value="runs")],
            ready=engine.health,
            figures=lambda: {
                **engine.figures(),
                "webhooks_waiting": webhooks.waiting,
                "webhooks": dict(webhooks.counts),
                "credentials_ok": int(all(each.ok for each in gatekeeper.health())),
                **({"tls_ok": int(not tls.fault)} if tls else {}),
            },
            description=describe(settings, models=tuple(self._queues), classes=tuple(known_classes)),
        )
        models = {name: Model(name) for name in self._queues}

        def synchronous_routes(chain: Chain) -> list[Route]:
            waiting = Synchronous(chain=chain, engine=engine, wait_s=settings.wait_s)
            return [*Predict(waiting).routes(), *V2Routes(waiting, models, engine.health).routes()]

        front = Front(settings, parts, views, name=engine.name, more=[synchronous_routes])
        return front, engine.name

    def _address(self, bound: socket.socket, host: str, name: str) -> Address:
        port = bound.getsockname()[1]
        scheme = "https" if self._settings.gateway.tls_cert_file else "http"
        return Address(f"{scheme}://{host_and_port(host, port)}", port, name, dict(self._queues))


def tls_of(gateway: GatewaySettings) -> Tls | None:
    """Return the server's certificate; None for plain HTTP. Raises `SettingsError`, `UsageError`."""
    from infertool.gateway.tls import Tls, TlsFiles, reason_of  # noqa: PLC0415

    if not gateway.tls_cert_file:
        for key in ("tls_key_file", "tls_client_ca_file"):
            if getattr(gateway, key):
                raise SettingsError(f"gateway.{key} is set without gateway.tls_cert_file", key=f"gateway.{key}")
        return None
    files = TlsFiles(
        cert_file=gateway.tls_cert_file, key_file=gateway.tls_key_file, client_ca_file=gateway.tls_client_ca_file
    )
    try:
        return Tls(files)
    except (OSError, ValueError) as fault:
        raise UsageError(f"the TLS files of the gateway cannot be used: {reason_of(fault)}") from None
