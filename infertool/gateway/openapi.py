"""The description of the API: OpenAPI 3.1, written by hand."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

import infertool
from infertool.gateway import openapi_models
from infertool.gateway.headers import EVENTS, JSON, LEAST_S, MOST_S, MSGPACK
from infertool.gateway.problem import CONTENT_TYPE, Reason
from infertool.gateway.request import State

if TYPE_CHECKING:
    from infertool.settings.tree import GatewaySettings

_METRICS: Final = ("text/plain", "application/openmetrics-text")
# Without a schema: readers apply one to each event, as an object with id, event and data.
_STREAM: Final[dict[str, Any]] = {EVENTS: {}}
_TOLD: Final = ("Infertool-Event-Id", "Preference-Applied", "Idempotency-Replayed", "RateLimit", "RateLimit-Policy")
_VISIBLE: Final = r"^[!-~]([ -~]{0,253}[!-~])?$"
# What any request may meet, whatever its path.
_ANYWHERE: Final = {
    Reason.INVALID_HTTP, Reason.HEADERS_TOO_LARGE, Reason.HEADER_TIMEOUT, Reason.TOO_MANY_CONNECTIONS, Reason.INTERNAL,
}  # fmt: skip
_CREDENTIALS: Final = {
    Reason.UNAUTHENTICATED,
    Reason.INVALID_CREDENTIALS,
    Reason.TOO_MANY_FAILURES,
    Reason.KEY_SET_AWAY,
    Reason.INVALID_HEADER,
}
_LOOKUP: Final = {*_ANYWHERE, *_CREDENTIALS, Reason.UNKNOWN_REQUEST, Reason.GONE, Reason.NOT_ACCEPTABLE}
_ROUTING: Final = {Reason.NOT_FOUND, Reason.METHOD_NOT_ALLOWED}
_INFER: Final = set(Reason) - {
    Reason.UNKNOWN_REQUEST,
    Reason.GONE,
    Reason.INPUT_REFUSED,
    Reason.INVALID_PARAMETER,
    *_ROUTING,
}


def describe(settings: GatewaySettings, *, models: Sequence[str], classes: Sequence[str]) -> dict[str, Any]:
    """Return the OpenAPI document of a gateway with these settings, models and classes."""
    infer = _infer(settings)
    named = {**infer, "operationId": "inferByModel", "summary": "Ask a model for inference", "parameters": [
        {"name": "model", "in": "path", "required": True, "schema": {"type": "string", "enum": list(models)}},
        *(each for each in infer["parameters"] if each["$ref"] != _ref("parameters", "Infertool-Model")["$ref"]),
    ]}  # fmt: skip
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "infertool gateway",
            "version": infertool.__version__,
            "description": "Inference behind a broker: queued by class, answered when it is done. "
            "/v2 is the open inference protocol of KServe and Triton.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": _security(settings),
        "paths": {
            "/v1/infer": {"post": infer},
            "/v1/models/{model}/infer": {"post": named},
            "/predict": {"post": _predict(infer)},
            **openapi_models.v2_paths(models),
            "/v1/requests/{id}": {"parameters": [_ref("parameters", "id")], "get": _get(), "delete": _delete()},
            "/v1/requests/{id}/events": {"parameters": [_ref("parameters", "id")], "get": _events()},
            "/livez": {"get": _health("live", "Liveness: 200 unless only a restart helps")},
            "/readyz": {"get": _health("ready", "Readiness: 200 while requests are taken")},
            "/metrics": {"get": _text("metrics", "Metrics for Prometheus", *_METRICS)},
            "/openapi.json": {"get": _text("openapi", "This document", JSON)},
            "/": {"get": _text("page", "A page that shows this API", "text/html")},
        },
        "components": {
            "schemas": _schemas(),
            "parameters": _parameters(settings, models, classes),
            "headers": _headers(),
            "securitySchemes": _schemes(settings),
        },
    }  # fmt: skip


def _infer(settings: GatewaySettings) -> dict[str, Any]:
    any_json = {"description": "Any JSON value: the event that the model gets.", "examples": [{"features": [1, 2, 3]}]}
    return {
        "operationId": "infer",
        "summary": "Ask for inference",
        "description": (
            f"Waits up to {settings.wait_s:g} s, or as `Prefer: wait=N` says (up to {settings.max_wait_s:g} s). "
            "Without a result by then it is answered with 202: it goes on, and its path says later what became of it."
        ),
        "parameters": [
            _ref("parameters", name)
            for name in (
                "Infertool-Model", "Infertool-Class", "Prefer", "Request-Timeout", "Idempotency-Key",
                *(["Infertool-Webhook"] if settings.webhook_hosts else []), "X-Request-Id", "traceparent",
            )
        ],
        "requestBody": {
            "required": True,
            "content": {
                JSON: {"schema": any_json},
                MSGPACK: {"schema": {"description": "Any MessagePack value.", "type": "string", "format": "binary"}},
            },
        },
        "responses": {
            "200": {
                "description": "The result, or a stream of events.",
                "headers": _header_refs(*_TOLD),
                "content": {JSON: {"schema": _ref("schemas", "Outcome")}, MSGPACK: {}, **_STREAM},
            },
            "202": _accepted(),
            **_problems(_INFER),
        },
    }  # fmt: skip


def _predict(infer: dict[str, Any]) -> dict[str, Any]:
    """Return the plain form of `infer`: the result itself is the body."""
    return {
        **infer,
        "operationId": "predict",
        "summary": "Ask for inference, and get the bare result",
        "description": "Waits until the result is there, or for Request-Timeout.",
        "responses": {
            "200": {
                "description": "The model's result.",
                "headers": _header_refs("Infertool-Event-Id", "RateLimit", "RateLimit-Policy"),
                "content": {JSON: {}, MSGPACK: {}},
            },
            **_problems({*_INFER, Reason.INPUT_REFUSED}),
        },
    }


def _get() -> dict[str, Any]:
    return {
        "operationId": "getRequest",
        "summary": "Tell what became of a request",
        "responses": {"200": _ended(), "202": _accepted(), "307": _elsewhere(), **_problems(_LOOKUP)},
    }


def _delete() -> dict[str, Any]:
    return {
        "operationId": "cancelRequest",
        "summary": "Give a request up",
        "responses": {"200": _ended(), "202": _accepted(), "307": _elsewhere(), **_problems(_LOOKUP)},
    }


def _events() -> dict[str, Any]:
    return {
        "operationId": "followRequest",
        "summary": "Follow a request, as server-sent events",
        "parameters": [_ref("parameters", "Last-Event-ID")],
        "responses": {
            "200": {"description": "Events: queued, started, result or failed.", "content": _STREAM},
            "204": {"description": "The client has had the last event."},
            "307": _elsewhere(),
            **_problems(_LOOKUP),
        },
    }  # fmt: skip


def _health(name: str, summary: str) -> dict[str, Any]:
    content = {"text/plain": {"schema": {"type": "string"}}, JSON: {"schema": {"type": "object"}}}
    return {
        "operationId": name,
        "summary": summary,
        "security": [],
        "parameters": [
            {"name": "verbose", "in": "query", "allowEmptyValue": True, "schema": {"type": "string"},
             "description": "All conditions, as JSON."}
        ],
        "responses": {
            "200": {"description": "It is so.", "content": content},
            "503": {"description": "It is not so.", "content": {**content, **_problem_content()}},
            **_problems(_ANYWHERE - {Reason.TOO_MANY_CONNECTIONS}),
        },
    }  # fmt: skip


def _text(name: str, summary: str, *types: str) -> dict[str, Any]:
    return {
        "operationId": name,
        "summary": summary,
        "security": [],
        "responses": {
            "200": {"description": summary, "content": {each: {} for each in types}},
            **_problems(_ANYWHERE),
        },
    }


def _ended() -> dict[str, Any]:
    return {
        "description": "The request has ended.",
        "content": {JSON: {"schema": _ref("schemas", "Outcome")}, MSGPACK: {}},
    }


def _accepted() -> dict[str, Any]:
    return {
        "description": "The request is held, and has not ended.",
        "headers": _header_refs("Location", "Retry-After"),
        "content": {JSON: {"schema": _ref("schemas", "Outcome")}},
    }


def _elsewhere() -> dict[str, Any]:
    return {"description": "Another gateway has the request.", "headers": _header_refs("Location")}


def _problems(reasons: Iterable[Reason]) -> dict[str, Any]:
    by_status: dict[HTTPStatus, list[Reason]] = {}
    for reason in Reason:
        if reason in reasons:
            by_status.setdefault(reason.status, []).append(reason)
    return {
        str(status.value): {
            "description": "; ".join(f"`{each.name.lower()}`: {each.title}" for each in found),
            "content": _problem_content(),
            **({"headers": _header_refs("Retry-After")} if status.value in {429, 503} else {}),
        }
        for status, found in by_status.items()
    }


def _problem_content() -> dict[str, Any]:
    return {CONTENT_TYPE: {"schema": _ref("schemas", "Problem")}}


def _schemas() -> dict[str, Any]:
    number_or_null = {"type": ["number", "null"]}
    whole_or_null = {"type": ["integer", "null"]}
    return {
        "Outcome": {
            "description": "What is known of a request, and its prediction or its failure.",
            "type": "object",
            "required": ["event_id", "status", "model", "class", "accepted_ms", "deadline_ms"],
            "properties": {
                "event_id": {"type": "string", "description": "Its id in logs, dead letters and dashboards."},
                "request_id": {"type": "string", "description": "The caller's own id, X-Request-Id."},
                "status": {"enum": [each.value for each in State]},
                "model": {"type": "string"},
                "class": {"type": "string"},
                "accepted_ms": {"type": "integer"},
                "deadline_ms": {"type": "integer"},
                "finished_ms": {"type": "integer"},
                "processing_ms": number_or_null,
                "cached": {"const": True},
                "position": whole_or_null,
                "eta_ms": whole_or_null,
                "prediction": {"description": "The model's result."},
                "content_type": {"type": "string", "description": "Of a result that is no JSON."},
                "body_base64": {"type": "string", "description": "A result that is no JSON."},
                "reason": {"enum": _names()},
                "error": {"type": ["string", "null"]},
                "error_type": {"type": ["string", "null"]},
                "stage": {"type": ["string", "null"]},
                "retryable": {"type": ["boolean", "null"]},
                "replay": {"type": "string", "description": "The command that sends its dead letter again."},
            },
        },
        "Problem": {
            "description": "RFC 9457.",
            "type": "object",
            "required": ["type", "title", "status", "reason"],
            "properties": {
                "type": {"type": "string"},
                "title": {"type": "string"},
                "status": {"type": "integer"},
                "reason": {"enum": _names()},
                "detail": {"type": "string"},
                "retry_after_s": {"type": "integer"},
                "event_id": {"type": "string"},
            },
        },
    }


def _names() -> list[str]:
    return [reason.name.lower() for reason in Reason]


def _parameters(settings: GatewaySettings, models: Sequence[str], classes: Sequence[str]) -> dict[str, Any]:
    def header(name: str, schema: dict[str, Any], text: str) -> dict[str, Any]:
        return {"name": name, "in": "header", "schema": schema, "description": text}

    visible = {"type": "string", "pattern": _VISIBLE, "maxLength": 255}
    model: dict[str, Any] = {"type": "string", "enum": list(models)}
    if len(models) == 1:
        model["default"] = models[0]
    chosen = {"type": "string", "enum": list(classes), "default": settings.default_class}
    return {
        "id": {"name": "id", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}},
        "Infertool-Model": {
            **header("Infertool-Model", model, "The model, where there are several."),
            "required": len(models) > 1,
        },
        "Infertool-Class": header("Infertool-Class", chosen, "The class, which has a share of the work."),
        "Prefer": header("Prefer", {"type": "string", "examples": ["wait=5", "respond-async"]}, "RFC 7240."),
        "Request-Timeout": header(
            "Request-Timeout",
            {"type": "number", "minimum": LEAST_S, "maximum": MOST_S},
            "Seconds after which nobody wants the result any more.",
        ),
        "Idempotency-Key": header("Idempotency-Key", visible, "The same key and body: the same request."),
        "Infertool-Webhook": header(
            "Infertool-Webhook", {"type": "string", "format": "uri"}, "URL that gets the outcome, if it is allowed."
        ),
        "X-Request-Id": header("X-Request-Id", visible, "The caller's own id of the request."),
        "traceparent": header("traceparent", {"type": "string"}, "W3C trace context."),
        "Last-Event-ID": header("Last-Event-ID", {"type": "string"}, "The last event that the client has had."),
    }


def _headers() -> dict[str, Any]:
    texts = {
        "Location": "The path of the request.",
        "Infertool-Event-Id": "The id of the request.",
        "Preference-Applied": "RFC 7240.",
        "Idempotency-Replayed": "true: the request was there already.",
        "RateLimit": "What is left of the limits.",
        "RateLimit-Policy": "The limits.",
    }
    found: dict[str, Any] = {name: {"description": text, "schema": {"type": "string"}} for name, text in texts.items()}
    found["Retry-After"] = {"description": "Seconds until another try makes sense.", "schema": {"type": "integer"}}
    return found


def _header_refs(*names: str) -> dict[str, Any]:
    return {name: _ref("headers", name) for name in names}


def _schemes(settings: GatewaySettings) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if settings.keys_file:
        found["apiKey"] = {"type": "apiKey", "in": "header", "name": "X-API-Key"}
    if settings.keys_file or settings.jwks_url:
        found["bearer"] = {"type": "http", "scheme": "bearer", "description": "An API key, or a token (JWT)."}
    if settings.tls_client_ca_file:
        found["certificate"] = {"type": "mutualTLS"}
    return found


def _security(settings: GatewaySettings) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [{name: []} for name in _schemes(settings)]
    return [*found, {}] if not found or settings.anonymous else found


def _ref(kind: str, name: str) -> dict[str, str]:
    return {"$ref": f"#/components/{kind}/{name}"}
