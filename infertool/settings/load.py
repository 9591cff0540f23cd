"""Loads the settings from, in rising precedence: defaults, file, profile in the file, environment, flags."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from infertool.errors import SettingsError
from infertool.secret import Secret
from infertool.settings.keys import PREFIX, Entry, flatten, groups, parsed, typed, types, unflatten, variable
from infertool.settings.ranges import check
from infertool.settings.secrets import override, read_files
from infertool.settings.tree import Settings
from infertool.text.input import did_you_mean, home_path, is_file, nearest

FILE_NAME = "infertool.toml"
# The array of tables in a file, and the setting that holds it.
RULES = "alerts"
RULES_KEY = "alerting.rules"


def config_candidates(environ: Mapping[str, str]) -> tuple[Path, ...]:
    """Return the paths where a settings file is looked for; the first existing one is used."""
    return Path(FILE_NAME), _base(environ, "XDG_CONFIG_HOME", ".config") / FILE_NAME


def state_dir(environ: Mapping[str, str], given: str = "") -> Path:
    """Return the folder for state that must survive a restart: `given`, which is consume.state_dir, or the default."""
    return Path(given) if given else _base(environ, "XDG_STATE_HOME", ".local/state")


def gateway_dir(environ: Mapping[str, str], given: str = "") -> Path:
    """Return the folder of a gateway's requests; `given` is `gateway.state_dir`."""
    return home_path(given) if given else state_dir(environ) / "gateway"


def _base(environ: Mapping[str, str], variable: str, default: str) -> Path:
    folder = Path(environ.get(variable, ""))
    if not folder.is_absolute():  # the XDG specification ignores relative paths
        folder = Path(environ.get("HOME") or Path.home()) / default
    return folder / "infertool"


_ENDINGS = ("_file", "_dir")


def anchored(settings: Settings) -> Settings:
    """Return `settings` with absolute paths: files are read again later, and a model may change the working folder."""
    result: Settings = _anchored(settings)
    return result


def _anchored(tree: Any) -> Any:
    changes: dict[str, Any] = {}
    for each in fields(tree):
        value = getattr(tree, each.name)
        if is_dataclass(value) and not isinstance(value, Secret):
            changes[each.name] = _anchored(value)
        elif value and each.name.endswith(_ENDINGS):
            changes[each.name] = str(home_path(value).absolute())
    return replace(tree, **changes)


_HEADER = re.compile(r"\s*\[\[?([^\[\]]+)\]\]?\s*(?:#.*)?")
_ASSIGNMENT = re.compile(r"\s*([\w.\-\"' ]+?)\s*=")


def line_numbers(text: str) -> dict[str, int]:
    """Return the line, from 1, of the first occurrence of each dotted table or key.

    It is no TOML parser: a multi-line string that looks like TOML can mislead it.
    """
    numbers: dict[str, int] = {}
    table = ""
    for number, line in enumerate(text.split("\n"), start=1):
        if header := _HEADER.fullmatch(line):
            table = _plain(header[1])
            numbers.setdefault(table, number)
        elif assignment := _ASSIGNMENT.match(line):
            numbers.setdefault(f"{table}.{_plain(assignment[1])}".lstrip("."), number)
    return numbers


def _plain(name: str) -> str:
    return re.sub(r"[\s\"']", "", name)


def dump(value: Any) -> str:
    """Return `value` (string, number, boolean, list or table) as TOML on one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {dump(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(dump, value)) + "]"
    if isinstance(value, str | bool | int | float):
        return json.dumps(value)
    return str(value)  # dates and times


PROFILE = "INFERTOOL_PROFILE"
# Tells the model in a worker process its device; what such a model starts may be infertool again.
DEVICE = "INFERTOOL_DEVICE"
ALIASES = {
    "ACTIVEMQ_USER": "broker.user",
    "ACTIVEMQ_PASSWORD": "broker.password",
    "PHOENIX_SERVICE_TOKEN": "phoenix.token",
}


def from_aliases(environ: Mapping[str, str]) -> dict[str, Entry]:
    """Return the values of other tools' variables (`ALIASES`); an empty one counts as unset."""
    return {key: parsed(key, environ[name], name) for name, key in ALIASES.items() if environ.get(name)}


def from_variables(environ: Mapping[str, str]) -> dict[str, Entry]:
    """Return the values of the INFERTOOL_ variables. Raises `SettingsError` for an unknown one."""
    keys = {variable(key): key for key in types()}
    names = [name for name in environ if name.startswith(PREFIX) and name not in {PROFILE, DEVICE}]
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


@dataclass(frozen=True, slots=True)
class SettingsFile:
    """The converted values of a settings file: its own, and those of each profile."""

    path: Path
    values: Mapping[str, Entry]
    profiles: Mapping[str, Mapping[str, Entry]]


def find(config: Path | None, environ: Mapping[str, str]) -> Path | None:
    """Return the settings file to use: `config`, which must exist, or the first existing candidate."""
    if config is None:
        return next((path for path in config_candidates(environ) if is_file(path)), None)
    try:
        config.stat()
    except (FileNotFoundError, NotADirectoryError):
        folder = config.parent
        advice = did_you_mean(str(config), map(str, folder.glob("*.toml"))) or "`infertool config init` writes one"
        raise SettingsError(f"there is no settings file {config}", origin=str(config), advice=advice) from None
    except OSError:
        pass  # reading it says why
    return config


def read(path: Path) -> SettingsFile:
    """Read the file with all its profiles. Raises `SettingsError`."""
    try:
        text = _text(path) if is_file(path) else _text_of_pipe(path, path.stat().st_ino)
        tables = tomllib.loads(text)
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}", origin=str(path)) from error
    except RecursionError:
        raise SettingsError(f"{path} is not TOML that can be read: too many levels", origin=str(path)) from None
    except ValueError as error:  # not UTF-8, or not TOML
        raise SettingsError(f"{path} is not TOML: {error}", origin=str(path)) from None
    return _Reader(path, line_numbers(text)).read(tables)


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8-sig")


@cache
def _text_of_pipe(path: Path, _inode: int) -> str:
    """Return what a pipe held: some commands load the settings several times, for each profile or server."""
    return _text(path)


@dataclass(frozen=True, slots=True)
class _Reader:
    path: Path
    lines: Mapping[str, int] = field(repr=False)

    def read(self, tables: dict[str, Any]) -> SettingsFile:
        profiles = self._table("profile", tables.pop("profile", {}))
        return SettingsFile(
            path=self.path,
            values=dict(self._entries(tables, "")),
            profiles={
                name: dict(self._entries(self._table(f"profile.{name}", tree), f"profile.{name}."))
                for name, tree in profiles.items()
            },
        )

    def _entries(self, tree: dict[str, Any], prefix: str) -> Iterator[tuple[str, Entry]]:
        rules = self._rules(tree.pop(RULES, []), prefix)
        for group, table in tree.items():
            if group not in groups():
                valid = (*groups(), RULES) if prefix else (*groups(), RULES, "profile")
                raise self._unknown(prefix + group, [prefix + name for name in valid])
            for name, value in self._table(prefix + group, table).items():
                key = f"{group}.{name}"
                if key not in types():
                    raise self._unknown(prefix + key, [prefix + valid for valid in types()])
                yield key, typed(key, value, self._origin(prefix + key))
        if rules:
            written = tree.get("alerting", {}).get("rules", [])
            yield RULES_KEY, typed(RULES_KEY, [*written, *rules], self._origin(prefix + RULES))

    def _rules(self, tables: object, prefix: str) -> list[dict[str, Any]]:
        """Return the tables [[alerts]]. Raises `SettingsError`."""
        origin, key = self._origin(prefix + RULES), prefix + RULES
        if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
            raise SettingsError(
                f"{origin}: {key} must be a list of tables", key=key, origin=origin, advice=f"write [[{key}]]"
            )
        names = [table.get("name") for table in tables]
        if double := next((name for name in names if name is not None and names.count(name) > 1), None):
            raise SettingsError(f"{origin}: two tables [[{key}]] are named {double}", key=key, origin=origin)
        return tables

    def _table(self, key: str, value: object) -> dict[str, Any]:
        if isinstance(value, dict):
            return value
        origin = self._origin(key)
        raise SettingsError(f"{origin}: {key} must be a table", key=key, origin=origin, advice=f"write [{key}]")

    def _unknown(self, key: str, valid: list[str]) -> SettingsError:
        origin = self._origin(key)
        return SettingsError(
            f"{origin}: unknown key {key}",
            key=key,
            origin=origin,
            nearest=nearest(key, valid),
            advice=did_you_mean(key, valid) or "`infertool config init` writes every key there is",
        )

    def _origin(self, key: str) -> str:
        """Return file and line of `key`, or of the innermost enclosing table that has a line of its own."""
        name = key
        while name and name not in self.lines:
            name = name.rpartition(".")[0]
        return f"{self.path}:{self.lines[name]}" if name else str(self.path)


@dataclass(frozen=True, slots=True)
class Loaded:
    """The settings, each value's origin by dotted key, and the settings files that were read."""

    settings: Settings
    origins: Mapping[str, str]
    files: tuple[Path, ...]


def load(
    *,
    config: Path | None,
    profile: str | None,
    environ: Mapping[str, str],
    flags: Mapping[str, tuple[str, object]],
) -> Loaded:
    """Return the settings of this run, with secrets read from their files. Raises `SettingsError`.

    `config` and `profile` are None if the user gave none. `flags` maps dotted keys to (flag as typed, value).
    """
    path = find(config, environ)
    file = read(path) if path else None
    layers = [
        *_file_layers(file, profile or environ.get(PROFILE), environ),
        from_aliases(environ),
        from_variables(environ),
        {key: typed(key, value, flag) for key, (flag, value) in flags.items()},
    ]
    entries = _defaults()
    for layer in layers:
        entries = override(entries, _with_rules(entries, layer))
    entries = {**_defaults(), **entries}
    check(entries)
    entries = read_files(entries)
    return Loaded(
        settings=unflatten({key: entry.value for key, entry in entries.items()}),
        origins={key: entry.origin for key, entry in entries.items()},
        files=(path,) if path else (),
    )


def _with_rules(lower: Mapping[str, Entry], upper: Mapping[str, Entry]) -> Mapping[str, Entry]:
    """Return `upper` with the rules of both layers: those of a profile change single keys of those of the file."""
    if RULES_KEY not in upper:
        return upper
    entry = upper[RULES_KEY]
    return {**upper, RULES_KEY: Entry([*lower[RULES_KEY].value, *entry.value], entry.origin)}


def _defaults() -> dict[str, Entry]:
    return {key: Entry(value, "default") for key, value in flatten(Settings()).items()}


def _file_layers(
    file: SettingsFile | None, profile: str | None, environ: Mapping[str, str]
) -> Iterator[Mapping[str, Entry]]:
    if file:
        yield file.values
    if not profile:
        return
    if file is None:
        looked = ", ".join(map(str, config_candidates(environ)))
        raise SettingsError(f"there is no profile {profile}: no settings file was found", advice=f"looked for {looked}")
    if profile not in file.profiles:
        known = f"{file.path} has {', '.join(file.profiles) or 'none'}"
        advice = " ".join(filter(None, (did_you_mean(profile, file.profiles), known)))
        raise SettingsError(f"there is no profile {profile}", key=f"profile.{profile}", advice=advice)
    yield file.profiles[profile]
