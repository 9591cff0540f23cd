"""The usual pair: request and reply over RabbitMQ as it is mostly written with pika and msgpack. Peers for tests.

Kept as people write it, faults included: one call at a time, an exclusive reply queue, no confirms, `None` on a
timeout; the server runs its function in the I/O thread and acks after an unconfirmed publish.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import msgpack
import pika
from pika.adapters.blocking_connection import BlockingChannel
from pika.spec import Basic, BasicProperties


def connection(port: int) -> pika.BlockingConnection:
    credentials = pika.PlainCredentials("admin", "admin")
    return pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", port, credentials=credentials))


class RpcClient:
    def __init__(self, port: int, queue: str, timeout_s: float = 180.0) -> None:
        self.queue = queue
        self.timeout_s = timeout_s
        self.connection = connection(port)
        self.channel = self.connection.channel()
        result = self.channel.queue_declare(queue="", exclusive=True)
        self.callback_queue = result.method.queue
        self.channel.basic_consume(queue=self.callback_queue, on_message_callback=self.on_response, auto_ack=True)
        self.corr_id = ""
        self.response: bytes | None = None
        self.properties: BasicProperties | None = None

    def on_response(self, _ch: BlockingChannel, _method: Basic.Deliver, props: BasicProperties, body: bytes) -> None:
        if self.corr_id == props.correlation_id:
            self.response = body
            self.properties = props

    def call(self, args: Any, **properties: Any) -> Any:
        self.response = None
        self.corr_id = str(uuid.uuid4())
        self.channel.basic_publish(
            exchange="",
            routing_key=self.queue,
            properties=BasicProperties(reply_to=self.callback_queue, correlation_id=self.corr_id, **properties),
            body=msgpack.packb(args),
        )
        start = time.monotonic()
        while self.response is None:
            self.connection.process_data_events(time_limit=0.1)
            if time.monotonic() - start > self.timeout_s:
                return None
        return msgpack.unpackb(self.response, raw=False)

    def close(self) -> None:
        self.connection.close()


class RpcServer:
    """`run` serves until `stop` is called from another thread."""

    def __init__(self, port: int, queue: str, function: Callable[[Any], Any]) -> None:
        self.function = function
        self.connection = connection(port)
        self.channel = self.connection.channel()
        self.channel.queue_declare(queue=queue)
        self.channel.basic_qos(prefetch_count=1)
        self.channel.basic_consume(queue=queue, on_message_callback=self.on_request)

    def on_request(self, ch: BlockingChannel, method: Basic.Deliver, props: BasicProperties, body: bytes) -> None:
        response = self.function(msgpack.unpackb(body, raw=False))
        ch.basic_publish(
            exchange="",
            routing_key=props.reply_to,
            properties=BasicProperties(correlation_id=props.correlation_id),
            body=msgpack.packb(response),
        )
        ch.basic_ack(delivery_tag=method.delivery_tag)

    def run(self) -> None:
        self.channel.start_consuming()

    def stop(self) -> None:
        self.connection.add_callback_threadsafe(self.channel.stop_consuming)

    def close(self) -> None:
        self.connection.close()


@contextmanager
def usual_server(port: int, queue: str, function: Callable[[Any], Any]) -> Iterator[None]:
    """Serve while the block runs."""
    server = RpcServer(port, queue, function)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        yield
    finally:
        server.stop()
        thread.join()
        server.close()
