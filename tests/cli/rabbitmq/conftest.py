"""infertool on a real RabbitMQ, with its management API unless a test does without."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import pytest

from tests.support.rabbitmq import RabbitMQ
from tests.support.running import CREDENTIALS, infertool

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(rabbitmq: RabbitMQ) -> Run:
    """Run infertool on the broker, and check its exit code."""

    def run(*arguments: str, code: int = 0, asked: bool = True) -> subprocess.CompletedProcess[str]:
        api = {"INFERTOOL_BROKER__MANAGEMENT_URL": rabbitmq.management_url} if asked else {}
        done = infertool(*arguments, INFERTOOL_BROKER__URL=rabbitmq.amqp_url, **CREDENTIALS, **api)
        assert done.returncode == code, done.stderr
        return done

    return run
