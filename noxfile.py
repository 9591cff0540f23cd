"""`nox` runs everything a change must pass: lint, types, import contracts, and every test with the real servers.

`nox -s bench` measures; it is not part of the default run, since timing never decides a test.
"""

import nox

nox.options.default_venv_backend = "venv"
nox.options.reuse_existing_virtualenvs = True
nox.options.sessions = ["lint", "tests"]


PROJECT = nox.project.load_toml("pyproject.toml")


def _install(session: nox.Session, *groups: str) -> None:
    # Not `pip install --group`: the pip of Python 3.11 does not know it.
    session.install("-e", ".", *nox.project.dependency_groups(PROJECT, *groups))


@nox.session
def lint(session: nox.Session) -> None:
    """Style, types, and the floors."""
    _install(session, "lint", "test")
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    session.run("mypy")
    session.run("lint-imports", "--no-cache")


@nox.session
def tests(session: nox.Session) -> None:
    """All tests: unit, embedded, real ActiveMQ, Node, Chromium. What the machine lacks is installed when it can be.

    Most of them wait for a server, so two cores take four at a time; those of one file run one after another.
    """
    _install(session, "test")
    session.run("pytest", "--numprocesses=4", "--dist=loadfile", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """Ratios, side by side in one run, as docs/benchmarks.md explains them."""
    # Two peers that infertool is compared with; no part of it needs them.
    _install(session, "test")
    session.install("stompman", "faststream-stomp")
    session.run("pytest", "tests/bench", "--benchmark-enable", "--benchmark-only", "-s", *session.posargs)
