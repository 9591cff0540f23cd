"""Any label and any figure is a sample of OpenMetrics and of the text format, with the label and the figure it had."""

from __future__ import annotations

from collections.abc import Iterator

from hypothesis import example, given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, exposition
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_text

from infertool.telemetry.metric_families import Definition, Samples, _label, families
from tests.support.examples import examples

TEXTS = st.text(max_size=6) | st.sampled_from([
    'q"uote', "back\\", "\\n", "line\nbreak", "\r", "x" * 10_000, "\udcff", "\ud800", "", "{}", '"} 1', "a=b", "# EOF",
    "\0",
])  # fmt: skip
LABELS = st.tuples(TEXTS, TEXTS)
COUNTS = st.floats(0, allow_nan=False, allow_infinity=False)
GAUGE = Definition("gauge", "gauge", "A gauge.", ("one", "other"))
COUNTER = Definition("count", "counter", "A count.", ("one", "other"))
INFO = Definition("model", "info", "An info.", ("one", "other"))


class Collected:
    def __init__(self, samples: dict[str, Samples]) -> None:
        self._samples = samples

    def collect(self) -> Iterator[Metric]:
        return families((GAUGE, COUNTER, INFO), self._samples, {})


@examples(50)
@given(
    gauges=st.dictionaries(LABELS, st.floats(allow_nan=False), max_size=3),
    counts=st.dictionaries(LABELS, COUNTS, max_size=3), info=LABELS,
)  # fmt: skip
@example({("x" * 200 + "a", ""): 1.0, ("x" * 200 + "b", ""): 2.0}, {}, ("", ""))
@example({}, {("a\udc80", ""): 1.0, ("a?", ""): 2.0}, ("", ""))
def test_any_labels_and_figures_can_be_read(
    gauges: dict[tuple[str, str], float], counts: dict[tuple[str, str], float], info: tuple[str, str]
) -> None:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Collected({"gauge": [*gauges.items()], "count": [*counts.items()], "model": [(info, 1.0)]}))
    texts = (
        (read_text, exposition.generate_latest(registry).decode()),
        (read_openmetrics, openmetrics.generate_latest(registry).decode()),
    )
    for read, text in texts:
        samples = [sample for family in read(text) for sample in family.samples]
        names = [(each.name, *each.labels.values()) for each in samples]
        assert len(set(names)) == len(names), "Prometheus refuses what has two values"
        found = {(each.name, *each.labels.values()): each.value for each in samples}
        for kind, given_ in (("infertool_gauge", gauges), ("infertool_count_total", counts)):
            for labels, value in given_.items():
                assert found[kind, *map(_label, labels)] == value
        assert found["infertool_model_info", *map(_label, info)] == 1
