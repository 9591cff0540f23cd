"""Administration of a RabbitMQ under test. No `rabbitmqctl`: it starts an Erlang of its own for each command."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

# May configure, write and read everything.
ALL = (".*", ".*", ".*")
_LOGIN = "Basic " + base64.b64encode(b"admin:admin").decode()


class RabbitAdmin:
    """Users, rights, policies and virtual hosts by the management API; what that does not offer is done in the node."""

    def __init__(self, management_url: str, vhost: str, environment: Mapping[str, str]) -> None:
        self._api = f"{management_url}/api"
        self._vhost = vhost
        self._environment = environment

    def add_user(self, name: str, password: str, rights: tuple[str, ...] = ALL, *, tags: str = "") -> None:
        """Make a user that may configure, write and read what matches `rights`; none where they are empty."""
        self._put("users", name, password=password, tags=tags)
        if rights:
            configure, write, read = rights
            self._put("permissions", self._vhost, name, configure=configure, write=write, read=read)

    @contextmanager
    def user(self, name: str, password: str, rights: tuple[str, ...] = ALL, *, tags: str = "") -> Iterator[None]:
        """Have such a user for a while."""
        self.add_user(name, password, rights, tags=tags)
        try:
            yield
        finally:
            self._ask("DELETE", "users", name)

    def clear_rights(self, user: str) -> None:
        self._ask("DELETE", "permissions", self._vhost, user)

    @contextmanager
    def policy(self, queue: str, **definition: Any) -> Iterator[None]:
        """Have a policy for `queue` for a while."""
        parts = ("policies", self._vhost, queue)
        self._put(*parts, pattern=f"^{queue}$", definition=definition, **{"apply-to": "queues"})
        try:
            yield
        finally:
            self._ask("DELETE", *parts)

    @contextmanager
    def virtual_host(self, name: str) -> Iterator[None]:
        """Have a virtual host for a while, in which admin may do everything."""
        self._put("vhosts", name)
        try:
            yield
        finally:
            self._ask("DELETE", "vhosts", name)

    def queues(self) -> dict[str, str]:
        """Return the queues that are there now, and the type of each."""
        there = (
            f"Q <- rabbit_amqqueue:list({_binary(self._vhost)}), {{resource, _, queue, Name}} <- [amqqueue:get_name(Q)]"
        )
        types: dict[str, str] = self._told(f"maps:from_list([{{Name, amqqueue:get_type(Q)}} || {there}])")
        return {name: kind.removeprefix("rabbit_").removesuffix("_queue") for name, kind in types.items()}

    def unacked(self, queue: str) -> int:
        """Return how many messages are delivered and not acked. A connection that the broker blocks cannot ask."""
        wanted = "[name, messages_unacknowledged]"
        infos = f"Info <- rabbit_amqqueue:info_all({_binary(self._vhost)}, {wanted})"
        ours = f"{{resource, _, queue, {_binary(queue)}}} <- [proplists:get_value(name, Info)]"
        [count] = self._told(f"[proplists:get_value(messages_unacknowledged, Info) || {infos}, {ours}]")
        return int(count)

    def delete_queue(self, name: str) -> None:
        """Delete a queue, also one that belongs to a connection."""
        found = f"rabbit_amqqueue:lookup(rabbit_misc:r({_binary(self._vhost)}, queue, {_binary(name)}))"
        self._evaluate(f'{{ok, Q}} = {found}, {{ok, _}} = rabbit_amqqueue:delete(Q, false, false, <<"admin">>)')

    def take_no_messages(self) -> None:
        """Have the node say that it has no memory left."""
        self._limit_memory("1.0e-7")

    def take_messages(self) -> None:
        self._limit_memory("0.8")

    def _limit_memory(self, share: str) -> None:
        self._evaluate(f"vm_memory_monitor:set_vm_memory_high_watermark({share})")

    def set(self, **values: int) -> None:
        """Set parameters of the node that no interface reaches."""
        self._evaluate(", ".join(f"application:set_env(rabbit, {name}, {value})" for name, value in values.items()))

    def _put(self, *parts: str, **content: Any) -> None:
        self._ask("PUT", *parts, content=content)

    def _ask(self, method: str, *parts: str, content: Mapping[str, Any] | None = None) -> None:
        url = "/".join([self._api, *(quote(part, safe="") for part in parts)])
        body = None if content is None else json.dumps(content).encode()
        headers = {"Authorization": _LOGIN, "Content-Type": "application/json"}
        with urllib.request.urlopen(urllib.request.Request(url, body, headers, method=method), timeout=120):
            pass

    def _told(self, expression: str) -> Any:
        """Return the value of an Erlang expression that can be written as JSON."""
        return json.loads(self._evaluate(f"binary_to_list(rabbit_json:encode({expression}))")[1:-1])

    def _evaluate(self, expression: str) -> str:
        """Have the node evaluate Erlang; return the value as Erlang writes it."""
        done = subprocess.run(
            ["erl_call", "-r", "-n", self._environment["RABBITMQ_NODENAME"], "-e"], input=f"{expression}.\n",
            env={**os.environ, **self._environment}, capture_output=True, text=True, timeout=120, check=True,
        )  # fmt: skip
        start, end = "{ok, ", "}"
        assert done.stdout.startswith(start), f"{expression}: {done.stdout}"
        return done.stdout.removeprefix(start).removesuffix(end)


def _binary(text: str) -> str:
    return f'<<"{text}">>'
