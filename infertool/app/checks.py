"""Checks of settings that exclude each other, made before a consumer is built."""

from __future__ import annotations

from dataclasses import replace

from infertool import brokers
from infertool.consumer.consumer import Until
from infertool.deadletters.replay import staging
from infertool.errors import SettingsError, UsageError
from infertool.models.loader import is_remote
from infertool.settings import Settings


def check(settings: Settings, until: Until) -> None:
    """Raise `UsageError` or `SettingsError` for settings that exclude each other."""
    check_queues(settings)
    consume = settings.consume
    if consume.target_latency_s and consume.batch_size == 1:
        raise SettingsError(
            "consume.target_latency_s is for batches, and consume.batch_size is 1",
            key="consume.target_latency_s",
            advice="give the largest batch as well, for example --batch-size 64",
        )
    if consume.executor == "processes" and consume.concurrency == "auto":
        raise SettingsError(
            "consume.concurrency auto is for threads, and consume.executor is processes",
            key="consume.concurrency",
            advice="set the number of processes with --workers",
        )
    if consume.batch_size > 1 and consume.concurrency == "auto":
        raise SettingsError(
            "consume.concurrency auto is for single events, and consume.batch_size is more than 1",
            key="consume.concurrency",
            advice="adapt the batches with --target-latency",
        )
    if consume.executor == "processes" and is_remote(settings.model):
        raise SettingsError(
            "consume.executor processes is for models that compute, and a model server is waited for",
            key="consume.executor",
            advice="use --executor threads",
        )
    if consume.processes > 1 and until.max_messages is not None:
        raise UsageError(
            "--max-messages cannot be shared by several processes", advice="use --processes 1, or --exit-when-idle"
        )
    if consume.processes > 1 and settings.publish.mode == "stdout":
        raise UsageError(
            "several processes cannot share stdout: their lines would mix",
            advice="use --processes 1, or --publish none",
        )


def with_full_names(settings: Settings) -> Settings:
    """Return the settings with full queue names, as the broker spells them. Raises `SettingsError`, `UsageError`."""
    conventions = brokers.conventions(settings.broker.url)
    return replace(
        settings,
        broker=replace(settings.broker, queue=conventions.source(settings.broker.queue)),
        deadletter=replace(settings.deadletter, queue=conventions.queue(settings.deadletter.queue)),
    )


def check_queues(settings: Settings) -> None:
    """Raise `SettingsError` where a consumer would take its own dead letters, or those of a replay, as events."""
    source, dead = settings.broker.queue, settings.deadletter.queue
    covers = brokers.conventions(settings.broker.url).covers
    if source == dead:
        raise _loop(f"broker.queue and deadletter.queue are both {source}: each failure would be consumed again")
    if covers(source, dead):
        raise _loop(f"broker.queue {source} covers deadletter.queue {dead}: each failure would be consumed again")
    for beside in staging.beside(dead):
        if covers(source, beside):
            raise _loop(f"broker.queue {source} covers {beside}, where replay-dlq keeps letters of {dead} for a while")
    if dead in staging.beside(source):
        raise _loop(f"deadletter.queue {dead} is where replay-dlq keeps letters of {source} for a while")


def _loop(what: str) -> SettingsError:
    return SettingsError(
        what, key="deadletter.queue", advice="choose a --dlq outside of it, or name the queues to consume"
    )
