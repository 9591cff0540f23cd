"""JMS selectors: the commonly used subset. Any other syntax is an error.

Supported: `=  <>  <  >  <=  >=`, `[NOT] IN`, `[NOT] LIKE`, `[NOT] BETWEEN`, `IS [NOT] NULL`, `AND`, `OR`, `NOT (...)`,
parentheses; a name on the left, constants on the right. Not supported: arithmetic, ESCAPE, XPATH, and `NOT name = ...`,
which ActiveMQ evaluates in an unexpected way.
Source: JMS 1.1, 3.8.1, with ActiveMQ's conversion of STOMP's strings (measured).
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable

from infertool.embedded.broker.messages import StoredMessage

Constant = int | float | str | bool
Selector = Callable[[StoredMessage], bool]
_Read = Callable[[StoredMessage], Constant | None]

_TOKEN = re.compile(
    r"\s*(?:(?P<number>-?\d+(?:\.\d+)?)|(?P<string>'(?:[^']|'')*')|(?P<word>[A-Za-z_$][\w$]*)"
    r"|(?P<sign><>|<=|>=|[=<>(),]))"
)
_KEYWORDS = frozenset({"AND", "OR", "NOT", "IN", "LIKE", "BETWEEN", "IS", "NULL", "TRUE", "FALSE", "ESCAPE"})
_COMPARE: dict[str, Callable[[Constant, Constant], bool]] = {
    "=": operator.eq,
    "<>": operator.ne,
    "<": operator.lt,
    ">": operator.gt,
    "<=": operator.le,
    ">=": operator.ge,
}
_JMS_NAMES: dict[str, _Read] = {
    "JMSXDeliveryCount": lambda message: message.returns + 1,
    "JMSRedelivered": lambda message: message.returns > 0,
    "JMSPriority": lambda message: message.priority,
    "JMSDeliveryMode": lambda message: "PERSISTENT" if message.persistent else "NON_PERSISTENT",
    "JMSExpiration": lambda message: message.expires,
    "JMSTimestamp": lambda message: int(message.headers["timestamp"]),
    "JMSMessageID": lambda message: message.id,
    "JMSType": lambda message: message.headers.get("type"),
    "JMSCorrelationID": lambda message: message.headers.get("correlation-id"),
}


class SelectorError(Exception):
    """The selector cannot be parsed."""


def compile_selector(text: str) -> Selector:
    """Compile a selector. Raises `SelectorError`."""
    parser = _Parser(text)
    try:
        selector = parser.disjunction()
    except RecursionError:
        raise SelectorError("too many parentheses") from None
    parser.end()
    return selector


class _Parser:
    """A recursive descent parser, from the loosest binding (OR) to the tightest."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = self._tokenize(text.strip())
        self._position = 0

    def _tokenize(self, text: str) -> list[tuple[str, str]]:
        tokens, position = [], 0
        while position < len(text):
            match = _TOKEN.match(text, position)
            if match is None or match.lastgroup is None:
                raise SelectorError(self._text)
            kind, token = match.lastgroup, match[match.lastgroup]
            if kind == "word" and token.upper() in _KEYWORDS:
                kind, token = "keyword", token.upper()
            tokens.append((kind, token))
            position = match.end()
        return [*tokens, ("end", "")]

    def _take(self, *wanted: str) -> str | None:
        """Consume and return the next token if it is one of these keywords or signs; else return None."""
        kind, token = self._tokens[self._position]
        if kind in ("keyword", "sign") and token in wanted:
            self._position += 1
            return token
        return None

    def _expect(self, wanted: str) -> None:
        if self._take(wanted) is None:
            raise SelectorError(self._text)

    def _next(self, kind: str) -> str:
        found, token = self._tokens[self._position]
        if found != kind:
            raise SelectorError(self._text)
        self._position += 1
        return token

    def end(self) -> None:
        self._next("end")

    def disjunction(self) -> Selector:
        parts = [self._conjunction()]
        while self._take("OR"):
            parts.append(self._conjunction())
        return parts[0] if len(parts) == 1 else lambda message: any(part(message) for part in parts)

    def _conjunction(self) -> Selector:
        parts = [self._condition()]
        while self._take("AND"):
            parts.append(self._condition())
        return parts[0] if len(parts) == 1 else lambda message: all(part(message) for part in parts)

    def _condition(self) -> Selector:
        if self._take("NOT"):
            self._expect("(")
            return _negated(self._rest_of_group())
        if self._take("("):
            return self._rest_of_group()
        return self._predicate(_reader(self._next("word")))

    def _rest_of_group(self) -> Selector:
        inner = self.disjunction()
        self._expect(")")
        return inner

    def _predicate(self, read: _Read) -> Selector:
        if self._take("IS"):
            is_null = self._take("NOT") is None
            self._expect("NULL")
            return lambda message: (read(message) is None) == is_null
        sign = self._take(*_COMPARE)
        if sign:
            return self._comparison(read, sign)
        wanted = self._take("NOT") is None
        test = self._membership()
        # A message without the header matches neither the test nor its negation.
        return lambda message: (value := read(message)) is not None and test(value) == wanted

    def _comparison(self, read: _Read, sign: str) -> Selector:
        constant = self._constant()
        if isinstance(constant, (str, bool)) and sign not in ("=", "<>"):
            raise SelectorError(self._text)
        return _comparing(read, sign, constant)

    def _membership(self) -> Callable[[Constant], bool]:
        if self._take("IN"):
            options = self._list()
            return lambda value: str(value) in options
        if self._take("LIKE"):
            like = _like(self._string())
            return lambda value: like(str(value))
        self._expect("BETWEEN")
        low = self._number()
        self._expect("AND")
        high = self._number()
        return lambda value: _compare(value, ">=", low) and _compare(value, "<=", high)

    def _list(self) -> frozenset[str]:
        self._expect("(")
        options = {self._string()}
        while self._take(","):
            options.add(self._string())
        self._expect(")")
        return frozenset(options)

    def _string(self) -> str:
        return self._next("string")[1:-1].replace("''", "'")

    def _constant(self) -> Constant:
        word = self._take("TRUE", "FALSE")
        if word:
            return word == "TRUE"
        if self._tokens[self._position][0] == "string":
            return self._string()
        return self._number()

    def _number(self) -> float:
        number = self._next("number")
        return float(number) if "." in number else int(number)


def _reader(name: str) -> _Read:
    return _JMS_NAMES.get(name) or (lambda message: message.headers.get(name))


def _negated(inner: Selector) -> Selector:
    return lambda message: not inner(message)


def _like(pattern: str) -> Callable[[str], bool]:
    """Return a test for a LIKE pattern. It avoids a regex with `.*` for each `%`, whose time may be exponential."""
    pieces = pattern.split("%")
    first, *between = [
        re.compile("".join("." if letter == "_" else re.escape(letter) for letter in piece), re.DOTALL)
        for piece in pieces
    ]
    if not between:
        return lambda text: first.fullmatch(text) is not None
    last = between.pop()

    def like(text: str) -> bool:
        at, end = len(pieces[0]), len(text) - len(pieces[-1])
        if at > end or not first.match(text) or not last.match(text, end):
            return False
        for each in between:
            found = each.search(text, at, end)
            if found is None:
                return False
            at = found.end()
        return True

    return like


def _comparing(read: _Read, sign: str, constant: Constant) -> Selector:
    def selector(message: StoredMessage) -> bool:
        value = read(message)
        return value is not None and _compare(value, sign, constant)

    return selector


def _compare(value: Constant, sign: str, constant: Constant) -> bool:
    """Compare after converting a header's text to the constant's type. Text that cannot be converted is unequal."""
    try:
        converted = _converted(value, type(constant))
    except ValueError:
        return sign == "<>"
    return _COMPARE[sign](converted, constant)


def _converted(value: Constant, kind: type) -> Constant:
    if not isinstance(value, str) or kind is str:
        return value
    if kind is bool:
        return value.lower() == "true"
    number: Constant = kind(value)
    return number
