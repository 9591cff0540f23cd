"""The options of requests to a gateway, and the part of each request that is the same."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from infertool import __version__
from infertool.errors import UsageError
from infertool.net.http_client import Target, request_head
from infertool.secret import Secret

_PATH: Final = "/v1/infer"
_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE: Final = re.compile(r"[\x20-\x7e]*")
# Ours, or those of the connection.
_TAKEN: Final = frozenset({
    "host", "content-length", "transfer-encoding", "connection", "expect", "upgrade", "x-request-id", "traceparent",
    "infertool-class",
})  # fmt: skip
_SECRET: Final = frozenset({"authorization", "x-api-key", "proxy-authorization", "cookie"})


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpOptions:
    """Where requests go, and how. Without a path that is `/v1/infer`.

    With `obeys` a request that is refused with Retry-After is sent once more, at the told time.
    """

    url: str
    timeout_s: float = 30.0
    class_name: str = ""
    key: Secret = field(default_factory=Secret)
    obeys: bool = False

    def check(self, headers: Sequence[str]) -> None:
        """Raise UsageError for options that cannot work. `headers` are those of --header."""
        if self.timeout_s <= 0:
            raise UsageError("--timeout must be above 0")
        self.head(headers)

    def target(self) -> Target:
        """Return the address. Raises UsageError."""
        target = Target.typed("--http", self.url)
        return target if target.path != "/" else Target(target.scheme, target.host, target.port, _PATH)

    def head(self, headers: Sequence[str]) -> bytes:
        """Return the part of each request that is the same. Raises UsageError."""
        found = {"User-Agent": f"infertool-loadgen/{__version__}", "Content-Type": "application/json"}
        names = {name.lower(): name for name in found}
        for text in headers:
            name, _, value = text.partition("=")
            if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
                raise UsageError(f"--header {name!r} cannot be sent over HTTP", advice="write NAME=VALUE, in ASCII")
            if name.lower() in _SECRET:
                raise UsageError(f"--header {name} would show a secret", advice="use --key-file")
            if name.lower() in _TAKEN:
                raise UsageError(f"--header {name}: loadgen sets it itself")
            found[names.setdefault(name.lower(), name)] = value
        if self.class_name:
            if not _VALUE.fullmatch(self.class_name):
                raise UsageError(f"--class {self.class_name!r} cannot be sent over HTTP")
            found["Infertool-Class"] = self.class_name
        if self.key:
            if not _VALUE.fullmatch(self.key.reveal()):
                raise UsageError("the API key holds what a header cannot carry", advice="see --key-file")
            found["Authorization"] = f"Bearer {self.key.reveal()}"
        return request_head("POST", self.target(), found)
