"""A classifier of scikit-learn in a file, as a user has one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def trained(path: Path, features: Sequence[Sequence[float]], classes: Sequence[str]) -> None:
    """Fit a classifier and keep it in a file."""
    # Here, not above: a collection would spend a fifth of its time on importing it.
    import joblib
    from sklearn.linear_model import LogisticRegression

    joblib.dump(LogisticRegression().fit(features, classes), path)
