"""A model on a GPU behind a consumer, against the same model in a bare loop: `python -m tests.bench.gpu`.

It needs PyTorch and a GPU, and ends with exit code 2 without. Broker and channel server are the embedded ones, on this
machine. Each row consumes the same events from a full queue, with confirmation; after them come loads of 60 % of the
best rate. Shares are those of the bare loop, which is measured before and after the rows.

`--device cpu --layers 1 --events 400` tries the script on a machine without a GPU.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from tests.support.embedded import EmbeddedBroker
from tests.support.hub import HubProcess
from tests.support.rawstomp import RawStomp
from tests.support.running import CREDENTIALS, Running, environment, infertool

MODEL: Final = "fixtures/models/torch_encoder.py:Encoder"
# Events in a call of the bare loop, and the time of a loop in seconds.
BATCH, LOOP_S = 256, 3.0
# The open load: its share of the best rate, and how long it lasts in seconds.
LOAD, LOAD_S = 0.6, 15
LOOP: Final = """
import json, sys, time
from infertool.models.loader import load, warm_up

model = load(sys.argv[1])
warm_up(model)
with open(sys.argv[2]) as file:
    events = [json.loads(line) for line in file][:int(sys.argv[3])]
model.predict_batch(events)
began, count = time.perf_counter(), 0
while time.perf_counter() < began + float(sys.argv[4]):
    model.predict_batch(events)
    count += len(events)
print(count / (time.perf_counter() - began))
"""
SINGLY: Final = "--batch-size 1 --concurrency 8"
STATIC: Final = (
    "--batch-size 64 --batch-wait 5ms --concurrency 2 --publish-batch 64 --window 1024",
    "--batch-size 256 --batch-wait 10ms --concurrency 3 --publish-batch 256 --window 4096",
    "--batch-size 256 --batch-wait 10ms --executor processes --workers 1 --publish-batch 64 --window 4096",
    "--batch-size 256 --batch-wait 10ms --executor processes --workers 2 --publish-batch 64 --window 4096",
)
# The adaptive batches before there was `auto`.
BOUNDED: Final = ("--batch-size 256 --target-latency 50ms", "--batch-size 256 --target-latency 200ms")
AUTOMATIC: Final = (
    "",
    "--executor processes --workers 2",
    "--target-latency 50ms",
    "--target-latency 200ms",
)


@dataclass(frozen=True)
class Row:
    """What one case measured: events a second, their share of the bare loop's, and times in milliseconds.

    `batch` is the largest batch at the end, where it adapts, and `parallel` says how many calls ran at a time.
    """

    case: str
    rate: float
    share: float
    p50_ms: float | None
    p99_ms: float | None
    batch: int | None = None
    parallel: int | None = None


def auto_option() -> str:
    """Return the option with which the consumer finds the batch size; "" if it has none."""
    told = infertool("consume", "--help").stdout
    if "--batch " in told:
        return "--batch auto"
    return "--batch-size auto" if "auto" in told.partition("--batch-size")[2].partition("--batch-wait")[0] else ""


class Bench:
    """The embedded servers, the events, and the consumers that take them."""

    def __init__(self, folder: Path, *, events: int, layers: int, cpu: bool) -> None:
        self._folder = folder
        self._events = events
        self._numbers = itertools.count()
        self._env = {**CREDENTIALS, "ENCODER_LAYERS": str(layers), **({"CUDA_VISIBLE_DEVICES": ""} if cpu else {})}
        draw = random.Random(0)
        tokens = ([draw.randrange(30_522) for _ in range(128)] for _ in range(1024))
        self._bodies = [json.dumps({"tokens": each}, separators=(",", ":")).encode() for each in tokens]
        self._file = folder / "events.jsonl"
        self._file.write_bytes(b"\n".join(self._bodies))
        self._broker = EmbeddedBroker().start()
        self._hub = HubProcess().start()

    def close(self) -> None:
        """Stop the servers."""
        self._hub.stop()
        self._broker.stop()

    def loop(self, batch: int) -> float:
        """Return the rate of the model in a bare loop, in a process of its own."""
        done = subprocess.run(
            [sys.executable, "-c", LOOP, MODEL, str(self._file), str(batch), str(LOOP_S)],
            stdout=subprocess.PIPE, text=True, check=True, env=environment(**self._env),
        )  # fmt: skip
        return float(done.stdout.split()[-1])

    def drain(self, options: str, events: int) -> dict[str, Any]:
        """Have a consumer take events from a full queue; return its summary."""
        queue = self._queue()
        raw = RawStomp(self._broker.stomp_port)
        bodies = itertools.islice(itertools.cycle(self._bodies), events)
        raw.send(queue, (({"event_id": f"e-{n}"}, body) for n, body in enumerate(bodies)))
        raw.close()
        summary = self._consumer(queue, options, "--max-messages", str(events)).finish()
        assert summary["succeeded"] == events, summary
        return summary

    def load(self, options: str, rate: float) -> dict[str, Any]:
        """Send `rate` events a second to a waiting consumer; return the report, whose times are end to end."""
        queue = self._queue()
        consumer = self._consumer(queue, options)
        consumer.wait_for("connected")
        sender = Running(
            self._folder, "loadgen", "--qps", f"{rate:.0f}", "--duration", f"{LOAD_S}s", "--warmup", "3s", "--e2e",
            "--payload", str(self._file), "--broker", self._broker.url, "--queue", queue,
            "--phoenix", self._hub.url, "-o", "json", **self._env,
        )  # fmt: skip
        report = sender.finish()
        consumer.terminate()
        consumer.finish()
        return report

    def _queue(self) -> str:
        return f"/queue/gpu.{next(self._numbers)}"

    def _consumer(self, queue: str, *options: str) -> Running:
        given = [part for each in options for part in each.split()]
        return Running(
            self._folder, "consume", "--broker", self._broker.url, "--queue", queue, "--phoenix", self._hub.url,
            "--model", MODEL, "-o", "json", *given, **self._env,
        )  # fmt: skip

    def rows(self, cases: Sequence[str]) -> Iterator[Row]:
        """Measure the bare loop, the cases, and the bare loop again."""
        before, alone = self.loop(BATCH), self.loop(1)
        measured = []
        for case in cases:
            print(f"... {case}", file=sys.stderr)
            measured.append((case, self.drain(case, self._events // 100 if case == SINGLY else self._events)))
        bare = statistics.mean([before, self.loop(BATCH)])
        yield Row(f"bare loop, {BATCH} events a call", bare, 1.0, 1000 * BATCH / bare, None)
        yield Row("bare loop, one event a call", alone, alone / bare, 1000 / alone, None)
        for case, summary in measured:
            rate, latency = summary["rate"], summary["latency_ms"]
            share = rate / (alone if case == SINGLY else bare)
            found = summary.get("batch_size"), summary.get("parallel_calls")
            yield Row(case, rate, share, latency["p50"], latency["p99"], *found)

    def loads(self, cases: Sequence[str], best: Row) -> Iterator[Row]:
        """Measure the cases at a part of the best rate."""
        bare = best.rate / best.share
        for case in cases:
            print(f"... {case}, open load", file=sys.stderr)
            report = self.load(case, LOAD * best.rate)
            e2e = report["e2e"]
            name = f"{LOAD:.0%} of the best rate, end to end: {case}"
            yield Row(name, e2e["rate"], e2e["rate"] / bare, e2e["p50_ms"], e2e["p99_ms"])


@contextmanager
def opened(arguments: argparse.Namespace) -> Iterator[Bench]:
    """Start the servers for the time of the block."""
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), events=arguments.events, layers=arguments.layers, cpu=arguments.device == "cpu")
        try:
            yield bench
        finally:
            bench.close()


def missing(device: str) -> str:
    """Return what this machine lacks; "" if nothing."""
    try:
        import torch  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        return "tests.bench.gpu needs PyTorch: pip install torch"
    if device == "gpu" and not torch.cuda.is_available():
        return "tests.bench.gpu needs a GPU that PyTorch can use; --device cpu tries the script without"
    return ""


def table(rows: Sequence[Row]) -> str:
    """Return the rows as a Markdown table."""
    head = ["case", "events/s", "share of the bare loop", "p50 ms", "p99 ms", "batch size", "calls at a time"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for row in rows:
        times = ["-" if each is None else f"{each:.1f}" for each in (row.p50_ms, row.p99_ms)]
        found = ["-" if each is None else str(each) for each in (row.batch, row.parallel)]
        lines.append(f"| {' | '.join([row.case, f'{row.rate:.0f}', f'{row.share:.2f}', *times, *found])} |")
    return "\n".join(lines)


def main() -> int:
    """Print the table, or the rows as JSON; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.gpu", description=__doc__)
    parser.add_argument("--events", type=int, default=60_000, help="events of each row")
    parser.add_argument("--layers", type=int, default=12, help="layers of the encoder; BERT-base has 12")
    parser.add_argument("--device", choices=["gpu", "cpu"], default="gpu")
    parser.add_argument("--only", choices=["auto", "static"], help="leave the other rows out")
    parser.add_argument("-o", "--output", choices=["table", "json"], default="table")
    arguments = parser.parse_args()
    if lacks := missing(arguments.device):
        print(lacks, file=sys.stderr)
        return 2
    option = auto_option()
    automatic = [f"{option} {more}".strip() for more in AUTOMATIC] if option else list(BOUNDED)
    static = [] if arguments.only == "auto" else [*STATIC, SINGLY]
    cases = [*static, *([] if arguments.only == "static" else automatic)]
    with opened(arguments) as bench:
        rows = list(bench.rows(cases))
        best = max((row for row in rows[2:] if row.case != SINGLY), key=lambda row: row.rate)
        rows += bench.loads([each for each in cases if "--target-latency" in each or each == option], best)
    print(json.dumps([asdict(row) for row in rows], indent=1) if arguments.output == "json" else table(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
