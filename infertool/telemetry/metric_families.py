"""A metric: its name, type, unit, labels and meaning; and its samples as a family of `prometheus-client`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final, Literal

from infertool.telemetry.details import TIMES_S
from infertool.telemetry.latencies import Latencies

if TYPE_CHECKING:
    from prometheus_client.core import Exemplar, Metric

PREFIX: Final = "infertool_"
# Characters of a label's value; a producer can give a queue any name.
_LONGEST_LABEL: Final = 200
_DIGEST_BYTES: Final = 4

Labels = tuple[str, ...]
Samples = list[tuple[Labels, float]]
Kind = Literal["counter", "gauge", "histogram", "info"]


@dataclass(frozen=True, slots=True)
class Definition:
    """A metric. `name` is without the prefix, and without `_total` of counters and `_info` of infos."""

    name: str
    kind: Kind
    meaning: str
    labels: Labels = ()
    unit: str = ""
    prefix: str = PREFIX

    @property
    def full_name(self) -> str:
        """The name as it is queried; of a histogram the common part."""
        suffix = {"counter": "_total", "info": "_info"}.get(self.kind, "")
        return f"{self.prefix}{self.name}{suffix}"


@dataclass(frozen=True, slots=True)
class Buckets:
    """A histogram: for each edge the number of values at or below it; `exemplars` by the number of the bucket."""

    edges: Sequence[float]
    below: Sequence[int]
    count: int
    total: float
    exemplars: Mapping[int, Exemplar] = field(default_factory=dict)

    def written(self) -> list[Any]:
        """Return the buckets as `prometheus-client` takes them."""
        named = [f"{edge:g}" if edge != int(edge) else f"{edge:.1f}" for edge in self.edges]
        found: list[Any] = [(name, float(n)) for name, n in zip(named, self.below, strict=True)]
        found.append(("+Inf", float(self.count)))
        for index, exemplar in self.exemplars.items():
            found[index] = (*found[index], exemplar)
        return found


Histograms = list[tuple[Labels, Buckets]]


def times_of(latencies: Latencies) -> Buckets:
    """Return times as buckets that end at `TIMES_S`."""
    return Buckets(TIMES_S, latencies.buckets(TIMES_S), latencies.count, latencies.total_s())


def families(
    definitions: Iterable[Definition], samples: Mapping[str, Samples], histograms: Mapping[str, Histograms]
) -> Iterator[Metric]:
    """Yield a family for each metric that has samples. An info's samples have the value 1."""
    from prometheus_client.core import (  # noqa: PLC0415  (a process without metrics does not need it)
        CounterMetricFamily,
        GaugeMetricFamily,
        HistogramMetricFamily,
        InfoMetricFamily,
    )

    for definition in definitions:
        name, text, labels = f"{definition.prefix}{definition.name}", definition.meaning, definition.labels
        if found := histograms.get(definition.name):
            histogram = HistogramMetricFamily(name, text, labels=labels)
            for values, buckets in found:
                histogram.add_metric(_shown(values), buckets.written(), buckets.total)
            yield histogram
        known = samples.get(definition.name, ())
        if known and definition.kind == "info":
            yield InfoMetricFamily(name, text, value=dict(zip(labels, _shown(known[0][0]), strict=True)))
        elif known:
            family = (CounterMetricFamily if definition.kind == "counter" else GaugeMetricFamily)(
                name, text, labels=labels
            )
            for values, value in known:
                family.add_metric(_shown(values), value)
            yield family


def _shown(values: Sequence[str]) -> list[str]:
    return list(map(_label, values))


def _label(value: str) -> str:
    """Return a label's value. What is too long, or no UTF-8, ends in a digest: two series of one name are refused."""
    shown = value[:_LONGEST_LABEL].encode("utf-8", "replace").decode()
    if shown == value:
        return value
    digest = blake2b(value.encode("utf-8", "surrogatepass"), digest_size=_DIGEST_BYTES).hexdigest()
    return f"{shown[: _LONGEST_LABEL - len(digest) - 1]}~{digest}"
