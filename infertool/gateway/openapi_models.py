"""The description of the v2 protocol, as a part of an OpenAPI document, and the document of a model server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from infertool.gateway.headers import JSON
from infertool.gateway.problem import CONTENT_TYPE
from infertool.models.tensors import KINDS

_TOLD: Final = ("Infertool-Event-Id", "RateLimit", "RateLimit-Policy")
_ASKED: Final = ("Infertool-Class", "Request-Timeout", "Idempotency-Key", "X-Request-Id", "traceparent")
_RAW: Final = "application/octet-stream"


def v2_paths(models: Sequence[str]) -> dict[str, Any]:
    """Return the paths of the v2 protocol."""
    found: dict[str, Any] = {
        "/v2": {"get": _get("v2Server", "Describe the server")},
        "/v2/health/live": {"get": _get("v2Live", "Tell that the server runs", content=None)},
        "/v2/health/ready": {"get": _get("v2Ready", "Readiness: 200 while requests are taken", content=None)},
    }
    model = {"name": "model", "in": "path", "required": True, "schema": {"type": "string", "enum": list(models)}}
    version = {"name": "version", "in": "path", "required": True, "schema": {"type": "string", "enum": ["1"]}}
    places = (
        ("", "/v2/models/{model}", [model]),
        ("Version", "/v2/models/{model}/versions/{version}", [model, version]),
    )
    for name, path, parameters in places:
        found |= {
            path: {"parameters": parameters, "get": _get(f"v2Model{name}", "Describe a model")},
            f"{path}/ready": {
                "parameters": parameters,
                "get": _get(f"v2ModelReady{name}", "Readiness of the model", content=None),
            },
            f"{path}/infer": {"parameters": parameters, "post": _infer(f"v2Infer{name}")},
        }
    return found


def of_model_server(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the document of a model server, from that of a gateway: it has no `/v1`."""
    kept = {path: item for path, item in document["paths"].items() if not path.startswith("/v1/")}
    about = {**document["info"], "title": "infertool model server", "description": "A model behind HTTP."}
    return {**document, "info": about, "paths": kept}


def _infer(name: str) -> dict[str, Any]:
    tensor = {
        "type": "object",
        "required": ["name", "shape", "datatype"],
        "properties": {
            "name": {"type": "string"},
            "shape": {"type": "array", "items": {"type": "integer", "minimum": 0}},
            "datatype": {"enum": list(KINDS)},
            "data": {"type": "array"},
            "parameters": {"type": "object"},
        },
    }
    request = {
        "type": "object",
        "required": ["inputs"],
        "properties": {
            "id": {"type": "string"},
            "inputs": {"type": "array", "minItems": 1, "items": tensor},
            "outputs": {"type": "array", "items": {"type": "object", "required": ["name"]}},
            "parameters": {"type": "object"},
        },
    }
    return {
        "operationId": name,
        "summary": "Ask for inference by tensors (KServe v2)",
        "parameters": [_ref("parameters", each) for each in _ASKED],
        "requestBody": {"required": True, "content": {JSON: {"schema": request}, _RAW: {}}},
        "responses": {
            "200": {
                "description": "The outputs.",
                "headers": _told(),
                "content": {JSON: {"schema": {"type": "object"}}},
            },
            "default": _refused(),
        },
    }


def _get(name: str, summary: str, content: str | None = JSON) -> dict[str, Any]:
    return {
        "operationId": name,
        "summary": summary,
        "security": [],
        "responses": {
            "200": {"description": summary, **({"content": {content: {}}} if content else {})},
            "503": {"description": "It is not ready.", "content": {JSON: {}}},
            "default": _refused(),
        },
    }


def _told() -> dict[str, Any]:
    return {name: _ref("headers", name) for name in _TOLD}


def _refused() -> dict[str, Any]:
    return {"description": "A problem.", "content": {CONTENT_TYPE: {"schema": _ref("schemas", "Problem")}}}


def _ref(kind: str, name: str) -> dict[str, str]:
    return {"$ref": f"#/components/{kind}/{name}"}
