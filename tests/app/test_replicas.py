"""Processes under one supervisor, seen from inside."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import pytest

from infertool.app.replicas import supervisor as supervisor_module
from infertool.app.replicas.supervisor import Supervisor
from tests.app.test_embedding import settings_of, wait_for
from tests.bus.conftest import Bus
from tests.support.hanging import hangs_at_start
from tests.support.present import present
from tests.support.running import LONG


def test_a_process_whose_warm_up_hangs_in_anothers_place_is_replaced(
    embedded_bus: Bus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(supervisor_module, "LONG_START_S", 1.0)
    monkeypatch.setattr(supervisor_module, "SLOWER_STARTS", 5)
    starts, model = hangs_at_start(tmp_path, 3)
    settings = settings_of(embedded_bus, processes=2)
    supervisor = Supervisor(replace(settings, model=replace(settings.model, spec=model)))
    running = threading.Thread(target=supervisor.run)
    running.start()
    try:
        wait_for(lambda: len(supervisor.reports()[1]) == 2)
        present(supervisor._replicas[0].process).kill()
        wait_for(lambda: len(list(starts.iterdir())) >= 4)
        wait_for(lambda: len(supervisor.reports()[1]) == 2)
    finally:
        supervisor.stop()
        running.join(LONG)
    assert not running.is_alive()
    assert "it was not ready within " in caplog.text
