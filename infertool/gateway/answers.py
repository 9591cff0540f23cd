"""Responses: the document of a request, with its prediction or its failure, and problems."""

from __future__ import annotations

import base64
import math
from http import HTTPStatus
from typing import Any, Final

import msgspec
import orjson
from starlette.responses import Response

from infertool import codec
from infertool.gateway import problem, request
from infertool.gateway.headers import JSON, MSGPACK
from infertool.gateway.outcomes import REPLY, SEND
from infertool.gateway.problem import Problem, Reason
from infertool.gateway.request import Outcome, Progress, State

_LONGEST_RETRY_S: Final = 30
# Of what is no text, as text. Characters.
_LONGEST: Final = 1000
# What a consumer answers of a failure.
_FAILURE: Final = ("error", "error_type", "stage", "retryable")
_REASONS: Final = {
    State.FAILED: Reason.INFERENCE_FAILED,
    State.EXPIRED: Reason.EXPIRED,
    State.CANCELLED: Reason.CANCELLED,
}


def of_problem(refusal: Problem) -> Response:
    """Return the response for a refusal."""
    headers = dict(refusal.headers)
    if refusal.retry_after_s is not None:
        headers["Retry-After"] = str(refusal.retry_after_s)
    if refusal.reason.status == HTTPStatus.UNAUTHORIZED:
        headers.setdefault("WWW-Authenticate", "Bearer")
    return Response(
        orjson.dumps(refusal.document()), refusal.reason.status.value, headers, media_type=problem.CONTENT_TYPE
    )


def of_infer(progress: Progress) -> Response:
    """Return the response to a caller who asked for inference: 200, 202, or raise `Problem` for a failure."""
    if progress.state in _REASONS:
        raise failure(progress)
    return of_request(progress)


def of_request(progress: Progress) -> Response:
    """Return the response to a caller who asks what became of a request: 200 once it has ended, else 202."""
    if not progress.state.is_final:
        headers = {"Location": location(progress), "Retry-After": str(retry_after_s(progress))}
        return Response(orjson.dumps(request.document(progress)), HTTPStatus.ACCEPTED, headers, media_type=JSON)
    if progress.state is not State.SUCCEEDED:
        return Response(orjson.dumps(request.document(progress, members(progress))), media_type=JSON)
    is_msgpack = progress.outcome is not None and progress.outcome.content_type == MSGPACK
    return Response(document(progress), media_type=MSGPACK if is_msgpack else JSON)


def document(progress: Progress) -> bytes:
    """Return the outcome document of a request that succeeded: MessagePack where its result is, else JSON."""
    found = request.document(progress)
    outcome = progress.outcome
    if outcome is None:
        return orjson.dumps(found)
    if outcome.content_type == MSGPACK:
        return msgspec.msgpack.encode({**found, "prediction": msgspec.Raw(outcome.body)})
    if codec.for_content_type(outcome.content_type) is codec.JSON:
        return orjson.dumps({**found, "prediction": orjson.Fragment(outcome.body)})
    return orjson.dumps(found | as_bytes(outcome))


def as_bytes(outcome: Outcome) -> dict[str, str]:
    """Return what stands for the prediction where the result is not JSON."""
    return {"content_type": outcome.content_type, "body_base64": base64.b64encode(outcome.body).decode()}


def members(progress: Progress) -> dict[str, Any]:
    """Return what is told of a failure: its reason, the consumer's words, and the command that would repair it."""
    found: dict[str, Any] = {"reason": _REASONS[progress.state].name.lower()}
    if progress.state is State.FAILED:
        told = _told(progress)
        found |= {name: _plain(told[name]) for name in _FAILURE if name in told}
        if told.get("stage") not in {SEND, REPLY}:
            found["replay"] = f"infertool replay-dlq --id {progress.request.id}"
    return found


def failure(progress: Progress) -> Problem:
    """Return the problem of a request that ended without a result."""
    found = members(progress)
    told = {"event_id": progress.request.id, "state": progress.state.value, **found}
    if progress.request.request_id:
        told["request_id"] = progress.request.request_id
    return Problem(_REASONS[progress.state], str(found.get("error", ""))[:_LONGEST], members=told)


def location(progress: Progress) -> str:
    """Return the path of a request."""
    return f"/v1/requests/{progress.request.id}"


def retry_after_s(progress: Progress) -> int:
    """Return after how many seconds it makes sense to ask again."""
    if progress.eta_ms is None:
        return 1
    return min(_LONGEST_RETRY_S, max(1, math.ceil(progress.eta_ms / 1000)))


def _told(progress: Progress) -> dict[str, Any]:
    outcome = progress.outcome
    if outcome is None or not outcome.body:
        return {}
    used = codec.for_content_type(outcome.content_type)
    try:
        found = codec.decode(used, outcome.body) if used else None
    except codec.DecodeError:
        return {}
    return found if isinstance(found, dict) else {}


def _plain(value: Any) -> str | bool | None:
    """Return a value of a failure as a document holds it: consumers of another make may say anything."""
    return value if value is None or isinstance(value, str | bool) else str(value)[:_LONGEST]
