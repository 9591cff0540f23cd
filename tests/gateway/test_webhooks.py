"""Webhooks against real receivers: signed, tried again, over restarts; one that misbehaves holds up nobody."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import logging
import ssl
import subprocess
from pathlib import Path
from typing import Any

import pytest

from infertool.errors import SettingsError
from infertool.gateway import webhook_rows
from infertool.gateway.database import Database
from infertool.gateway.mailbox import Mailbox
from infertool.gateway.request import State
from infertool.gateway.store import Store
from infertool.gateway.webhook_hosts import WebhookHosts
from infertool.gateway.webhook_post import Poster
from infertool.gateway.webhook_rows import Delivery, Webhook
from infertool.gateway.webhooks import MOST_OF_HOST, WAITS, Webhooks
from infertool.net.timing import Schedule
from infertool.secret import Secret
from infertool.settings.tree import GatewaySettings
from tests.gateway.webhook_receiver import Receiver, Rows, ended, receiving, until
from tests.support.certificates import authority
from tests.support.deaf import deaf
from tests.support.running import infertool

KEY = b"k" * 32
SECRET = Secret("whsec_" + base64.b64encode(KEY).decode())
SOON = Schedule((0.01,) * 8)
LATER = Schedule((3600.0,) * 8)


def opened(
    rows: Rows | Database, receiver: Receiver, *, waits: Schedule = SOON, timeout_s: float = 60.0, **changes: Any
) -> Webhooks:
    """Return webhooks to the receiver, as two hosts of one address."""
    hosts = [f"127.0.0.1:{receiver.port}", f"localhost:{receiver.port}"]
    settings = GatewaySettings(webhook_hosts=hosts, webhook_secret=SECRET, **changes)
    poster = Poster(WebhookHosts(hosts), timeout_s=timeout_s, resolver=lambda _host, _port: ["127.0.0.1"])
    return Webhooks(settings, rows, poster=poster, waits=waits)


def found(rows: Rows) -> dict[str, Webhook]:
    return {each.id: each for each in webhook_rows.found(rows.database)}


@pytest.fixture
def rows(tmp_path: Path) -> Rows:
    return Rows(tmp_path / "gateway.sqlite")


def test_the_end_of_a_request_is_posted_and_signed(rows: Rows) -> None:
    async def run() -> None:
        async with receiving() as receiver:
            webhooks = opened(rows, receiver)
            await webhooks.start()
            webhooks.send(ended(1, receiver.url("/in?token=secret")))
            failure = b'{"status":"FAILED","error":"no","error_type":"ValueError","stage":"infer","event_id":"gw-2"}'
            webhooks.send(ended(2, receiver.url("/in"), State.FAILED, failure))
            webhooks.send(ended(3, receiver.url("/in"), body=b"\xff\x00"))
            webhooks.send(ended(4, receiver.url("/in"), State.EXPIRED, b""))
            webhooks.send(ended(5, ""))
            await until(lambda: webhooks.counts[Delivery.DELIVERED] == 4)
            await webhooks.close()
            assert webhooks.waiting == 0
            told = {headers["webhook-id"]: (headers, body) for _, headers, body in receiver.got}
        assert told.keys() == {f"msg_gw-{number}" for number in (1, 2, 3, 4)}
        for name, (headers, body) in told.items():
            text = b"%s.%s.%s" % (name.encode(), headers["webhook-timestamp"].encode(), body)
            assert (
                headers["webhook-signature"]
                == f"v1,{base64.b64encode(hmac.digest(KEY, text, hashlib.sha256)).decode()}"
            )
            assert headers["content-type"] == "application/json"
        first, second, third, fourth = (json.loads(told[f"msg_gw-{number}"][1]) for number in (1, 2, 3, 4))
        assert b'"prediction":{"score":1.50}' in told["msg_gw-1"][1]
        assert (first["type"], first["timestamp"]) == ("inference.succeeded", "2023-11-14T22:13:20.000Z")
        assert {"event_id": "gw-1", "request_id": "mine-1", "status": "succeeded"}.items() <= first["data"].items()
        assert second["type"] == "inference.failed"
        assert {"error": "no", "stage": "infer", "status": "failed"}.items() <= second["data"].items()
        assert base64.b64decode(third["data"]["body_base64"]) == b"\xff\x00"
        assert fourth["data"]["status"] == "expired"
        assert all(webhook_rows.body(rows.database, each) is None for each in found(rows))

    asyncio.run(run())


@pytest.mark.parametrize(
    ("path", "status", "error"),
    [
        ("/500", 500, "answered 500"),
        ("/moved", 302, "redirects are not followed"),
        ("/cut", None, "closed"),
        ("/hang", None, "did not answer within"),
        ("/drip", None, "did not answer within"),
        ("/deaf", None, "did not answer within"),
    ],
)
def test_what_is_not_taken_is_tried_nine_times_and_then_given_up(
    rows: Rows, path: str, status: int | None, error: str
) -> None:
    async def run() -> None:
        async with receiving() as receiver:
            webhooks = opened(rows, receiver, timeout_s=0.2 if status is None and path != "/cut" else 60.0)
            await webhooks.start()
            webhooks.send(ended(1, receiver.url(path), body=b'"%s"' % (b"x" * 8_000_000 if path == "/deaf" else b"")))
            await until(lambda: webhooks.counts[Delivery.GIVEN_UP])
            await webhooks.close()
            assert "/inside" not in receiver.hits
        row = found(rows)["gw-1"]
        assert (row.state, row.attempts, row.status) == (Delivery.GIVEN_UP, 9, status)
        assert error in row.error

    asyncio.run(run())


def test_a_fault_of_an_attempt_is_that_of_the_attempt_alone(rows: Rows) -> None:
    faults = [RuntimeError("can't start new thread"), MemoryError()]

    def resolve(_host: str, _port: int) -> list[str]:
        if faults:
            raise faults.pop(0)
        return ["127.0.0.1"]

    async def run() -> None:
        async with receiving() as receiver:
            hosts = [f"127.0.0.1:{receiver.port}"]
            settings = GatewaySettings(webhook_hosts=hosts, webhook_secret=SECRET)
            poster = Poster(WebhookHosts(hosts), resolver=resolve)
            webhooks = Webhooks(settings, rows, poster=poster, waits=SOON)
            await webhooks.start()
            webhooks.send(ended(1, receiver.url("/in")))
            await until(lambda: webhooks.counts[Delivery.DELIVERED])
            await webhooks.close()
        assert (found(rows)["gw-1"].attempts, webhooks.waiting) == (3, 0)

    asyncio.run(run())


def test_waits_make_a_day() -> None:
    assert len(WAITS.waits_s) == 8
    assert 23 * 3600 <= sum(WAITS.waits_s) <= 24 * 3600


def test_a_receiver_that_is_gone_for_good_is_not_tried_again(rows: Rows) -> None:
    async def run() -> None:
        async with receiving() as receiver:
            webhooks = opened(rows, receiver)
            await webhooks.start()
            webhooks.send(ended(1, receiver.url("/410")))
            await until(lambda: webhooks.counts[Delivery.GIVEN_UP])
            await webhooks.close()
        assert (found(rows)["gw-1"].attempts, found(rows)["gw-1"].status) == (1, 410)

    asyncio.run(run())


def test_receivers_that_hang_hold_up_nobody_else(rows: Rows) -> None:
    async def run() -> None:
        async with receiving() as receiver:
            # Nothing times out here: what hangs does so to the end.
            webhooks = opened(rows, receiver, timeout_s=3600.0)
            await webhooks.start()
            for number in range(50):
                webhooks.send(ended(number, receiver.url("/hang", "localhost")))
            await until(lambda: receiver.hits["/hang"] == 4)
            for number in range(50, 100):
                webhooks.send(ended(number, receiver.url("/in")))
            await until(lambda: webhooks.counts[Delivery.DELIVERED] == 50)
            assert receiver.hits["/hang"] == 4
            assert webhooks.waiting == 50
            await webhooks.close()

    asyncio.run(run())


def test_webhooks_survive_a_restart(rows: Rows) -> None:
    async def run() -> None:
        async with receiving() as receiver:
            first = opened(rows, receiver, waits=LATER)
            await first.start()
            for number, path in enumerate(["/in", "/500", "/500", "/hang"]):
                first.send(ended(number, receiver.url(path)))
            await until(
                lambda: receiver.hits["/500"] == 2 and receiver.hits["/hang"] and first.counts[Delivery.DELIVERED]
            )
            await until(lambda: [each.attempts for each in found(rows).values()].count(1) == 3)
            rows.fails = True
            first.send(ended(4, receiver.url("/in")))  # not written: the engine tells of it again after its own restart
            await first.close()
            rows.fails = False
            waiting = found(rows)
            assert [waiting[f"gw-{number}"].state for number in range(4)] == ["delivered", *["waiting"] * 3]
            # An hour passes; the URL that was answered with 500 is taken now.
            rows.database.execute(
                "UPDATE webhooks SET url = replace(replace(url, '500', 'in'), 'hang', 'in'), next_ms = 0"
            )
            rows.database.commit()
            second = opened(rows, receiver)
            await second.start()
            assert second.waiting == 3
            second.send(ended(0, receiver.url("/in")))  # told again: it is there already
            await until(lambda: second.counts[Delivery.DELIVERED] == 3 and not second.waiting)
            await second.close()
            ids = [headers["webhook-id"] for path, headers, _ in receiver.got if path == "/in"]
        assert sorted(ids) == [f"msg_gw-{number}" for number in range(4)]
        assert {each.state for each in found(rows).values()} == {Delivery.DELIVERED}
        assert {each.id: each.attempts for each in found(rows).values()} == {"gw-0": 1, "gw-1": 2, "gw-2": 2, "gw-3": 1}

    asyncio.run(run())


def test_a_host_that_is_off_the_list_after_a_restart_gets_nothing(rows: Rows) -> None:
    async def run() -> None:
        async with receiving() as receiver:
            first = opened(rows, receiver, waits=LATER)
            await first.start()
            first.send(ended(1, receiver.url("/500")))
            await until(lambda: first.counts["attempts"] and found(rows)["gw-1"].attempts)
            await first.close()
            rows.database.execute("UPDATE webhooks SET next_ms = 0")
            rows.database.commit()
            second = Webhooks(GatewaySettings(webhook_hosts=["other.example.com"], webhook_secret=SECRET), rows)
            await second.start()
            await until(lambda: second.counts[Delivery.GIVEN_UP])
            await second.close()
            assert receiver.hits["/500"] == 1
        assert "does not allow" in found(rows)["gw-1"].error

    asyncio.run(run())


def test_a_database_that_is_locked_for_a_while_loses_nothing(rows: Rows, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    async def run() -> None:
        async with receiving() as receiver:
            webhooks = opened(rows, receiver)
            await webhooks.start()
            rows.fails = True
            webhooks.send(ended(1, receiver.url("/in")))
            await until(lambda: "webhooks cannot be written" in caplog.text)
            assert webhooks.waiting == 1
            rows.fails = False
            await until(lambda: webhooks.counts[Delivery.DELIVERED] == 1)
            assert caplog.messages.count("webhooks are written again") == 1
            await webhooks.close()

    asyncio.run(run())


def test_one_host_cannot_fill_the_store(rows: Rows) -> None:
    async def run() -> None:
        async with receiving() as receiver:
            webhooks = opened(rows, receiver, timeout_s=3600.0)
            await webhooks.start()
            for number in range(MOST_OF_HOST + 10):
                webhooks.send(ended(number, receiver.url("/hang", "localhost")))
            webhooks.send(ended(-1, receiver.url("/in")))
            await until(lambda: webhooks.counts[Delivery.DELIVERED] == 1)
            assert webhooks.counts[Delivery.GIVEN_UP] == 10
            await webhooks.close()
        lost = [each for each in found(rows).values() if each.state is Delivery.GIVEN_UP]
        assert (len(lost), lost[0].error) == (10, "too many webhooks wait already")

    asyncio.run(run())


def test_what_ended_is_forgotten_with_its_result(rows: Rows) -> None:
    async def run() -> None:
        now = 1_000_000.0
        rows.database.execute("SELECT 1")
        webhooks = Webhooks(GatewaySettings(keep_s=100.0), rows, clock=lambda: now)
        for number, (state, age_s) in enumerate(
            [("delivered", 101), ("given_up", 101), ("waiting", 101), ("delivered", 99)]
        ):
            at = int((now - age_s) * 1000)
            each = Webhook(id=f"gw-{number}", url="https://a.b/", state=Delivery(state), changed_ms=at, next_ms=2**60)
            webhook_rows.add(rows.database, [(each, b"{}")])
        rows.database.commit()
        await webhooks.start()
        await until(lambda: found(rows).keys() == {"gw-2", "gw-3"})
        await webhooks.close()

    asyncio.run(run())


def test_a_name_is_resolved_once_for_each_attempt(rows: Rows) -> None:
    answers = iter([["127.0.0.1"], ["127.0.0.2"]])

    async def run() -> None:
        async with receiving() as receiver:
            hosts = WebhookHosts([f"localhost:{receiver.port}"])
            poster = Poster(hosts, resolver=lambda _host, _port: next(answers))
            assert await poster.post(hosts.check(receiver.url("/in", "localhost")), {}, b"{}") == (200, "")
            assert next(answers) == ["127.0.0.2"]
            assert receiver.got[0][1]["host"] == f"localhost:{receiver.port}"

    asyncio.run(run())


def test_an_address_that_never_answers_leaves_time_for_the_next() -> None:
    async def run() -> None:
        async with receiving() as receiver:
            hosts = WebhookHosts([f"localhost:{receiver.port}"])
            poster = Poster(hosts, timeout_s=8.0, resolver=lambda _host, _port: ["127.0.0.2", "127.0.0.1"])
            with deaf("127.0.0.2", receiver.port):
                assert await poster.post(hosts.check(receiver.url("/in", "localhost")), {}, b"{}") == (200, "")

    asyncio.run(run())


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "10.0.0.1", "::ffff:127.0.0.1", "169.254.169.254"])
def test_a_name_that_leads_inside_is_not_connected_to(address: str) -> None:
    async def run() -> None:
        hosts = WebhookHosts(["hooks.example.com"])
        poster = Poster(hosts, resolver=lambda _host, _port: [address])
        status, error = await poster.post(hosts.check("https://hooks.example.com/"), {}, b"{}")
        assert status is None
        assert "no address that webhooks may go to" in error

    asyncio.run(run())


def test_the_certificate_must_be_that_of_the_name(tmp_path: Path) -> None:
    """A connection is made to an address, but the certificate is that of the URL's host."""
    trusted = authority(tmp_path)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(trusted.issue("receiver", "127.0.0.1"))
    client = ssl.create_default_context(cafile=trusted.file)

    async def run() -> None:
        async with receiving(server) as receiver:
            hosts = WebhookHosts([f"127.0.0.1:{receiver.port}", f"localhost:{receiver.port}"])
            poster = Poster(hosts, resolver=lambda _host, _port: ["127.0.0.1"], tls=client)
            url = receiver.url("/in").replace("http:", "https:")
            assert await poster.post(hosts.check(url), {}, b"{}") == (200, "")
            status, error = await poster.post(hosts.check(url.replace("127.0.0.1", "localhost")), {}, b"{}")
            assert (status, receiver.hits["/in"]) == (None, 1)
            assert "localhost" in error

    asyncio.run(run())


def test_they_live_in_the_store_of_the_engine_and_are_shown(tmp_path: Path) -> None:
    async def run() -> None:
        mailbox = Mailbox(lambda: None)
        mailbox.open()
        database = Database(Store(tmp_path, (webhook_rows.TABLE,)), mailbox)
        async with receiving() as receiver:
            webhooks = opened(database, receiver, waits=LATER)
            await webhooks.start()
            webhooks.send(ended(1, receiver.url("/in")))
            webhooks.send(ended(2, receiver.url("/500?token=secret")))
            await until(lambda: webhooks.counts[Delivery.DELIVERED] and webhooks.counts["attempts"] == 2)
            # The gateway need not end before.
            shown = (await asyncio.to_thread(command, tmp_path, "-o", "json")).stdout
            await webhooks.close()
        await database.close()
        document = json.loads(shown)
        assert document["counts"] == {"waiting": 1, "delivered": 1, "given_up": 0}
        (webhook,) = document["webhooks"]
        assert (webhook["id"], webhook["state"]) == ("gw-2", "waiting")
        assert "secret" not in shown

    asyncio.run(run())
    done = command(tmp_path, "--state", "all", "--limit", "9" * 30)
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["id", "gw-2", "gw-1"]
    assert "answered 500" in done.stdout
    assert "1 waiting, 1 delivered" in done.stderr
    none = command(tmp_path, "--state", "given_up")
    assert (none.returncode, none.stdout) == (4, "")
    assert command(tmp_path / "elsewhere").returncode == 2


def command(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return infertool("gateway", "webhooks", "--state-dir", str(folder), *arguments)


def test_settings_that_cannot_work(rows: Rows) -> None:
    with pytest.raises(SettingsError) as caught:
        Webhooks(GatewaySettings(webhook_hosts=["a.example.com"]), rows)
    assert caught.value.key == "gateway.webhook_secret"
