"""confluent-kafka and a pool of threads, each of which waits 20 ms for an event, as a slow model does.

Runs as `python -m tests.bench.harness.peers.confluent_threads PORT TOPIC COUNT CALLS WINDOW`. An offset is stored when
its event is done, whatever lies before it: a restart would lose events.
"""

from __future__ import annotations

import sys
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from confluent_kafka import Consumer

from tests.bench.harness.peers import Clock
from tests.bench.harness.peers.confluent_loop import BATCH, configuration, work

SLOW_S = 0.02


def main() -> None:
    port, topic, count, calls, window = sys.argv[1:]
    clock, lock, done = Clock(int(count)), threading.Lock(), threading.Event()
    consumer = Consumer(configuration(port, str(uuid.uuid4())))
    consumer.subscribe([topic])
    room = threading.Semaphore(int(window))

    def attempt(record: Any) -> None:
        work(record)
        time.sleep(SLOW_S)
        with lock:
            consumer.store_offsets(record)
            if clock.settled():
                done.set()
        room.release()

    with ThreadPoolExecutor(int(calls)) as pool:
        while not done.is_set():
            for record in consumer.consume(BATCH, 0.1):
                room.acquire()
                clock.begin()
                pool.submit(attempt, record)
        print(clock.rate, flush=True)
        pool.shutdown(cancel_futures=True)
    consumer.close()


if __name__ == "__main__":
    main()
