from __future__ import annotations

import threading

from infertool.net.timing import Timers

LONG = 120.0


def test_actions_run_in_the_order_of_their_times() -> None:
    queue, order, done = Timers("test"), [], threading.Event()
    queue.after(0.2, done.set)
    queue.after(0.1, lambda: order.append("second"))
    queue.after(0.0, lambda: order.append("first"))
    queue.start()
    assert done.wait(LONG)
    assert order == ["first", "second"]
    queue.stop()


def test_an_earlier_action_overtakes_one_that_is_waited_for() -> None:
    queue, done = Timers("test"), threading.Event()
    queue.start()
    queue.after(LONG * 10, lambda: None)
    queue.after(0.0, done.set)
    assert done.wait(LONG)
    queue.stop()


def test_a_stop_drops_what_waits() -> None:
    queue, ran = Timers("test"), threading.Event()
    queue.after(0.05, ran.set)
    queue.stop()
    queue.start()
    assert not ran.wait(0.2)
