"""Filters: CEL expressions over events, evaluated in bounded time.

The CEL evaluator cannot be interrupted. So the work is estimated before each evaluation, and one that may take long
runs in a separate process (`evaluator.py`).
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from infertool.errors import UsageError
from infertool.filters.evaluator import Evaluator, TooLongError
from infertool.text.input import did_you_mean
from infertool.text.sanitize import clean

if TYPE_CHECKING:
    import cel


_RESERVED = frozenset({"payload", "headers", "topic", "event"})
_FUNCTIONS = frozenset(
    {
        "bytes",
        "contains",
        "double",
        "duration",
        "dyn",
        "endsWith",
        "getDate",
        "getDayOfMonth",
        "getDayOfWeek",
        "getDayOfYear",
        "getFullYear",
        "getHours",
        "getMilliseconds",
        "getMinutes",
        "getMonth",
        "getSeconds",
        "int",
        "matches",
        "size",
        "startsWith",
        "string",
        "timestamp",
        "type",
        "uint",
    }
)
# The evaluator is recursive Rust code: a stack overflow ends the process. With stacks of 2 MiB it handles more than
# twice these limits (measured).
_LONGEST_EXPRESSION = 2_000
_SHOWN = 60
_LARGEST = int(sys.float_info.max)
_DEEPEST = 100
_CONTAINERS = (dict, list)

# For slow evaluations: one process for all expressions, started at its first use.
_SLOW_EVALUATOR = Evaluator()

_NOT_EVALUATED = (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError)

_SYNTAX_ERROR = re.compile(r"ERROR: <input>:(\d+):(\d+): (?:Syntax error: )?(.*?)(?: expecting .*)?$", re.MULTILINE)
_REGEX = re.compile(r"""\bmatches\(\s*(r?"[^"]*"|r?'[^']*')\s*\)""")


class FilterError(UsageError):
    """The expression cannot be used as a filter. `line` and `column` count from 1; the text points at the character."""

    def __init__(
        self,
        reason: str,
        *,
        expression: str,
        line: int = 1,
        column: int = 1,
        advice: str = "",
        subject: str = "this filter",
    ) -> None:
        super().__init__(f"{subject} cannot work: {reason}", advice=advice)
        self.reason = reason
        self.expression = expression
        self.line = line
        self.column = column

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def lines(self) -> list[str]:
        """Return the reason, the expression's line, and a `^` under the character."""
        from infertool.text.sanitize import widest  # noqa: PLC0415 - needed in errors only

        text = self.expression.split("\n")[self.line - 1].replace("\t", " ")
        return [super().__str__(), f"  {text}", f"  {' ' * widest([clean(text[: self.column - 1])])}^"]


class NotEvaluatedError(FilterError):
    """The evaluation on an event takes too long, so it is unknown whether the event matches."""


@dataclass(frozen=True, slots=True)
class Filter:
    """A compiled expression. Thread-safe.

    An evaluation takes at most 2 s of processor time, for any expression and event.
    """

    expression: str
    _program: cel.Program = field(repr=False)
    _fields: tuple[str, ...] = field(repr=False)
    _reserved: tuple[str, ...] = field(repr=False)
    _loops: int = field(repr=False)

    def matches(
        self,
        payload: Any,
        *,
        headers: Mapping[str, str] | None = None,
        topic: str | None = None,
        event: str | None = None,
    ) -> bool:
        """Return True if the event matches. A name beside the payload that is None is that of a field in it.

        Raises `FilterError` if the result is not a bool, `NotEvaluatedError` if it takes too long.
        """
        known = payload if isinstance(payload, dict) else {}
        # Only named fields are passed: converting a whole event costs ten times an evaluation.
        names = {name: known[name] for name in self._fields if name in known}
        if self._reserved:
            given = {"headers": headers and dict(headers), "topic": topic, "event": event}
            beside = {"payload": payload} | {name: value for name, value in given.items() if value is not None}
            for name in self._reserved:
                if name in beside or name in known:
                    names[name] = beside[name] if name in beside else known[name]
        if any(isinstance(value, _CONTAINERS) and _too_deep(value) for value in names.values()):
            return False
        try:
            return self._decide(names)
        except _NOT_EVALUATED:
            return False

    @property
    def names(self) -> tuple[str, ...]:
        """The top-level names in the expression."""
        return self._fields + self._reserved

    def evaluate(self, payload: Mapping[str, Any]) -> bool:
        """Return True if our own document matches. Raises `FilterError`, also if an operator does not fit a value."""
        try:
            return self._decide({name: payload[name] for name in self._fields if name in payload})
        except _NOT_EVALUATED as error:
            raise FilterError(str(error).partition(".")[0], expression=self.expression) from None

    def number(self, payload: Mapping[str, Any]) -> float | None:
        """Return the result on our own document if it is a number, else None. For expressions without loops."""
        try:
            result = self._program.execute({name: payload[name] for name in self._fields if name in payload})
        except _NOT_EVALUATED:
            return None
        return result if isinstance(result, int | float) and not isinstance(result, bool) else None

    def _decide(self, names: dict[str, Any]) -> bool:
        if is_small(self._loops, self.expression, names):
            try:
                result = self._program.execute(names)
            except OverflowError:
                result = self._program.execute(_as_floats(names))
            return _truth(result if isinstance(result, bool) else type(result).__name__, self.expression)
        try:
            return _truth(_SLOW_EVALUATOR.execute(self.expression, _as_floats(names)), self.expression)
        except TooLongError as error:
            raise NotEvaluatedError(str(error), expression=self.expression) from None


def compile(expression: str) -> Filter:  # noqa: A001 - expression.compile reads like re.compile
    """Compile `expression` into a filter. Raises `FilterError`."""
    import cel  # noqa: PLC0415 - takes 0.25 s, and most commands filter nothing

    if len(expression) > _LONGEST_EXPRESSION:
        raise FilterError(f"it is longer than {_LONGEST_EXPRESSION} characters", expression=expression[:_SHOWN] + "...")
    try:
        program = cel.compile(expression)
    except ValueError as error:
        raise _syntax_error(expression, str(error)) from None
    _check_functions(expression, program.functions())
    _check_regexes(expression)
    variables = frozenset(program.variables())
    if not variables:
        _check_constant(expression, program)
    fields, reserved = tuple(sorted(variables - _RESERVED)), tuple(sorted(variables & _RESERVED))
    return Filter(expression, program, fields, reserved, macros(expression))


def value(expression: str) -> Filter:
    """Compile a part of an accepted expression, for `Filter.number`. Raises `FilterError`."""
    import cel  # noqa: PLC0415 - loaded by the caller

    if len(expression) > _LONGEST_EXPRESSION:
        raise FilterError(f"it is longer than {_LONGEST_EXPRESSION} characters", expression=expression[:_SHOWN] + "...")
    program = cel.compile(expression)
    return Filter(expression, program, tuple(sorted(program.variables())), (), 0)


def _truth(result: object, expression: str) -> bool:
    if isinstance(result, bool):
        return result
    reason = f"its result is not true or false, but of type {result}"
    raise FilterError(reason, expression=expression, advice="compare it with something")


def _as_floats(value: Any) -> Any:
    """Return `value` with infinite floats in place of integers past any float, which the evaluator cannot hold."""
    match value:
        case dict():
            return {key: _as_floats(each) for key, each in value.items()}
        case list():
            return [_as_floats(each) for each in value]
        case int() if abs(value) > _LARGEST:
            return math.copysign(math.inf, value)
    return value


def _too_deep(value: object) -> bool:
    level = [value]
    for _ in range(_DEEPEST):
        level = [child for parent in level for child in _children(parent) if isinstance(child, _CONTAINERS)]
        if not level:
            return False
    return True


def _children(value: object) -> Iterable[object]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _syntax_error(expression: str, text: str) -> FilterError:
    match = _SYNTAX_ERROR.search(text)
    if match is None:
        return FilterError(text, expression=expression)
    reason = match[3].replace(" at '<EOF>'", " at its end")
    if "'<EOF>'" in reason:
        reason = "something is missing at its end"
    elif "Recursion limit" in reason:
        reason = "it is nested too deep"
    return FilterError(reason, expression=expression, line=int(match[1]), column=int(match[2]))


def _check_functions(expression: str, names: Iterable[str]) -> None:
    for name in names:
        if name.isidentifier() and name not in _FUNCTIONS:
            advice = did_you_mean(name, _FUNCTIONS) or f"known: {', '.join(sorted(_FUNCTIONS))}"
            match = re.search(rf"\b{name}\s*\(", expression)
            raise at(match.start() if match else 0, f"there is no function {name}", expression, advice)


def _check_regexes(expression: str) -> None:
    import cel  # noqa: PLC0415 - loaded by the caller

    for match in _REGEX.finditer(expression):
        try:
            cel.evaluate(f"''.matches({match[1]})")
        except RuntimeError:
            raise at(match.start(1), f"{match[1]} is no regular expression", expression) from None


def _check_constant(expression: str, program: cel.Program) -> None:
    try:
        result = program.execute({})
    except _NOT_EVALUATED as error:
        raise FilterError(str(error).partition(".")[0], expression=expression) from None
    _truth(result if isinstance(result, bool) else type(result).__name__, expression)


def at(position: int, reason: str, expression: str, advice: str = "") -> FilterError:
    """Return the error that points at the character at `position`, from 0."""
    before = expression[:position].split("\n")
    return FilterError(reason, expression=expression, line=len(before), column=len(before[-1]) + 1, advice=advice)


_STRINGS: Final = re.compile(r'''r?"""(?:.|\n)*?"""|r?"(?:[^"\\]|\\.)*"|r?'(?:[^'\\]|\\.)*\'''')
_MACROS: Final = re.compile(r"\.\s*(?:all|exists|exists_one|map|filter)\s*\(")
# Characters of a string that count as one value, since strings are copied as well.
_CHUNK: Final = 256
# This many steps take half a second if each copies a long list.
_MOST_STEPS: Final = 1_000_000


def macros(expression: str) -> int:
    """Return the number of loops (`all`, `exists`, `map`, ...) in `expression`."""
    return len(_MACROS.findall(_STRINGS.sub("''", expression)))


def is_small(loops: int, expression: str, names: Mapping[str, Any]) -> bool:
    """Return True if an evaluation is certain to be short.

    The estimate assumes the worst case: all loops are nested, and each iteration visits every value.
    """
    if not loops:
        return True
    most = int(_MOST_STEPS ** (1 / (loops + 1)))
    written = expression.count(",") + 1
    return _count(names, most - written) + written <= most


def _count(value: object, most: int) -> int:
    """Return the number of values in `value`, or any number above `most`."""
    count = 0
    waiting = [value]
    while waiting and count <= most:
        each = waiting.pop()
        count += 1
        if isinstance(each, str):
            count += len(each) // _CHUNK
        elif isinstance(each, Mapping):
            waiting += each.values()
        elif isinstance(each, list):
            waiting += each[: max(most, 0) + 1]
    return count
