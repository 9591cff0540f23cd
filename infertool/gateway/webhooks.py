"""Webhooks: a request's end, posted to the URL that its caller named, until it is taken or the tries are over.

Delivery is at-least-once: a receiver may get a webhook twice, with the same `webhook-id`.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import itertools
import logging
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any, Final, Protocol, TypeVar

import orjson

from infertool.codec import BY_NAME, DecodeError, for_json
from infertool.gateway import answers, webhook_rows
from infertool.gateway.headers import MSGPACK
from infertool.gateway.problem import Problem
from infertool.gateway.request import Outcome, Progress, State, document
from infertool.gateway.store import Connection
from infertool.gateway.webhook_hosts import WebhookHosts
from infertool.gateway.webhook_post import Poster
from infertool.gateway.webhook_rows import Delivery, Webhook
from infertool.net.standard_webhooks import key_of, signed
from infertool.net.timing import Schedule
from infertool.settings.tree import GatewaySettings
from infertool.text import json_text
from infertool.text.times import iso

_T = TypeVar("_T")
_log = logging.getLogger(__name__)

# After each of the first 8 attempts; the ninth is the last, about 24 h after the first.
WAITS: Final = Schedule((5.0, 60.0, 300.0, 1_800.0, 7_200.0, 14_400.0, 25_200.0, 34_200.0))
# Attempts at the same time: to one host, and to all hosts of an entry of the allow list.
_PER_HOST: Final = 4
_PER_LANE: Final = 8
# Webhooks that wait, for one host and for all. More are given up at once: a receiver that is away must neither fill the
# disk nor take the place of others.
MOST_OF_HOST: Final = 10_000
MOST_WAITING: Final = 100_000
_FORGET_EVERY_S: Final = 60.0
_LONGEST_WAIT_S: Final = 60.0
_GONE: Final = 410
_OK: Final = range(200, 300)


class Database(Protocol):
    """See `infertool.gateway.database.Database`."""

    def write(self, job: Callable[[Connection], _T]) -> Awaitable[_T]:
        """Run a job that changes something. Raises `Problem`."""

    def read(self, job: Callable[[Connection], _T]) -> Awaitable[_T]:
        """Run a job that changes nothing. Raises `Problem`."""


@dataclass(slots=True)
class _Lane:
    """What goes to the hosts of one entry of the allow list: waiting ids by host, and attempts in progress."""

    ready: dict[str, deque[Webhook]] = field(default_factory=dict)
    active: Counter[str] = field(default_factory=Counter)

    def take(self) -> tuple[str, Webhook] | None:
        """Return the next webhook, whose host has room; the hosts take turns."""
        if self.active.total() >= _PER_LANE:
            return None
        for host in list(self.ready):
            waiting = self.ready.pop(host)
            if self.active[host] >= _PER_HOST:
                self.ready[host] = waiting
                continue
            webhook = waiting.popleft()
            if waiting:
                self.ready[host] = waiting  # behind the other hosts
            self.active[host] += 1
            return host, webhook
        return None


class Webhooks:
    """Delivers webhooks; for the thread of one event loop. Raises `SettingsError` for settings that cannot work.

    `waiting` is the number of those that have not ended; `counts` has the attempts, and what ended by its state.
    """

    def __init__(
        self,
        settings: GatewaySettings,
        database: Database,
        *,
        poster: Poster | None = None,
        waits: Schedule = WAITS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._hosts = WebhookHosts(settings.webhook_hosts)
        if self._hosts:
            self._key()
        self._database = database
        self._poster = poster or Poster(self._hosts)
        self._waits = waits
        self._clock = clock
        self._due: list[tuple[int, int, Webhook]] = []
        self._numbers = itertools.count()
        self._lanes: dict[str, _Lane] = {}
        self._new: list[tuple[Webhook, bytes]] = []
        self._changed = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._runner: asyncio.Task[None] | None = None
        self._forgotten_at = 0.0
        self._held: Counter[str] = Counter()
        self.waiting = 0
        self.counts: Counter[str] = Counter({"attempts": 0, Delivery.DELIVERED.value: 0, Delivery.GIVEN_UP.value: 0})

    def check(self, url: str) -> None:
        """Raise `Problem` (`WEBHOOK_REFUSED`) for a URL that webhooks may not go to."""
        self._hosts.check(url)

    async def start(self) -> None:
        """Read what waits from before, and begin. Raises `Problem`."""
        for webhook in await self._database.read(lambda database: webhook_rows.found(database, Delivery.WAITING)):
            self._hold(webhook)
            self._plan(webhook)
        self._runner = asyncio.create_task(self._run(), name="webhooks")

    def send(self, progress: Progress) -> None:
        """Tell of the end of a request that names a webhook. Never blocks."""
        request, now_ms = progress.request, self._now_ms()
        if not request.webhook or not progress.state.is_final:
            return
        webhook = Webhook(id=request.id, url=request.webhook, created_ms=now_ms, changed_ms=now_ms, next_ms=now_ms)
        if self.waiting >= MOST_WAITING or self._held[self._place(webhook)[1]] >= MOST_OF_HOST:
            webhook = replace(webhook, state=Delivery.GIVEN_UP, next_ms=None, error="too many webhooks wait already")
            self.counts[Delivery.GIVEN_UP] += 1
        body = encoded(progress)
        self._hold(webhook)
        self._new.append((webhook, body))
        self._changed.set()

    async def close(self) -> None:
        """End. What is in progress is tried again after the next start."""
        tasks = [*self._tasks, *([self._runner] if self._runner else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        with contextlib.suppress(Problem):
            await self._save()
        self._poster.close()

    async def _run(self) -> None:
        is_failing = False
        while True:
            self._changed.clear()
            try:
                await self._save()
                await self._forget()
                if is_failing:
                    is_failing = False
                    _log.info("webhooks are written again")
            except Problem as error:
                is_failing = True
                _log.warning("webhooks cannot be written: %s; they are tried again", error)
                await asyncio.sleep(1.0)
                self._changed.set()
            self._start_due()
            wait_s = self._due[0][0] / 1000 - self._clock() if self._due else _LONGEST_WAIT_S
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(max(wait_s, 0.0), _LONGEST_WAIT_S)):
                    await self._changed.wait()

    async def _save(self) -> None:
        """Write what is new, all of it in one transaction, and plan it."""
        if not self._new:
            return
        new, self._new = self._new, []
        try:
            added = await self._database.write(lambda database: webhook_rows.add(database, new))
        except BaseException:
            self._new = new + self._new
            raise
        for webhook, _ in new:
            if webhook.id in added and webhook.state is Delivery.WAITING:
                self._plan(webhook)
            else:
                self._release(webhook)

    async def _forget(self) -> None:
        now = self._clock()
        if now - self._forgotten_at > _FORGET_EVERY_S:
            self._forgotten_at = now
            before_ms = int((now - self._settings.keep_s) * 1000)
            await self._database.write(lambda database: webhook_rows.forget(database, before_ms))

    def _hold(self, webhook: Webhook) -> None:
        self.waiting += 1
        self._held[self._place(webhook)[1]] += 1

    def _release(self, webhook: Webhook) -> None:
        host = self._place(webhook)[1]
        self.waiting -= 1
        self._held[host] -= 1
        if not self._held[host]:
            del self._held[host]

    def _plan(self, webhook: Webhook) -> None:
        heapq.heappush(self._due, (webhook.next_ms or 0, next(self._numbers), webhook))
        self._changed.set()

    def _start_due(self) -> None:
        """Begin the attempts that are due, as far as their hosts have room."""
        now_ms = self._now_ms()
        while self._due and self._due[0][0] <= now_ms:
            webhook = heapq.heappop(self._due)[2]
            lane, host = self._place(webhook)
            self._lanes.setdefault(lane, _Lane()).ready.setdefault(host, deque()).append(webhook)
        for name, lane_ in self._lanes.items():
            while taken := lane_.take():
                task = asyncio.create_task(self._deliver(name, *taken))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    def _place(self, webhook: Webhook) -> tuple[str, str]:
        target = self._hosts.allowed(webhook.url)
        return (self._hosts.lane(target), target.host) if target else ("", "")

    async def _deliver(self, lane: str, host: str, webhook: Webhook) -> None:
        try:
            changed = await self._attempt(webhook)
            try:
                await self._database.write(lambda database: webhook_rows.change(database, changed))
            except Problem as error:
                _log.warning("webhook %s cannot be written: %s; it may be sent again", webhook.id, error)
            if changed.state is Delivery.WAITING:
                self._plan(changed)
            else:
                self.counts[changed.state] += 1
                self._release(changed)
        finally:
            active = self._lanes[lane].active
            active[host] -= 1
            if not active[host]:
                del active[host]
            self._changed.set()

    async def _attempt(self, webhook: Webhook) -> Webhook:
        """Try once; return the webhook as it is then."""
        target = self._hosts.allowed(webhook.url)
        if target is None:
            return self._ended(webhook, Delivery.GIVEN_UP, None, "gateway.webhook_hosts does not allow its host")
        status, error = None, ""
        try:
            body = await self._database.read(lambda database: webhook_rows.body(database, webhook.id))
            if body is None:
                return self._ended(webhook, Delivery.GIVEN_UP, None, "its body is gone")
            headers = signed(f"msg_{webhook.id}", int(self._clock()), body, self._key())
            status, error = await self._poster.post(target, headers, body)
        except Exception as fault:  # noqa: BLE001  (whatever it is, such as a lack of threads, another try may pass)
            error = str(fault) or type(fault).__name__
        self.counts["attempts"] += 1
        webhook = replace(webhook, attempts=webhook.attempts + 1)
        if status in _OK:
            return self._ended(webhook, Delivery.DELIVERED, status, "")
        if status == _GONE or webhook.attempts > len(self._waits.waits_s):
            return self._ended(webhook, Delivery.GIVEN_UP, status, error)
        next_ms = self._now_ms() + int(self._waits.wait(webhook.attempts) * 1000)
        return replace(webhook, changed_ms=self._now_ms(), next_ms=next_ms, status=status, error=error)

    def _ended(self, webhook: Webhook, state: Delivery, status: int | None, error: str) -> Webhook:
        if state is Delivery.GIVEN_UP:
            _log.warning("webhook %s is given up after %d attempts: %s", webhook.id, webhook.attempts, error)
        return replace(webhook, state=state, changed_ms=self._now_ms(), next_ms=None, status=status, error=error)

    def _key(self) -> bytes:
        return key_of(
            self._settings.webhook_secret, setting="gateway.webhook_secret", needed_by="gateway.webhook_hosts"
        )

    def _now_ms(self) -> int:
        return int(self._clock() * 1000)


def encoded(progress: Progress) -> bytes:
    """Return the body of a webhook: what a poll would tell, with a type and a time. It is JSON in any case."""
    outcome = progress.outcome
    if progress.state is State.SUCCEEDED:
        data = document(progress) | (_result(outcome) if outcome else {})
    else:
        data = document(progress, answers.members(progress))
    finished_s = outcome.finished_ms / 1000 if outcome and outcome.finished_ms else time.time()
    told = {"type": f"inference.{progress.state}", "timestamp": iso(finished_s), "data": data}
    return json_text.dumps(told)


def _result(outcome: Outcome) -> dict[str, Any]:
    """Return the prediction as JSON has it; a body that is neither JSON nor MessagePack as base64."""
    if outcome.content_type == MSGPACK:
        with contextlib.suppress(DecodeError, RecursionError, TypeError):
            return {"prediction": orjson.Fragment(json_text.dumps(for_json(BY_NAME["msgpack"].decode(outcome.body))))}
    elif json_text.is_json(outcome.body):
        # As it was written: what reads deeper nesting than what writes would fail here.
        return {"prediction": orjson.Fragment(json_text.compact(outcome.body))}
    return answers.as_bytes(outcome)
