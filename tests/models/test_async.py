"""Async models: every form of them, what they may raise, and the end of their event loop."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from infertool.errors import InferenceError, ModelLoadError
from infertool.models import event_loop
from infertool.models.async_calls import cancel_call
from infertool.models.loader import adapt, load, warm_up
from infertool.models.port import LoadedModel
from tests.conftest import FIXTURES
from tests.support.present import present

SPEC = f"{FIXTURES}/models/awaits.py"
LONG = 60.0


@pytest.fixture
def model() -> Iterator[LoadedModel]:
    loaded = load(f"{SPEC}:Does")
    warm_up(loaded)
    yield loaded
    loaded.close()


def does(model: LoadedModel, do: str, **fields: Any) -> Any:
    return model.predict({"do": do, "n": 1, **fields})


# What was there before a test: another one may leave a model open.
_OTHERS: set[threading.Thread] = set()


@pytest.fixture(autouse=True)
def others() -> None:
    _OTHERS.clear()
    _OTHERS.update(threading.enumerate())


def loop_threads() -> int:
    return sum(thread.name == "model-loop" for thread in set(threading.enumerate()) - _OTHERS)


@pytest.mark.parametrize(
    "form", ["coroutine", "returns_awaitable", "Called", "called", "partial", "partial_of_object", "Does"]
)
def test_every_form_of_an_async_model_is_a_model(form: str) -> None:
    model = load(f"{SPEC}:{form}")
    warm_up(model)
    assert [model.predict({"n": n}) for n in range(3)] == [{"n": n} for n in range(3)]
    model.close()
    assert loop_threads() == 0


def test_async_generators_are_refused_at_the_start_or_at_the_first_event() -> None:
    with pytest.raises(ModelLoadError, match="async generator; a model returns one result"):
        load(f"{SPEC}:generator")
    with pytest.raises(InferenceError, match="returned async_generator, not a result"):
        load(f"{SPEC}:returns_generator").predict({})


def test_a_model_that_awaits_nothing_has_no_event_loop() -> None:
    model = load(f"{FIXTURES}/models/echo.py:predict")
    assert model.predict({"n": 1}) == {"n": 1}
    assert loop_threads() == 0
    model.close()


@pytest.mark.parametrize(
    ("do", "kind", "text"),
    [
        ("raises", ValueError, "no such customer"),
        ("exits", SystemExit, "no licence"),
        ("interrupts", KeyboardInterrupt, ""),
        ("cancels_itself", InferenceError, "the call was cancelled by the model"),
    ],
)
def test_what_a_model_raises_reaches_the_caller_and_the_loop_goes_on(
    model: LoadedModel, do: str, kind: type[BaseException], text: str
) -> None:
    with pytest.raises(kind) as caught:
        does(model, do)
    assert str(caught.value) == text
    assert does(model, "answer") == {"n": 1}


def test_a_cancelled_call_among_the_results_of_a_batch_is_tried_again() -> None:
    class Model:
        async def predict(self, payload: Any) -> Any:
            return payload

        async def predict_batch(self, payloads: list[Any]) -> list[Any]:
            tasks = [asyncio.ensure_future(self.predict(payload)) for payload in payloads]
            tasks[1].cancel()
            return await asyncio.gather(*tasks, return_exceptions=True)

    model = adapt(Model, name="m", spec="m")
    first, second, third = present(model.predict_batch)([1, 2, 3])
    model.close()
    assert (first, third) == (1, 3)
    assert isinstance(second, InferenceError)
    assert second.retryable
    assert str(second) == "the call was cancelled by the model"


@pytest.mark.parametrize("do", ["starts_a_task_that_exits", "stops_the_loop"])
def test_nothing_that_a_model_does_on_the_loop_ends_it(model: LoadedModel, do: str) -> None:
    assert does(model, do) == {"n": 1}
    assert does(model, "answer") == {"n": 1}


def test_a_call_has_the_context_of_its_caller_and_changes_it_for_itself_alone(model: LoadedModel) -> None:
    variable = load_context_variable(model)

    def ask(n: int) -> Any:
        variable.set(f"caller {n}")
        return does(model, "sets_context", n=n)

    with ThreadPoolExecutor(3) as threads:
        answers = list(threads.map(lambda n: contextvars.copy_context().run(ask, n), range(3)))
    assert answers == [{"before": f"caller {n}", "n": n} for n in range(3)]


def load_context_variable(model: LoadedModel) -> contextvars.ContextVar[str]:
    assert model.name == "awaits:Does"
    variable: contextvars.ContextVar[str] = sys.modules["infertool_model_awaits"].request
    return variable


class Caller(threading.Thread):
    """Makes one call on a thread of its own."""

    def __init__(self, model: LoadedModel, do: str, **fields: Any) -> None:
        super().__init__(daemon=True)
        self._work: Callable[[], Any] = lambda: does(model, do, **fields)
        self.error: BaseException | None = None
        self.result: Any = None
        self.start()

    def run(self) -> None:
        try:
            self.result = self._work()
        except BaseException as error:  # noqa: BLE001
            self.error = error

    def cancel(self) -> None:
        """Cancel the call once it waits."""
        assert self.ident is not None
        while self.is_alive():
            cancel_call(self.ident)
            self.join(0.05)


def test_a_call_is_cancelled_by_its_thread(model: LoadedModel) -> None:
    caller, other = Caller(model, "hangs"), Caller(model, "waits")
    caller.cancel()
    assert isinstance(caller.error, InferenceError)
    assert str(caller.error) == "the call was cancelled"
    does(model, "releases")
    other.join(LONG)
    assert other.result == {"n": 1}


def test_closing_cancels_what_is_outstanding_and_then_closes_the_model() -> None:
    model = load(f"{SPEC}:Does")
    warm_up(model)
    counts = instance(model)
    callers = [Caller(model, "hangs") for _ in range(3)]
    while counts.outstanding < len(callers):
        time.sleep(0.005)
    model.close()
    for caller in callers:
        caller.join(LONG)
        assert isinstance(caller.error, InferenceError)
    assert (counts.cancelled, counts.closed_with, counts.outstanding) == (3, 0, 0)
    assert loop_threads() == 0
    with pytest.raises(InferenceError, match="is closed"):
        does(model, "answer")


def test_a_model_may_be_closed_twice() -> None:
    model = load(f"{SPEC}:coroutine")
    model.predict({"n": 1})
    model.close()
    model.close()


def instance(model: LoadedModel) -> Any:
    """Return the object behind a model: it says so itself."""
    found: list[Any] = []

    async def answer(self: Any, payload: Any) -> Any:
        found.append(self)
        return payload

    sys.modules["infertool_model_awaits"].Does.tell = answer
    does(model, "tell")
    return found[0]


@pytest.mark.parametrize("cancelled", ["swallows", "blocks"])
def test_closing_ends_although_a_call_does_not(
    cancelled: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(event_loop, "CLOSE_S", 0.2 if cancelled == "blocks" else 2.0)
    model = load(f"{SPEC}:Does")
    warm_up(model)
    counts = instance(model)
    caller = Caller(model, cancelled, s=2.0)
    while not counts.outstanding:
        time.sleep(0.005)
    model.close()
    expected = "did not end although they were cancelled" if cancelled == "swallows" else "event loop is blocked"
    assert expected in caplog.text
    caller.join(LONG)
    assert not caller.is_alive()


def test_a_model_that_blocks_its_loop_is_named_once_with_the_place(
    model: LoadedModel, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        while "blocks its event loop" not in caplog.text:
            does(model, "blocks", s=1.0)
        does(model, "blocks", s=1.0)
    (record,) = [each for each in caplog.records if "blocks its event loop" in each.getMessage()]
    assert "awaits.py:" in record.getMessage()
    assert "in Does.blocks" in record.getMessage()
    assert "asyncio.to_thread" in record.getMessage()


def test_a_model_that_waits_long_is_not_said_to_block(model: LoadedModel, caplog: pytest.LogCaptureFixture) -> None:
    caller = Caller(model, "waits")
    caller.join(1.2)
    does(model, "releases")
    caller.join(LONG)
    assert caller.result == {"n": 1}
    assert "blocks" not in caplog.text


def test_batches_are_awaited(model: LoadedModel) -> None:
    assert model.predict_batch is not None
    first, second = model.predict_batch([{"n": 1}, {"n": 2, "do": "raises"}])
    assert first == {"n": 1}
    assert isinstance(second, ValueError)


def test_all_runs_on_one_loop(model: LoadedModel) -> None:
    counts = instance(model)
    with ThreadPoolExecutor(8) as threads:
        waiting = [threads.submit(does, model, "waits", n=n) for n in range(7)]
        while counts.outstanding < len(waiting):
            time.sleep(0.005)
        does(model, "releases")
        assert [each.result(LONG) for each in waiting] == [{"n": n} for n in range(7)]
    assert counts.most >= len(waiting)
    (loop,) = counts.loops
    assert isinstance(loop, asyncio.AbstractEventLoop)
