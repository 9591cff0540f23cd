"""The event that everything is measured with: 364 bytes of JSON."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[3]
REFERENCE = ROOT / "fixtures" / "events" / "reference.json"
NOOP = "fixtures/models/noop.py:predict"
