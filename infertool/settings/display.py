"""Shows settings: the commented settings file, and each value with its origin and secrets masked."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Literal, get_args, get_origin

from infertool.secret import MASK, Secret, is_telling, mask_url
from infertool.settings import tree
from infertool.settings.keys import flatten, groups, types, variable
from infertool.settings.load import Loaded, dump

_WIDTH = 110

_HEAD = f"""\
# Settings of infertool. Every key stands here with its default, commented out: remove the # before a key to set it.
# Later wins: this file, a profile in it (--profile NAME), environment ({variable("broker.url")} and so on), flags.
# Times are in seconds. Check the outcome with: infertool config show
"""

_PROFILE = """\

# A profile is the same tree once more, for --profile production or INFERTOOL_PROFILE=production.
#[profile.production.broker]
#url = "stomp+ssl://broker-a:61614,broker-b:61614"
#user = "infertool"
#password_file = "/run/secrets/activemq"
#[profile.production.consume]
#concurrency = 64
"""


def init_text() -> str:
    """Return the commented settings file; its `#key = value` lines hold the defaults."""
    return _HEAD + "".join(map(_group, groups().items())) + _PROFILE


def meanings() -> dict[str, str]:
    """Return the meaning of each dotted key: the strings under the fields of the tree."""
    parts = {group: cls.__mro__[:-1] for group, cls in groups().items()}
    modules = {inspect.getmodule(part) for each in parts.values() for part in each}
    nodes = [node for module in modules if module for node in ast.parse(inspect.getsource(module)).body]
    classes = {node.name: node for node in nodes if isinstance(node, ast.ClassDef)}
    return {
        f"{group}.{name}": text
        for group, each in parts.items()
        for part in each
        for name, text in _fields(classes[part.__name__])
    }


def _fields(cls: ast.ClassDef) -> Iterator[tuple[str, str]]:
    for field, below in zip(cls.body, cls.body[1:], strict=False):
        match field, below:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                yield name, text


def _group(group: tuple[str, type]) -> str:
    name, cls = group
    keys = {key: value for key, value in flatten(tree.Settings()).items() if key.startswith(f"{name}.")}
    return f"\n[{name}]\n{_comment(inspect.getdoc(cls) or '')}" + "".join(
        _key(key, value) for key, value in keys.items()
    )


def _key(key: str, value: Any) -> str:
    plain = value.reveal() if isinstance(value, Secret) else value
    hint = types()[key]
    choices = f" One of {', '.join(get_args(hint))}." if get_origin(hint) is Literal else ""
    return f"\n#{key.partition('.')[2]} = {dump(plain)}\n{_comment(meanings()[key] + choices)}"


def _comment(text: str) -> str:
    return textwrap.fill(text, _WIDTH, initial_indent="# ", subsequent_indent="# ") + "\n"


@dataclass(frozen=True, slots=True)
class Row:
    """One setting for display. `hidden` is True if a part of `value` is masked."""

    key: str
    value: Any
    origin: str
    hidden: bool


def rows(loaded: Loaded) -> list[Row]:
    """Return a row for every setting, in the order of the tree."""
    return [_row(key, value, loaded.origins[key]) for key, value in flatten(loaded.settings).items()]


def as_toml(loaded: Loaded) -> str:
    """Return the settings as a settings file; masked values are commented out."""
    return "\n".join(_toml_lines(loaded)).lstrip()


def _toml_lines(loaded: Loaded) -> Iterator[str]:
    for group, members in groupby(rows(loaded), key=lambda row: row.key.partition(".")[0]):
        yield f"\n[{group}]"
        for row in members:
            yield f"{'# ' if row.hidden else ''}{row.key.partition('.')[2]} = {dump(row.value)}"


def _row(key: str, value: Any, origin: str) -> Row:
    shown = _masked(key, value)
    return Row(key, shown, origin, hidden=shown != value and bool(value))


def _masked(key: str, value: Any) -> Any:
    if isinstance(value, Secret):
        return str(value)
    if key.endswith("url") or (key == "model.spec" and "://" in value):
        return mask_url(value)
    return _without_secrets(value)


def _without_secrets(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: MASK if is_telling(name) else _without_secrets(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_without_secrets(item) for item in value]
    return value
