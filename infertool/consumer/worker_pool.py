"""Where workers come from: threads of this process, or processes (`infertool.consumer.processes`)."""

from __future__ import annotations

from typing import Protocol

from infertool.consumer.attempt import Attempts, BatchAttempts, Preparation, batch_function
from infertool.consumer.worker import ThreadWorker, Try, Worker, WorkerHost
from infertool.models.port import LoadedModel


class WorkerPool(Protocol):
    """Makes workers, which can all call the model `name`."""

    @property
    def name(self) -> str:
        """The model's name, for dead letters and logs."""

    def start_worker(self, host: WorkerHost, prepare: Preparation) -> Worker | None:
        """Return a new worker, not yet started; None if no other can be had now."""

    def inline(self, prepare: Preparation) -> Try | None:
        """Return a function with which any thread may try an event; None if only workers can."""


class Threads:
    """Threads that share one model; `in_batches` has them call its `predict_batch`."""

    def __init__(self, model: LoadedModel, *, in_batches: bool) -> None:
        """Raise `ModelLoadError` for a model without `predict_batch` that is to work in batches."""
        self.name = model.name
        self._predict = model.predict
        self._predict_batch = batch_function(model) if in_batches else None

    def start_worker(self, host: WorkerHost, prepare: Preparation) -> Worker:
        """See `WorkerPool`."""
        if self._predict_batch:
            return ThreadWorker(host, BatchAttempts(self._predict_batch), prepare)
        return ThreadWorker(host, self._singly(prepare))

    def inline(self, prepare: Preparation) -> Try | None:
        """See `WorkerPool`. Only a worker can wait for a batch to fill."""
        return None if self._predict_batch else self._singly(prepare)

    def _singly(self, prepare: Preparation) -> Try:
        attempt = Attempts(self._predict, prepare)
        return lambda group: [attempt(group[0])]
