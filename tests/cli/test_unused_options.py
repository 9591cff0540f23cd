"""An option on the command line that would do nothing in this run is refused; the same setting elsewhere is not."""

from __future__ import annotations

import pytest

from tests.support.running import infertool

NOWHERE = "ws://127.0.0.1:1/socket/websocket"
UNUSED = {
    "consume --publish none --confirm reply": "use --publish phoenix",
    "consume --reply --join-param a=b": "use --publish phoenix",
    "consume --publish stdout --publish-batch 8": "use --publish phoenix",
    "consume --reply-form outcome": "add --reply",
    "consume --batch-wait 5ms": "add --batch-size N",
    "consume --batch-size 1 --batch-wait 5ms": "add --batch-size N",
    "serve-model sim: --batch-wait 5ms": "add --batch-size N",
    "watch --once --speed 10": "add --from FILE",
    f"watch --once --from record --phoenix {NOWHERE}": "leave out --from",
    f"watch --once --bus a --bus b --phoenix {NOWHERE}": "set phoenix.url in the profiles",
    "watch --output json": "add that",
    "dev --no-broker --stomp-port 0": "leave out --no-broker",
    "dev --no-broker --gateway-port 0": "leave out --no-broker",
    "dev --no-hub --http-port 0": "leave out --no-hub",
    "dev --no-gateway --gateway-port 0": "leave out --no-gateway",
    "demo --no-gateway --gateway-port 0": "leave out --no-gateway",
    "doctor --only broker --sample {}": "model.sample",
    "doctor --skip phoenix --push": "phoenix.confirm",
    "doctor --only model,broker --stats-url http://127.0.0.1:1": "telemetry.consumer",
    "call q {} --broker kafka://127.0.0.1:1 --priority 3": "on another queue",
    "loadgen --broker kafka://127.0.0.1:1 --queue q --qps 5 --priority high:9=0.1,low:4=0.9": "several queues",
}


@pytest.mark.parametrize("command", UNUSED)
def test_an_option_that_does_nothing_is_refused(command: str) -> None:
    done = infertool(*command.split())
    assert (done.returncode, done.stdout) == (2, "")
    [line] = done.stderr.splitlines()
    option = next(word for word in reversed(command.split()) if word.startswith("--"))
    assert line.startswith(f"infertool: {option} does nothing in this run; ")
    assert UNUSED[command] in line


@pytest.mark.parametrize(
    "settings",
    [
        {"INFERTOOL_PHOENIX__CONFIRM": "reply", "INFERTOOL_PUBLISH__BATCH": "8", "INFERTOOL_PHOENIX__TOPIC": "t"},
        {"INFERTOOL_CONSUME__REPLY_FORM": "outcome", "INFERTOOL_CONSUME__BATCH_WAIT_S": "1"},
        {"INFERTOOL_CONSUME__EXECUTOR": "processes", "INFERTOOL_CONSUME__CONCURRENCY": "4"},
    ],
)
def test_a_setting_of_the_environment_may_stay(settings: dict[str, str]) -> None:
    done = infertool("consume", "--publish", "none", "--broker", "stomp://127.0.0.1:1", **settings)
    assert done.returncode == 3, done.stderr
    assert "nothing listens at stomp://127.0.0.1:1" in done.stderr


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("gateway --keys-file k keys list", "--keys-file does nothing before keys; write"),
        ("gateway --state-dir d webhooks", "--state-dir does nothing before webhooks; write"),
        ("loadgen --qps 5 report run.jsonl", "--qps does nothing before report; write"),
        ("--profile a watch --bus b --once", "--profile and --bus both name a profile"),
        ("replay-dlq --from archive --force", "--force is about a queue, and cannot be used with --from"),
        ("rabbitmq declare --dead-letter-routing-key k", "needs --dead-letter-exchange"),
    ],
)
def test_options_that_belong_elsewhere(command: str, words: str) -> None:
    done = infertool(*command.split())
    assert (done.returncode, done.stdout) == (2, "")
    [line] = done.stderr.splitlines()
    assert words in line


def test_a_place_of_the_bus_may_stay() -> None:
    places = ("--broker", "stomp://127.0.0.1:1", "--phoenix", NOWHERE, "--topic", "t")
    done = infertool("consume", "--publish", "none", *places)
    assert done.returncode == 3, done.stderr
    assert "nothing listens at stomp://127.0.0.1:1" in done.stderr
