"""Devices of worker processes: each process sees one, also one that takes the place of another."""

from __future__ import annotations

import os
import signal
from collections import Counter
from dataclasses import replace

import orjson
import pytest

from infertool.app.consumer import check
from infertool.consumer.attempt import Outcome
from infertool.consumer.consumer import Until
from infertool.consumer.processes.devices import Device, assigned
from infertool.consumer.processes.pool import Processes
from infertool.consumer.processes.wire import WorkerConfig
from infertool.consumer.tuning import concurrency
from infertool.errors import SettingsError
from infertool.settings import ConsumeSettings, ModelSettings, Settings
from tests.conftest import FIXTURES
from tests.consumer.harness import Bench

MODEL = ModelSettings(spec=f"{FIXTURES}/models/devices.py:predict")


def seen(outcomes: list[Outcome]) -> dict[int, tuple[str | None, str]]:
    """Return what each worker process sees, by its pid: the device's name and what is visible."""
    results = [orjson.loads(each.prediction.text) for each in outcomes if each.failure is None]
    return {each["pid"]: (each["device"], each["visible"]) for each in results}


def test_each_process_has_its_device_and_so_has_the_one_that_replaces_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,GPU-7f")
    consume = ConsumeSettings(executor="processes", devices="0, 1", workers=3)
    warnings: list[str] = []
    devices = assigned(consume, 3, os.environ)
    with Processes(WorkerConfig(MODEL, False, 0, 0), 3, warnings.append, devices) as pool:
        bench = Bench(pool, concurrency=3)
        first = used(bench, 3, without=set())
        for pid in first:
            os.kill(pid, signal.SIGKILL)
        second = used(bench, 3, without=set(first))
        assert bench.stop()
    for found in first, second:
        assert Counter(found.values()) == {("0", "5"): 2, ("1", "GPU-7f"): 1}
    assert sorted(text.split()[3:6] for text in warnings) == [["on", "device", each] for each in "001"]


def used(bench: Bench, count: int, *, without: set[int]) -> dict[int, tuple[str | None, str]]:
    """Submit events until `count` processes have answered that are not among `without`."""
    found: dict[int, tuple[str | None, str]] = {}
    submitted = len(bench.outcomes)
    while len(found) < count:
        bench.submit(50)
        submitted += 50
        found = {pid: device for pid, device in seen(bench.wait(submitted)).items() if pid not in without}
    return found


def test_a_process_without_a_device_sees_what_its_parent_sees(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    with Processes(WorkerConfig(MODEL, False, 0, 0), 1, print) as pool:
        bench = Bench(pool, concurrency=1)
        bench.submit(1)
        assert list(seen(bench.wait(1)).values()) == [(None, "3")]
        assert bench.stop()


@pytest.mark.parametrize(
    ("devices", "workers", "visible", "expected"),
    [
        ("", 2, "", ["", ""]),
        ("0,1", 2, "", ["0", "1"]),
        ("0,1", 5, "", ["0", "1", "0", "1", "0"]),
        ("0,0,1", 3, "", ["0", "0", "1"]),
        ("1,0", 2, "4, 6", ["6", "4"]),
        ("GPU-2f,MIG-GPU-1/3/0", 2, "4,6", ["GPU-2f", "MIG-GPU-1/3/0"]),
    ],
)
def test_devices_are_given_in_turn(devices: str, workers: int, visible: str, expected: list[str]) -> None:
    consume = ConsumeSettings(executor="processes", devices=devices)
    environ = {"CUDA_VISIBLE_DEVICES": visible} if visible else {}
    assert [each.visible for each in assigned(consume, workers, environ)] == expected


def test_without_a_number_of_workers_each_device_has_one() -> None:
    consume = ConsumeSettings(executor="processes", devices="0,1,0")
    assert concurrency(consume, in_batches=False) == 3
    assert concurrency(replace(consume, workers=7), in_batches=False) == 7


def test_the_environment_of_a_device_keeps_the_other_variables() -> None:
    environment = Device("1", "6").environment()
    assert environment == {**os.environ, "CUDA_VISIBLE_DEVICES": "6", "INFERTOOL_DEVICE": "1"}


@pytest.mark.parametrize(
    ("consume", "visible", "text"),
    [
        (ConsumeSettings(devices="0"), "", "consume.executor is threads"),
        (ConsumeSettings(executor="processes", devices="0,1", workers=1), "0,1", "names 2 devices for 1 worker"),
        (ConsumeSettings(executor="processes", devices="2"), "4,5", "names device 2, and CUDA_VISIBLE_DEVICES shows 2"),
        (ConsumeSettings(executor="processes", devices="1"), "4,-1,5", "device 1, and CUDA_VISIBLE_DEVICES shows 1"),
        (ConsumeSettings(executor="processes", devices="0"), "", "device 0, and CUDA_VISIBLE_DEVICES shows 0"),
    ],
)
def test_devices_that_no_process_can_have_are_refused(
    consume: ConsumeSettings, visible: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    with pytest.raises(SettingsError, match=text):
        check(replace(Settings(), consume=consume), Until())
