"""What a join carries: the configured parameters and the token; and what to do when it is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from infertool.errors import JoinRefusedError
from infertool.phoenix.membership import UNMATCHED
from infertool.secret import MASK, Secret, is_telling

if TYPE_CHECKING:
    from infertool.settings.tree import PhoenixSettings

_LONGEST_REASON = 200
# A shorter text is no secret; masking it would garble the server's words.
_SHORTEST_SECRET = 4


class Joining:
    """Makes the payload of each join. Channels may ask for the token there, whatever the socket was given."""

    def __init__(self, settings: PhoenixSettings) -> None:
        self._settings = settings
        self._sent: set[str] = {
            str(value) for name, value in settings.join_params.items() if is_telling(name) and value
        }

    def payload(self, token: Secret) -> dict[str, Any]:
        """Return the payload for one join, with the token as it is now. Raises `SettingsError` as `Secret.reveal`."""
        params = self._settings.join_params
        if not self._sends(token):
            return params
        text = token.reveal()
        self._sent.add(text)
        return {"token": text, **params}

    def shown(self, reason: str) -> str:
        """Return the server's `reason`, cut, and without the secrets that a server may repeat in it."""
        for secret in sorted(self._sent, key=len, reverse=True):
            if len(secret) >= _SHORTEST_SECRET:
                reason = reason.replace(secret, MASK).replace(repr(secret)[1:-1], MASK)
        return reason[:_LONGEST_REASON]

    def refusal(self, topic: str, address: str, reason: str, token: Secret) -> JoinRefusedError:
        """Return the error of a refused join; `reason` is fit to be shown."""
        return JoinRefusedError(topic=topic, address=address, reason=reason, advice=self._advice(reason, token))

    def _sends(self, token: Secret) -> bool:
        return self._settings.join_token and bool(token) and "token" not in self._settings.join_params

    def _advice(self, reason: str, token: Secret) -> str:
        if reason == UNMATCHED:
            return "the server has no channel for it: check the topic's name"
        if self._sends(token):
            what = "the token was in the join payload, too: check PHOENIX_SERVICE_TOKEN (phoenix.token)"
        elif not token:
            what = "no token was sent: set PHOENIX_SERVICE_TOKEN (phoenix.token)"
        elif self._settings.join_token:
            what = "the join payload's token is that of phoenix.join_params: check it"
        else:
            what = "the join payload had no token: if the channel wants it there, set phoenix.join_token = true"
        return f"{what}; what else its join asks for goes into phoenix.join_params"
