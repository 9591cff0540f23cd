"""The kinds of the parts of a rule's expression, and the errors that point at the wrong one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from infertool.alerts import fields, syntax
from infertool.filters.expression import FilterError, at
from infertool.text.input import did_you_mean

_NUMBERS: Final = frozenset({"int", "double"})
_ORDERS: Final = frozenset({"<", "<=", ">", ">="})
_EQUALS: Final = frozenset({"==", "!="})
_LOOPS: Final = frozenset({"all", "exists", "exists_one", "map", "filter"})
# A division is written out with a test of its divisor, so nested ones grow.
_MOST_DIVISIONS: Final = 8
_SHOWN: Final = {
    "int": "a whole number", "double": "a number with a point", "string": "text", "bool": "true or false",
    "null": "null",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Signature:
    arguments: tuple[frozenset[str], ...]
    result: str
    method: bool = False


_TEXT: Final = frozenset({"string"})
_FUNCTIONS: Final[Mapping[str, _Signature]] = {
    "double": _Signature((_NUMBERS | _TEXT,), "double"),
    "int": _Signature((_NUMBERS | _TEXT,), "int"),
    "string": _Signature((_NUMBERS | _TEXT | {"bool"},), "string"),
    "size": _Signature((_TEXT,), "int"),
    "startsWith": _Signature((_TEXT, _TEXT), "bool", method=True),
    "endsWith": _Signature((_TEXT, _TEXT), "bool", method=True),
    "contains": _Signature((_TEXT, _TEXT), "bool", method=True),
    "matches": _Signature((_TEXT, _TEXT), "bool", method=True),
}


def check(text: str, tree: syntax.Node) -> None:
    """Raise `FilterError` at the first part that is no field, or whose kind does not fit."""
    kind = _Checker(text).kind(tree)
    if kind != "bool":
        advice = "compare it with something"
        raise at(tree.at, f"its result is not true or false, but {_SHOWN.get(kind, kind)}", text, advice)
    if not syntax.paths(tree):
        raise at(0, "it reads no field, so it never changes", text, f"fields: {_some(fields.known())}")
    divisions = [each for each in syntax.walk(tree) if isinstance(each, syntax.Binary) and each.sign in "/%"]
    if len(divisions) > _MOST_DIVISIONS:
        raise at(divisions[_MOST_DIVISIONS].at, f"it has more than {_MOST_DIVISIONS} divisions", text)


@dataclass(frozen=True, slots=True)
class _Checker:
    text: str

    def kind(self, node: syntax.Node) -> str:
        match node:
            case syntax.Literal(value=value):
                return _kind_of(value)
            case syntax.Path():
                return self._path(node)
            case syntax.Unary():
                return self._unary(node)
            case syntax.Binary():
                return self._binary(node)
            case syntax.Choice():
                return self._choice(node)
            case syntax.Call():
                return self._call(node)
        raise self._error(node.at, "a list stands only behind `in`")

    def _path(self, path: syntax.Path) -> str:
        field = fields.known().get(path.name)
        if field is not None:
            return field.kind
        members = [name for name in fields.known() if name.startswith(f"{path.name}.")]
        if members:
            raise self._error(path.at, f"{path.name} is a group of fields", f"it has {', '.join(members)}")
        advice = did_you_mean(path.name, fields.known()) or f"fields: {_some(fields.known())}"
        raise self._error(path.at, f"there is no field {path.name}", advice)

    def _unary(self, node: syntax.Unary) -> str:
        kind = self.kind(node.operand)
        if node.sign == "!":
            self._want(node.operand, kind, frozenset({"bool"}), "! takes")
        else:
            self._want(node.operand, kind, _NUMBERS, "- takes")
        return kind

    def _binary(self, node: syntax.Binary) -> str:
        left = self.kind(node.left)
        if node.sign == "in":
            return self._membership(node, left)
        right = self.kind(node.right)
        if node.sign in {"&&", "||"}:
            self._want(node.left, left, frozenset({"bool"}), f"{node.sign} takes")
            self._want(node.right, right, frozenset({"bool"}), f"{node.sign} takes")
            return "bool"
        if node.sign in _EQUALS and "null" in {left, right}:
            return self._null_test(node, left)
        if node.sign in _ORDERS | _EQUALS:
            if left == right or {left, right} == _NUMBERS:
                return "bool"
            raise self._error(node.at, f"{_SHOWN[left]} {node.sign} {_SHOWN[right]}: these cannot be compared")
        return self._arithmetic(node, left, right)

    def _arithmetic(self, node: syntax.Binary, left: str, right: str) -> str:
        if node.sign == "+" and left == right == "string":
            return "string"
        self._want(node.left, left, _NUMBERS, f"{node.sign} takes")
        self._want(node.right, right, _NUMBERS, f"{node.sign} takes")
        if left != right:
            reason = f"{_SHOWN[left]} {node.sign} {_SHOWN[right]}: CEL does not mix the two"
            raise self._error(node.at, reason, "convert one with double(...), or write 2.0 for 2")
        if node.sign == "%" and left == "double":
            raise self._error(node.at, "% takes whole numbers", "convert with int(...)")
        return left

    def _null_test(self, node: syntax.Binary, left: str) -> str:
        other = node.right if left == "null" else node.left
        if isinstance(other, syntax.Path) and fields.known()[other.name].optional:
            return "bool"
        raise self._error(node.at, "only a field that may be unknown can be compared with null")

    def _membership(self, node: syntax.Binary, left: str) -> str:
        if not isinstance(node.right, syntax.Listed):
            raise self._error(node.right.at, "behind `in` stands a list", 'write for example in ["open", "half-open"]')
        for item in node.right.items:
            kind = self.kind(item)
            if kind != left and {kind, left} != _NUMBERS:
                raise self._error(item.at, f"{_SHOWN[kind]} is never {_SHOWN[left]}")
        return "bool"

    def _choice(self, node: syntax.Choice) -> str:
        self._want(node.condition, self.kind(node.condition), frozenset({"bool"}), "before ? stands")
        yes, no = self.kind(node.yes), self.kind(node.no)
        if yes != no:
            raise self._error(node.no.at, f"one side of : is {_SHOWN[yes]}, the other {_SHOWN[no]}")
        return yes

    def _call(self, node: syntax.Call) -> str:
        signature = _FUNCTIONS.get(node.function)
        if node.function in _LOOPS:
            raise self._error(node.at, f"rules have no loops, so no {node.function}")
        if signature is None or signature.method != node.method or len(signature.arguments) != len(node.arguments):
            raise self._error(node.at, f"rules do not have this form of {node.function}")
        for argument, wanted in zip(node.arguments, signature.arguments, strict=True):
            self._want(argument, self.kind(argument), wanted, f"{node.function} takes")
        return signature.result

    def _want(self, node: syntax.Node, kind: str, wanted: frozenset[str], who: str) -> None:
        if kind not in wanted:
            names = " or ".join(_SHOWN[each] for each in sorted(wanted))
            raise self._error(node.at, f"{who} {names}, not {_SHOWN[kind]}")

    def _error(self, position: int, reason: str, advice: str = "") -> FilterError:
        return at(position, reason, self.text, advice)


def _kind_of(value: object) -> str:
    match value:
        case bool():
            return "bool"
        case int():
            return "int"
        case float():
            return "double"
        case str():
            return "string"
    return "null"


def _some(names: Mapping[str, object]) -> str:
    groups = dict.fromkeys(name.partition(".")[0] for name in names)
    return ", ".join(groups)
