"""The event loop of an async model: one thread, on which all of the model's coroutines run."""

from __future__ import annotations

import asyncio
import contextvars
import random
import sys
import sysconfig
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any, Final

from infertool.errors import InferenceError
from infertool.models.async_calls import waits_for, waits_no_more
from infertool.models.user_code import end_if_forked, frame_text, is_ours, type_of
from infertool.telemetry.logs import log

# A loop that runs nothing else for this time is blocked. Seconds.
BLOCKED_S: Final = 0.25
# Calls that look whether the loop is blocked within that time.
MOST_LOOKS: Final = 8
# Longest wait at the end for a blocked loop, and for tasks that do not end although they are cancelled. Seconds.
CLOSE_S: Final = 5.0

_LIBRARIES: Final = tuple(sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib"))


class EventLoop:
    """Runs coroutines of the model `name` for threads that wait for them. Starts its thread at once."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(self._log_failed_task)
        self._lock = threading.Lock()
        self._calls: set[_Call] = set()
        self._watch = _BlockWatch(name)
        self._is_closed = False
        self._thread = threading.Thread(target=self._run, name="model-loop", daemon=True)
        self._thread.start()

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call `function` on the loop, await what it returns, and return the result, or raise its exception."""
        call = _Call(self._loop, function, arguments)
        with self._lock:
            if self._is_closed:
                raise InferenceError(f"model {self._name} is closed")
            self._calls.add(call)
            self._loop.call_soon_threadsafe(call.begin)
        waits_for(call)
        try:
            while not call.ended.wait(self._look_s()):
                self._watch.look(self._loop, self._thread)
        except BaseException:  # Ctrl-C, in the main thread
            call.cancel()
            raise
        finally:
            waits_no_more()
            self._calls.discard(call)
        return call.result()

    def _look_s(self) -> float:
        """Return how long a call waits until it looks at the loop: many calls look in turn, not all at once."""
        return BLOCKED_S * max(1.0, len(self._calls) / MOST_LOOKS) * random.uniform(0.8, 1.2)  # noqa: S311  (no secret)

    def cancel_all(self) -> bool:
        """Cancel the calls in progress. Return False if the loop is blocked and does not see that."""
        with self._lock:
            if self._is_closed:
                return True
            calls = list(self._calls)
        for call in calls:
            call.cancel()
        reached = threading.Event()
        self._loop.call_soon_threadsafe(reached.set)
        if reached.wait(CLOSE_S):
            return True
        log.warning("model %s was not closed: its event loop is blocked", self._name)
        return False

    def close(self) -> None:
        """Cancel all that runs on the loop, and end its thread."""
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
        asyncio.run_coroutine_threadsafe(self._end_tasks(), self._loop)
        self._thread.join(2 * CLOSE_S)
        if self._thread.is_alive():
            log.warning("the event loop of model %s did not end: a task of the model blocks it", self._name)

    async def _end_tasks(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        if tasks:
            _, pending = await asyncio.wait(tasks, timeout=CLOSE_S)
            if pending:
                log.warning("%s tasks of model %s did not end although they were cancelled", len(pending), self._name)
        await self._loop.shutdown_asyncgens()
        self._loop.stop()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        while not self._is_closed:
            try:
                self._loop.run_forever()
            except BaseException as error:  # noqa: BLE001  (a task of the model's own called sys.exit: the calls go on)
                log.error("a task of model %s raised %s; the run goes on", self._name, type_of(error))
        for call in list(self._calls):
            call.ended.set()  # those that swallow their cancellation
        self._loop.close()

    def _log_failed_task(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        trace = (type(error), error, error.__traceback__) if isinstance(error, BaseException) else None
        log.error("on the event loop of model %s: %s; the run goes on", self._name, context["message"], exc_info=trace)


class _Call:
    """One call of a function on the loop."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, function: Callable[..., Any], arguments: tuple[Any, ...]
    ) -> None:
        self._loop = loop
        self._function = function
        self._arguments = arguments
        self._context = contextvars.copy_context()
        self._task: asyncio.Task[None] | None = None
        self._is_cancelled = False
        self._result: Any = None
        self._error: BaseException | None = None
        self.ended = threading.Event()

    def begin(self) -> None:
        """Start the call. On the loop's thread."""
        self._task = self._loop.create_task(self._run(), context=self._context)
        # Not at the end of `_run`: a task that is cancelled before its first step never gets there.
        self._task.add_done_callback(lambda _: self.ended.set())

    def cancel(self) -> None:
        """See `Cancellable`."""
        self._is_cancelled = True
        try:
            self._loop.call_soon_threadsafe(self._cancel)
        except RuntimeError:
            self.ended.set()  # the loop was closed

    def result(self) -> Any:
        """Return the result of a call that has ended, or raise its exception."""
        if self._error is None and not self._is_cancelled:
            return self._told()
        if isinstance(self._error, asyncio.CancelledError | None):
            by_whom = "" if self._is_cancelled else " by the model"
            raise InferenceError(f"the call was cancelled{by_whom}") from self._error
        raise self._error

    def _told(self) -> Any:
        """Return the result. An event is tried again that `asyncio.gather` tells was cancelled."""
        if type(self._result) is not list or not any(type(each) is asyncio.CancelledError for each in self._result):
            return self._result
        cancelled = InferenceError("the call was cancelled by the model")
        return [cancelled if type(each) is asyncio.CancelledError else each for each in self._result]

    def _cancel(self) -> None:
        if self._task:
            self._task.cancel()

    async def _run(self) -> None:
        """Never raises: `SystemExit` would end the loop."""
        try:
            result = self._function(*self._arguments)
            self._result = await result if hasattr(type(result), "__await__") else result
        except BaseException as error:  # noqa: BLE001  (a model may raise anything)
            self._error = error
        end_if_forked()


class _BlockWatch:
    """Finds a model that blocks its event loop, and warns once. Asked by the threads whose call has not ended."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._asked_at: float | None = None
        self._has_warned = False

    def look(self, loop: asyncio.AbstractEventLoop, thread: threading.Thread) -> None:
        """Ask the loop for a sign of life; warn if the one asked for before is late."""
        with self._lock:
            if self._has_warned:
                return
            if self._asked_at is None:
                self._asked_at = time.monotonic()
                with suppress(RuntimeError):  # it was closed
                    loop.call_soon_threadsafe(self._answered)
                return
            late_s = time.monotonic() - self._asked_at
            where = _place(sys._current_frames().get(thread.ident or 0)) if late_s >= BLOCKED_S else ""  # noqa: SLF001
            self._has_warned = bool(where)
        if where:
            log.warning(
                "model %s blocks its event loop at %s: nothing else ran on it for %.1f s, and its calls wait for each "
                "other. Await what waits (an async client, asyncio.sleep), or call it with asyncio.to_thread",
                self._name, where, late_s,
            )  # fmt: skip

    def _answered(self) -> None:
        self._asked_at = None


def _place(frame: FrameType | None) -> str:
    """Return where the model's code is, of the loop's frames; "" if the loop waits and none of it runs."""
    places = [(each.f_code.co_filename, frame_text(each.f_code, each.f_lineno)) for each in _model_frames(frame)]
    own = [text for file, text in places if not file.startswith(_LIBRARIES)]
    return next(iter(own or [text for _, text in places]), "")


def _model_frames(frame: FrameType | None) -> list[FrameType]:
    """Return the frames that the loop has called, the innermost first; none while it only waits for events."""
    frames: list[FrameType] = []
    while frame is not None:
        module = frame.f_globals.get("__name__")
        if module == "asyncio.events":
            return frames
        if module == "asyncio.base_events" and frame.f_code.co_name == "_run_once":
            return []
        if not is_ours(module):
            frames.append(frame)
        frame = frame.f_back
    return []
