"""A condition over the stats document: a checked CEL expression that knows three answers: true, false and no data."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from infertool.alerts import checking, fields, syntax
from infertool.alerts.fields import Values
from infertool.filters import expression
from infertool.filters.expression import Filter, FilterError

_COMPARE: Final[Mapping[str, Callable[[float, float], bool]]] = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge, "==": operator.eq, "!=": operator.ne,
}  # fmt: skip
_MIRRORED: Final = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "==": "==", "!=": "!="}


class ConditionError(FilterError):
    """The expression of a rule cannot be used. Its text names the rule and the key, and points at the character."""


@dataclass(frozen=True, slots=True)
class Measure:
    """What an alert reports: a measured value and the threshold that it is compared with."""

    value: float
    threshold: float


@dataclass(frozen=True, slots=True)
class _Comparison:
    value: Filter
    sign: str
    threshold: Filter

    def measure(self, names: dict[str, object]) -> tuple[bool, Measure] | None:
        value, threshold = self.value.number(names), self.threshold.number({})
        if value is None or threshold is None:
            return None
        return _COMPARE[self.sign](value, threshold), Measure(value, threshold)


@dataclass(frozen=True, slots=True)
class Condition:
    """A compiled expression. `tree` is its form for translations. Thread-safe."""

    text: str
    tree: syntax.Node = field(repr=False)
    paths: frozenset[str] = field(repr=False)
    _needed: frozenset[str] = field(repr=False)
    _filter: Filter = field(repr=False)
    _comparisons: tuple[_Comparison, ...] = field(repr=False)

    def holds(self, values: Values) -> bool | None:
        """Return whether the condition holds; None without data: a field is unknown, or a divisor is zero."""
        if any(values.get(path) is None for path in self._needed):
            return None
        try:
            return self._filter.evaluate(fields.nested(values, self.paths))
        except FilterError:
            return None

    def measure(self, values: Values) -> Measure | None:
        """Return value and threshold of the first comparison that holds, or else of the first one."""
        names = fields.nested(values, self.paths)
        found = [each for each in (comparison.measure(names) for comparison in self._comparisons) if each]
        return next((measure for holds, measure in found if holds), found[0][1] if found else None)


def compile(text: str, subject: str = "this rule") -> Condition:  # noqa: A001 - condition.compile reads like re.compile
    """Compile `text`. Raises `ConditionError` about `subject`."""
    try:
        return _compile(text)
    except FilterError as error:
        raise ConditionError(
            error.reason,
            expression=error.expression,
            line=error.line,
            column=error.column,
            advice=error.advice,
            subject=subject,
        ) from None


def _compile(text: str) -> Condition:
    accepted = expression.compile(text)
    try:
        tree = syntax.parse(text)
    except syntax.NotSupportedError as error:
        raise expression.at(error.position, error.reason, text) from None
    checking.check(text, tree)
    paths = syntax.paths(tree)
    if any(isinstance(node, syntax.Binary) and node.sign == "/" for node in syntax.walk(tree)):
        accepted = expression.compile(_written(tree))
    return Condition(text, tree, paths, paths - _tested(tree), accepted, tuple(_comparisons(tree)))


def _tested(tree: syntax.Node) -> frozenset[str]:
    """Return the fields that the expression compares with null: it says itself what holds without them."""
    return frozenset(
        path.name
        for node in syntax.walk(tree)
        if isinstance(node, syntax.Binary) and node.sign in {"==", "!="}
        for path, other in ((node.left, node.right), (node.right, node.left))
        if isinstance(path, syntax.Path) and isinstance(other, syntax.Literal) and other.value is None
    )


def _comparisons(tree: syntax.Node) -> Iterator[_Comparison]:
    for node in syntax.walk(tree):
        if not (isinstance(node, syntax.Binary) and node.sign in _COMPARE):
            continue
        left, right = syntax.paths(node.left), syntax.paths(node.right)
        if bool(left) == bool(right):
            continue
        measured, threshold = (node.left, node.right) if left else (node.right, node.left)
        sign = node.sign if left else _MIRRORED[node.sign]
        yield _Comparison(expression.value(_written(measured)), sign, expression.value(_written(threshold)))


def _written(node: syntax.Node) -> str:
    """Return `node` as CEL in which a division by 0.0 is an error, as by 0: infinity is above every threshold."""
    parts = [f"({_written(child)})" for child in syntax.children(node)]
    match node:
        case syntax.Literal(text=text) | syntax.Path(name=text):
            written = text
        case syntax.Unary(sign=sign):
            written = sign + parts[0]
        case syntax.Binary(sign="/"):
            written = f"{parts[0]} / ({parts[1]} == 0 ? double(1 / 0) : {parts[1]})"
        case syntax.Binary(sign=sign):
            written = f"{parts[0]} {sign} {parts[1]}"
        case syntax.Choice():
            written = f"{parts[0]} ? {parts[1]} : {parts[2]}"
        case syntax.Call(function=name, method=True):
            written = f"{parts[0]}.{name}({', '.join(parts[1:])})"
        case syntax.Call(function=name):
            written = f"{name}({', '.join(parts)})"
        case syntax.Listed():
            written = f"[{', '.join(parts)}]"
    return written
