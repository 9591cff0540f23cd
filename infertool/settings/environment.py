"""Settings from environment variables: INFERTOOL_BROKER__URL for every key, and the names people already have."""

from __future__ import annotations

from collections.abc import Mapping

from infertool.errors import SettingsError
from infertool.nearest import nearest
from infertool.settings.keys import PREFIX, types, variable
from infertool.settings.values import Entry, parsed

PROFILE = "INFERTOOL_PROFILE"
ALIASES = {
    "ACTIVEMQ_USER": "broker.user",
    "ACTIVEMQ_PASSWORD": "broker.password",
    "PHOENIX_SERVICE_TOKEN": "phoenix.token",
}


def from_aliases(environ: Mapping[str, str]) -> dict[str, Entry]:
    """Return what the variables of other tools say; an empty one counts as not set."""
    return {key: parsed(key, environ[name], name) for name, key in ALIASES.items() if environ.get(name)}


def from_variables(environ: Mapping[str, str]) -> dict[str, Entry]:
    """Return what the INFERTOOL_ variables say. Raises `SettingsError` for one that is no key."""
    keys = {variable(key): key for key in types()}
    names = [name for name in environ if name.startswith(PREFIX) and name != PROFILE]
    for name in names:
        if name not in keys:
            raise _unknown(name, (*keys, PROFILE))
    return {keys[name]: parsed(keys[name], environ[name], name) for name in names}


def _unknown(name: str, valid: tuple[str, ...]) -> SettingsError:
    match = nearest(name.removeprefix(PREFIX), [other.removeprefix(PREFIX) for other in valid])
    return SettingsError(
        f"environment variable {name} is no setting",
        key=name,
        origin=name,
        nearest=match and PREFIX + match,
        advice=f"did you mean {PREFIX}{match}?" if match else f"write it like {variable('broker.url')}",
    )
