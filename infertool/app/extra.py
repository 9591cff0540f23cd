"""The packages of the extra `gateway`, which whatever serves inference over HTTP needs."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Final

from infertool.errors import UsageError

INSTALL: Final = "pip install 'infertool[gateway]'"
_PACKAGES: Final = ("starlette", "uvicorn", "httptools", "joserfc")


def missing() -> list[str]:
    """Return the packages that are not installed."""
    return [name for name in _PACKAGES if find_spec(name) is None]


def check(what: str) -> None:
    """Raise `UsageError` where a package is missing that `what` needs."""
    if found := missing():
        are = "is" if len(found) == 1 else "are"
        raise UsageError(f"{what} needs {', '.join(found)}, which {are} not installed", advice=INSTALL)
