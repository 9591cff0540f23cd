"""Async models behind the synchronous model port: a call waits on its thread, and its coroutine runs on one event loop.

So retries, time-outs, batches and the crash guard treat async models as any other, and `--concurrency` threads are that
number of calls outstanding. A call that is given up is cancelled (`cancel_call`).
"""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Protocol

from infertool.errors import InferenceError

if TYPE_CHECKING:
    from infertool.models.event_loop import EventLoop


class Cancellable(Protocol):
    """A call in progress."""

    def cancel(self) -> None:
        """Ask the call to end. Returns at once; from any thread."""


# The call that each thread waits for, by the thread's identifier. A thread waits for one call at a time.
_waiting: Final[dict[int, Cancellable]] = {}


def cancel_call(thread_id: int) -> None:
    """Cancel the call of an async model that a thread waits for, if it waits for one."""
    if call := _waiting.get(thread_id):
        call.cancel()


def waits_for(call: Cancellable) -> None:
    """Note that the current thread waits for `call`."""
    _waiting[threading.get_ident()] = call


def waits_no_more() -> None:
    """Note that the current thread waits for no call."""
    _waiting.pop(threading.get_ident(), None)


def is_async(function: Any) -> bool:
    """Return True for an `async def`, also behind a partial, a method or an object's `__call__`."""
    return any(inspect.iscoroutinefunction(each) for each in _forms(function))


def is_async_generator(function: Any) -> bool:
    """Return True for an `async def` that yields."""
    return any(inspect.isasyncgenfunction(each) for each in _forms(function))


def _forms(function: Any) -> tuple[Any, ...]:
    inner = function.func if isinstance(function, functools.partial) else function
    return function, type(inner).__call__


class Bridge:
    """Makes functions of one model synchronous. Its event loop starts with the first thing to await."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._loop: EventLoop | None = None

    def synchronous(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return `function` as one that returns its result, whether it is async, returns an awaitable, or neither."""
        if is_async(function):
            return lambda *arguments: self._event_loop().call(function, *arguments)

        def call(*arguments: Any) -> Any:
            result = function(*arguments)
            kind = type(result)
            if kind is dict or kind is list:
                return result
            if hasattr(kind, "__await__"):
                return self._event_loop().call(lambda: result)
            if hasattr(kind, "__aiter__"):
                raise InferenceError(f"the model returned {kind.__name__}, not a result", retryable=False)
            return result

        return call

    def closing(self, close: Callable[[], object]) -> Callable[[], None]:
        """Return `close` followed by the end of the event loop. Calls in progress are cancelled first."""
        closed = self.synchronous(close)

        def close_all() -> None:
            if self._loop and not self._loop.cancel_all():
                return  # the loop is blocked: nothing runs on it any more
            try:
                closed()
            finally:
                if self._loop:
                    self._loop.close()

        return close_all

    def _event_loop(self) -> EventLoop:
        from infertool.models.event_loop import EventLoop  # noqa: PLC0415  (asyncio takes 50 ms to import)

        with self._lock:
            if self._loop is None:
                self._loop = EventLoop(self._name)
            return self._loop
