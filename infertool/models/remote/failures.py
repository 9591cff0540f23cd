"""What a failed request means for its event.

Three things can be said:

- The server is unavailable (`ModelUnavailableError`): nobody listens, it is overloaded, it redirects, it does not take
  our credentials. No event could be answered, so this one waits, and its try is not counted.
- The try failed (`InferenceError`): a 500, no answer in time, a broken answer. It may be the event's doing: it counts.
- The event is refused (`retryable=False`): any other 4xx, or an answer that is too large. Another try is no use.
"""

from __future__ import annotations

import ssl
import time
from email.utils import parsedate_to_datetime
from http import HTTPStatus

from urllib3 import exceptions as u

from infertool.errors import InferenceError, ModelUnavailableError
from infertool.tlsfaults import certificate_question, explain, said

# A server may ask for a pause; a longer one is looked into after this many seconds.
LONGEST_PAUSE_S = 600.0

_SERVER_ERROR = 500
_REDIRECTS = range(300, 400)
_UNAVAILABLE = {
    HTTPStatus.REQUEST_TIMEOUT,
    HTTPStatus.TOO_EARLY,
    HTTPStatus.TOO_MANY_REQUESTS,
    HTTPStatus.BAD_GATEWAY,
    HTTPStatus.SERVICE_UNAVAILABLE,
    HTTPStatus.GATEWAY_TIMEOUT,
    # Not the event's fault either, and dead-lettering a whole queue would not mend a token.
    HTTPStatus.UNAUTHORIZED,
    HTTPStatus.FORBIDDEN,
    HTTPStatus.PROXY_AUTHENTICATION_REQUIRED,
}


def of_status(status: int, text: str, retry_after: str | None) -> InferenceError:
    """Return what an answer other than 2xx means. `text` says it for people; `retry_after` is that header."""
    pause_s = _pause_s(retry_after) if retry_after else None
    if status in _REDIRECTS:
        return ModelUnavailableError(f"{text}; redirects are not followed: set model.spec", retry_after_s=0.0)
    if status in _UNAVAILABLE or (status >= _SERVER_ERROR and pause_s is not None):
        return ModelUnavailableError(text, retry_after_s=pause_s or 0.0)
    return InferenceError(text, retryable=status >= _SERVER_ERROR)


def of_error(error: u.HTTPError, address: str, *, shown: bool) -> InferenceError:
    """Return what it means that no whole answer came. `shown` tells whether we have a client certificate."""
    match error:
        case u.NameResolutionError():
            return _unavailable(f"the host of {address} is not known")
        case u.ConnectTimeoutError() if not isinstance(error, u.NewConnectionError):
            return _unavailable(f"{address} did not take the connection in time (model.connect_timeout_s)")
        case u.NewConnectionError():
            return _unavailable(f"{address} cannot be reached: {_reason(error)}")
        case u.SSLError():
            return _unavailable(_of_tls(_innermost(error), address, shown=shown))
        case u.ReadTimeoutError():
            return too_slow(address)
        case _:
            return InferenceError(f"{address} broke off: {_reason(error)}")


def too_slow(address: str) -> InferenceError:
    """Return the failure of an answer that did not come in time."""
    return InferenceError(f"{address} did not answer in time (model.timeout_s)")


def _of_tls(fault: BaseException, address: str, *, shown: bool) -> str:
    if not isinstance(fault, ssl.SSLError):
        return f"TLS with {address} failed: {_told(fault)}"
    if known := explain(fault, address, "model", shown=shown):
        return "; ".join(known)
    question = f"; {certificate_question('model', shown=shown)}?" if isinstance(fault, ssl.SSLEOFError) else ""
    return f"TLS with {address} failed: {said(fault)}{question}"


def _unavailable(text: str) -> ModelUnavailableError:
    return ModelUnavailableError(text, retry_after_s=0.0)


def _reason(error: BaseException) -> str:
    """Return what the operating system or TLS said: urllib3 puts its own objects' addresses around that."""
    return _told(_innermost(error))


def _innermost(error: BaseException) -> BaseException:
    inner = error.__cause__ or error.__context__ or next((a for a in error.args if isinstance(a, Exception)), None)
    return error if inner is None or inner is error else _innermost(inner)


def _told(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _pause_s(retry_after: str) -> float | None:
    """Return the seconds that a Retry-After header asks for, as a number or a date; None if it is neither."""
    try:
        asked = float(retry_after) if retry_after.strip().isdecimal() else _until(retry_after)
    except (ValueError, OverflowError):
        return None
    return min(max(asked, 0.0), LONGEST_PAUSE_S)


def _until(date: str) -> float:
    return parsedate_to_datetime(date).timestamp() - time.time()
