"""Which adapter a URL's scheme names, and what is said where there is none."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from infertool import brokers
from infertool.brokers import registry
from infertool.errors import SettingsError


def test_a_missing_extra_is_named_with_its_install_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "adapter_of_a_missing_client.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    entry = registry._Entry("adapter_of_a_missing_client", "a_client_that_nobody_has", "kafka")
    monkeypatch.setattr(registry, "_SCHEMES", {"kafka": entry})
    with pytest.raises(SettingsError, match="a_client_that_nobody_has") as caught:
        brokers.conventions("kafka://a")
    assert (caught.value.key, caught.value.advice) == ("broker.url", "pip install 'infertool[kafka]'")


def test_every_scheme_has_an_adapter_that_names_its_port() -> None:
    for scheme in registry._SCHEMES:
        adapter = registry.adapter(scheme)
        assert scheme in adapter.PORTS
        assert adapter.CONVENTIONS.is_queue(adapter.CONVENTIONS.queue("ai.events.raw"))
        assert adapter.CONVENTIONS.queue("ai.events.raw") == adapter.CONVENTIONS.queue("/queue/ai.events.raw")


def test_what_is_known_without_a_connection_imports_no_client() -> None:
    code = "import sys; from infertool import brokers; brokers.adapter('stomp://a'); print('stomp' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
