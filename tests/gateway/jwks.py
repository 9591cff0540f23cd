"""A server of a key set, which can misbehave, and tokens signed with its keys."""

from __future__ import annotations

import base64
import json
import ssl
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from joserfc import jwk, jws

ISSUER, AUDIENCE = "https://issuer.example.com", "infertool"
ALL = [
    "RS256",
    "RS384",
    "RS512",
    "PS256",
    "PS384",
    "PS512",
    "ES256",
    "ES384",
    "ES512",
    "EdDSA",
    "Ed25519",
    "HS256",
    "none",
]


class _Registry(jws.JWSRegistry):
    max_header_length = max_payload_length = 1_000_000


def key(kind: str, kid: str = "", **more: Any) -> Any:
    """Return a private key: RSA, a curve of EC, or Ed25519."""
    parameters: Any = {"kid": kid, **more} if kid else more
    match kind:
        case "RSA":
            return jwk.RSAKey.generate_key(more.pop("bits", 2048), parameters, private=True)
        case "Ed25519" | "Ed448":
            return jwk.OKPKey.generate_key(kind, parameters, private=True)
        case _:
            return jwk.ECKey.generate_key(kind, parameters, private=True)


def claims(**changes: Any) -> dict[str, Any]:
    """Return good claims, with changes; None takes one away."""
    now = int(time.time())
    good = {"iss": ISSUER, "aud": AUDIENCE, "sub": "anna", "exp": now + 60_000, "iat": now}
    return {name: value for name, value in (good | changes).items() if value is not None}


def token(signer: Any, said: Any = None, algorithm: str = "RS256", **header: Any) -> str:
    """Return a signed token. Its header names the key unless `kid` is given; None leaves it out."""
    protected = {"alg": algorithm, "typ": "JWT", "kid": signer.kid} | header
    protected = {name: value for name, value in protected.items() if value is not None}
    payload = said if isinstance(said, bytes) else json.dumps(claims() if said is None else said).encode()
    registry = _Registry(algorithms=ALL, strict_check_header=False)
    return jws.serialize_compact(protected, payload, signer, registry=registry)


def raw_token(header: Any, said: Any, signature: bytes = b"") -> str:
    """Return what looks like a token, with any header and signature."""
    parts = [part if isinstance(part, bytes) else json.dumps(part).encode() for part in (header, said)]
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in (*parts, signature))


class KeySetServer:
    """Serves `keys`. `mode`: ok, hang, trickle, 500, huge, redirect, garbage, empty."""

    def __init__(self, *keys: Any, tls: ssl.SSLContext | None = None) -> None:
        self.keys = list(keys)
        self.extra: list[dict[str, Any]] = []
        self.mode = "ok"
        self.requests = 0
        self.closing = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.requests += 1
                outer.answer(self)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        if tls:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self._server.server_address[1]}/jwks.json"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()

    def document(self) -> bytes:
        keys = [each if isinstance(each, dict) else each.as_dict(private=False) for each in self.keys]
        return json.dumps({"keys": keys + self.extra}).encode()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        mode = self.mode
        body = {"garbage": b"<html>", "empty": b'{"keys": []}', "huge": b" " * 10_485_760}.get(mode, self.document())
        try:
            if mode == "hang":
                self.closing.wait(120)
                return
            request.send_response({"500": 500, "redirect": 302}.get(mode, 200))
            request.send_header("Location", "/elsewhere")
            request.send_header("Content-Length", str(len(body)))
            request.end_headers()
            if mode == "trickle":
                for byte in body:
                    request.wfile.write(bytes([byte]))
                    if self.closing.wait(1):
                        return
            request.wfile.write(body)
        except OSError:
            pass
