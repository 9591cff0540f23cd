"""The part of CEL that rules are written in, as a tree with positions.

The evaluator tells neither types nor positions, so rules are parsed here once more: for the check of types, and for
their translation to PromQL. An expression comes here after the evaluator's own parser accepted it.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

_TOKEN: Final = re.compile(
    r"""\s*(?:(?P<number>\d+\.\d+(?:[eE][+-]?\d+)?|\d+[eE][+-]?\d+|\d+)(?![\w.])|(?P<string>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')"""
    r"""|(?P<name>[A-Za-z_]\w*)|(?P<sign>\|\||&&|[=!<>]=|[-+*/%!<>?:.,()\[\]])|(?P<end>\Z))"""
)
_LEVELS: Final = (
    frozenset({"||"}),
    frozenset({"&&"}),
    frozenset({"==", "!=", "<", "<=", ">", ">=", "in"}),
    frozenset({"+", "-"}),
    frozenset({"*", "/", "%"}),
)
_CONSTANTS: Final = {"true": True, "false": False, "null": None}


class NotSupportedError(Exception):
    """Something of CEL that rules do not have, at a position of the expression."""

    def __init__(self, reason: str, position: int) -> None:
        super().__init__(reason)
        self.reason = reason
        self.position = position


@dataclass(frozen=True, slots=True)
class Literal:
    """A number, text, truth value or null."""

    value: float | str | bool | None
    text: str
    at: int


@dataclass(frozen=True, slots=True)
class Path:
    """A field of the document, such as queue.depth."""

    name: str
    at: int


@dataclass(frozen=True, slots=True)
class Unary:
    """`!` or `-`."""

    sign: str
    operand: Node
    at: int


@dataclass(frozen=True, slots=True)
class Binary:
    """An operator between two operands; `at` is the operator's position."""

    sign: str
    left: Node
    right: Node
    at: int


@dataclass(frozen=True, slots=True)
class Choice:
    """`condition ? yes : no`."""

    condition: Node
    yes: Node
    no: Node
    at: int


@dataclass(frozen=True, slots=True)
class Call:
    """A function, or a method whose receiver is the first argument."""

    function: str
    arguments: tuple[Node, ...]
    at: int
    method: bool = False


@dataclass(frozen=True, slots=True)
class Listed:
    """`[a, b]`, the right side of `in`."""

    items: tuple[Node, ...]
    at: int


Node = Literal | Path | Unary | Binary | Choice | Call | Listed


def children(node: Node) -> tuple[Node, ...]:
    """Return the parts of `node`."""
    match node:
        case Unary(operand=operand):
            return (operand,)
        case Binary(left=left, right=right):
            return left, right
        case Choice(condition=condition, yes=yes, no=no):
            return condition, yes, no
        case Call(arguments=parts) | Listed(items=parts):
            return parts
    return ()


def walk(node: Node) -> Iterator[Node]:
    """Yield `node` and everything in it, from left to right."""
    yield node
    for child in children(node):
        yield from walk(child)


def paths(node: Node) -> frozenset[str]:
    """Return the fields that `node` reads."""
    return frozenset(each.name for each in walk(node) if isinstance(each, Path))


def parse(text: str) -> Node:
    """Return the tree of `text`. Raises `NotSupportedError`."""
    try:
        parser = _Parser(text)
        tree = parser.choice()
    except RecursionError:
        raise NotSupportedError("it is nested too deep", 0) from None
    if parser.kind != "end":
        raise NotSupportedError(f"rules have no {parser.token}", parser.at)
    return tree


class _Parser:
    """Reads one token ahead: its kind, text and position."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._next = 0
        self.kind = self.token = ""
        self.at = 0
        self._advance()

    def _advance(self) -> str:
        before = self.token
        match = _TOKEN.match(self._text, self._next)
        if match is None or match.lastgroup is None:
            at = self._next + len(self._text[self._next :]) - len(self._text[self._next :].lstrip())
            raise NotSupportedError(f"rules have no {self._text[at : at + 1]!r} here", at)
        self.kind, self.token = match.lastgroup, match[match.lastgroup]
        self.at, self._next = match.start(match.lastgroup), match.end()
        return before

    def _take(self, sign: str) -> bool:
        if self.kind == "sign" and self.token == sign:
            self._advance()
            return True
        return False

    def _expect(self, sign: str) -> None:
        if not self._take(sign):
            raise NotSupportedError(f"{sign} is missing here", self.at)

    def choice(self) -> Node:
        condition = self._operators(0)
        at = self.at
        if not self._take("?"):
            return condition
        yes = self.choice()
        self._expect(":")
        return Choice(condition, yes, self.choice(), at)

    def _operators(self, level: int) -> Node:
        if level == len(_LEVELS):
            return self._unary()
        left = self._operators(level + 1)
        while self.token in _LEVELS[level] and self.kind in {"sign", "name"}:
            at, sign = self.at, self._advance()
            left = Binary(sign, left, self._operators(level + 1), at)
        return left

    def _unary(self) -> Node:
        if self.kind == "sign" and self.token in {"!", "-"}:
            at, sign = self.at, self._advance()
            return Unary(sign, self._unary(), at)
        return self._member()

    def _member(self) -> Node:
        node = self._primary()
        while self._take("."):
            at = self.at
            if self.kind != "name":
                raise NotSupportedError("a name is missing here", at)
            name = self._advance()
            if self._take("("):
                node = Call(name, (node, *self._until(")")), at, method=True)
            elif isinstance(node, Path):
                node = Path(f"{node.name}.{name}", node.at)
            else:
                raise NotSupportedError(f"there is no field {name} of this", at)
        if self.kind == "sign" and self.token in {"[", "("}:
            raise NotSupportedError("rules have no index; write group.field", self.at)
        return node

    def _primary(self) -> Node:
        at, kind = self.at, self.kind
        if self._take("("):
            inner = self.choice()
            self._expect(")")
            return inner
        if self._take("["):
            return Listed(self._until("]"), at)
        token = self._advance()
        if kind in {"number", "string"} or token in _CONSTANTS:
            return Literal(_CONSTANTS[token] if token in _CONSTANTS else ast.literal_eval(token), token, at)
        if kind != "name":
            raise NotSupportedError(f"rules have no {token} here" if token else "something is missing here", at)
        if self._take("("):
            return Call(token, self._until(")"), at)
        return Path(token, at)

    def _until(self, closing: str) -> tuple[Node, ...]:
        items: list[Node] = []
        while not self._take(closing):
            items.append(self.choice())
            if not (self.kind == "sign" and self.token == closing):
                self._expect(",")
        return tuple(items)
