"""The sample events are events, and the broken-input set is broken as its index says."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest

from infertool.models.loader import load
from tests.conftest import FIXTURES
from tests.support.running import environment

EVENTS = sorted((FIXTURES / "events").glob("*.json"))
BROKEN = json.loads((FIXTURES / "broken" / "index.json").read_text())


@pytest.fixture
def without_torch(tmp_path: Path) -> dict[str, str]:
    """An environment in which PyTorch cannot be imported, also where it is installed."""
    (tmp_path / "torch.py").write_text("raise ImportError('No module named torch')")
    return environment(PYTHONPATH=str(tmp_path))


def test_the_torch_model_loads_without_torch_and_says_what_it_needs(without_torch: dict[str, str]) -> None:
    code = (
        "from infertool.models.loader import load, warm_up\n"
        f"model = load({str(FIXTURES / 'models' / 'torch_encoder.py:Encoder')!r})\n"
        "try: warm_up(model)\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=without_torch)
    assert done.stdout.startswith("ModelLoadError")
    assert "this model needs PyTorch: pip install torch" in done.stdout


def test_the_benchmark_on_a_gpu_says_what_it_needs(without_torch: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench.gpu"],
        capture_output=True, text=True, check=False, env=without_torch, cwd=FIXTURES.parent,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "tests.bench.gpu needs PyTorch: pip install torch\n"


@pytest.mark.parametrize("file", EVENTS, ids=lambda file: file.stem)
def test_a_sample_event_is_an_object_that_a_seeded_model_can_work_on(file: Path) -> None:
    event = orjson.loads(file.read_bytes())
    model = load("sim:?min_ms=0&max_ms=0&failure_rate=0&seed=1")
    assert model.predict(event) == model.predict(event)


def test_the_reference_event_has_the_size_that_was_measured_with() -> None:
    assert len((FIXTURES / "events" / "reference.json").read_bytes()) == 364


def test_the_index_lists_every_broken_file_once() -> None:
    files = [file.name for file in (FIXTURES / "broken").glob("*.bin")]
    assert sorted(files) == sorted(BROKEN)


@pytest.mark.parametrize("file", BROKEN)
def test_poison_is_what_strict_json_refuses_or_no_object(file: Any) -> None:
    body = (FIXTURES / "broken" / file).read_bytes()
    try:
        is_event = isinstance(orjson.loads(body), dict)
    except orjson.JSONDecodeError:
        is_event = False
    assert is_event is not BROKEN[file]["poison"]
