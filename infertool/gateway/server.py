"""The server: one ASGI application, and uvicorn with a protocol of our own."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import random
import re
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

import uvicorn
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route, Router

from infertool.errors import ListenError
from infertool.gateway import answers, exchange
from infertool.gateway.body import ClientGoneError
from infertool.gateway.context import CONNECTION, KEY, Connection, Context
from infertool.gateway.metrics import Counts
from infertool.gateway.problem import Problem, Reason
from infertool.gateway.protocol import GatewayProtocol, Guard
from infertool.net.address import host_and_port

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from infertool.gateway.tls import Tls

_log = logging.getLogger(__name__)
_BACKLOG: Final = 2048
# A client that takes nothing of what is sent to it for this time is cut off. Seconds.
STUCK_S: Final = 60.0
# Not `secrets`, which asks the system each time: the id names a request in logs, and protects nothing.
_NUMBERS: Final = random.Random()  # noqa: S311
_REQUEST_ID: Final = re.compile(rb"[!-~](?:[ -~]{0,253}[!-~])?")


class Application:
    """Routes requests, and makes a problem document of whatever is raised. Any layout of routes fits."""

    def __init__(self, routes: Sequence[BaseRoute], counts: Counts) -> None:
        self._router = Router(routes, redirect_slashes=False, default=_nothing_there)
        # Paths without parameters need no search. The router would also wrap each call twice to handle exceptions.
        self._direct = {
            (method, route.path): route.endpoint
            for route in reversed(routes)
            if isinstance(route, Route) and not route.param_convertors and inspect.iscoroutinefunction(route.endpoint)
            for method in route.methods or ()
        }
        self._counts = counts
        # Each response closes its connection.
        self.closes = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        scope["app"] = self
        loop = asyncio.get_running_loop()
        context = Context(scope.get(CONNECTION) or Connection(), loop.time())
        scope.setdefault(CONNECTION, context.connection)
        scope[KEY] = context
        request_id = _request_id(scope["headers"])
        status = 0

        def more() -> list[tuple[bytes, bytes]]:
            headers = [(_encoded(name), value.encode()) for name, value in context.headers.items()]
            headers.append((b"x-request-id", request_id))
            if self.closes:
                headers.append((b"connection", b"close"))
            return headers

        async def reply(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message.setdefault("headers", []).extend(more())
            await send(message)

        async def answer(response: ASGIApp) -> None:
            nonlocal status
            if type(response) is Response and exchange.respond(scope, response, more()):
                status = response.status_code
            else:
                await response(scope, receive, reply)

        refusal: Problem | None = None
        try:
            if endpoint := self._direct.get((scope["method"], scope["path"])):
                await answer(await endpoint(Request(scope, receive)))
            else:
                await self._router(scope, receive, reply)
        except ClientGoneError:
            self._counts.gone(context.step)
            return
        except (Problem, HTTPException) as fault:
            refusal = _refusal(fault)
        except Exception:
            if status:
                raise
            _log.exception("a request failed (X-Request-Id %s)", request_id.decode())
            refusal = Problem(Reason.INTERNAL)
        finally:
            context.release()
        if refusal is not None:
            if status:
                # The stream has begun: its end is all that can be told.
                raise refusal
            self._counts.refused(context.step, refusal.reason, context.class_name)
            await answer(answers.of_problem(refusal))
        self._counts.answered(scope["method"], status, loop.time() - context.started)


async def _nothing_there(_scope: Scope, _receive: Receive, _send: Send) -> None:
    raise Problem(Reason.NOT_FOUND)


def _refusal(fault: Problem | HTTPException) -> Problem:
    if isinstance(fault, Problem):
        return fault
    if fault.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        allowed = dict(fault.headers or {})
        return Problem(Reason.METHOD_NOT_ALLOWED, f"it takes {allowed.get('Allow', '')}", headers=allowed)
    return Problem(Reason.NOT_FOUND)


def _request_id(headers: list[tuple[bytes, bytes]]) -> bytes:
    """Return the caller's own id of the request, if it can be one, else a new one."""
    for name, value in headers:
        if name == b"x-request-id" and _REQUEST_ID.fullmatch(value):
            return value
    return b"%016x" % _NUMBERS.getrandbits(64)


@cache
def _encoded(name: str) -> bytes:
    """Return the name of a header that the gateway writes: there are few."""
    return name.lower().encode()


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that is bound. Port 0 takes a free one. Raises `ListenError`."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Accepted connections inherit it; asyncio sets it for sockets of its own making alone. Without, the second part
        # of a response waits for the client's acknowledgement, which takes 40 ms.
        bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if sys.platform == "linux":
            # Inherited as well. The loop would keep for ever what such a client does not read, also after a close.
            bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(STUCK_S * 1000))
        bound.bind((host, port))
    except (OSError, UnicodeError) as fault:
        bound.close()
        reason = fault.strerror if isinstance(fault, OSError) and fault.strerror else str(fault)
        address = host_and_port(host, port)
        raise ListenError(
            f"cannot listen on {address}: {reason}", address=address, advice="choose another address or port"
        ) from None
    return bound


class Server(uvicorn.Server):
    """Serves `application` on a bound socket, until `stop`. Signals are the caller's."""

    def __init__(self, application: Application, bound: socket.socket, guard: Guard, tls: Tls | None) -> None:
        protocol = type("Protocol", (GatewayProtocol,), {"guard": guard})
        super().__init__(
            uvicorn.Config(
                application,
                http=protocol,
                ws="none",
                loop="asyncio",
                lifespan="off",
                log_config=None,
                log_level="critical",  # what the application raises is logged there, once
                access_log=False,
                proxy_headers=False,
                server_header=False,
                backlog=_BACKLOG,
                timeout_graceful_shutdown=5,
                ssl_context_factory=(lambda _config, _default: tls.context) if tls else None,
            )
        )
        self._bound = bound
        self._guard = guard
        self._tls = tls

    async def run_until_stopped(self, on_listening: Callable[[], None]) -> None:
        """Serve. `on_listening` is called once connections are accepted."""
        tasks = [asyncio.create_task(self._guard.sweep())]
        if self._tls:
            tasks.append(asyncio.create_task(self._tls.watch()))
        serving = asyncio.create_task(self.serve(sockets=[self._bound]))
        try:
            while not self.started and not serving.done():  # noqa: ASYNC110  (uvicorn has no event for it)
                await asyncio.sleep(0.01)
            if not serving.done():
                on_listening()
            await serving
        finally:
            for task in tasks:
                task.cancel()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone."""
        yield

    def stop(self) -> None:
        """Close the listener, and each connection once its response is sent."""
        self.should_exit = True
