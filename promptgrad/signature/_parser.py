"""Reading a signature written as text: `"question, context: list[str] -> answer: float"`.

```
signature = fields "->" fields
fields    = field ("," field)* [","]
field     = NAME [":" type]
type      = primary ("|" primary)*
primary   = "None" | "(" type ")" | NAME ["[" arguments "]"] | "Literal" "[" literal ("," literal)* "]"
```

Nothing is evaluated or imported: a name is looked up in `types=`, then among the builtin types, then in fixed lists
from `typing` and of our own (`Image`, `File`, ...). So a signature that comes from a file or a language model is as
harmless as any other text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple, NoReturn, Optional, Union

from promptgrad._patterns import late_pattern
from promptgrad.errors import SignatureError
from promptgrad.signature._field import Field, Role, check_name, suggest
from promptgrad.signature._types import ARITY, BUILTIN_TYPES, CONTENT_TYPES, TYPING_NAMES

_TOKEN = late_pattern(
    r"""(?P<blank>\s+)
    |(?P<arrow>->)
    |(?P<dots>\.\.\.)
    |(?P<name>[^\W\d]\w*(?:\.[^\W\d]\w*)*)
    |(?P<number>-?\d+)(?![\w.])
    |(?P<string>'(?:[^'\\\n]|\\.)*'|"(?:[^"\\\n]|\\.)*")
    |(?P<mark>[\[\],:|()=])""",
    re.VERBOSE,
)
_CONSTANTS: Mapping[str, Any] = {"None": None, "True": True, "False": False}
_BARE: Mapping[Any, Any] = {
    TYPING_NAMES[name]: BUILTIN_TYPES[name.lower()] for name in ("List", "Dict", "Set", "Tuple")
}
_MAX_DEPTH = 40


class _Token(NamedTuple):
    kind: str
    text: str
    start: int


class _Parser:
    def __init__(self, text: str, types: Mapping[str, Any]) -> None:
        self.text = text
        self.types = types
        self.tokens: list[_Token] = []
        self.next = 0
        self.depth = 0
        position = 0
        while position < len(text):
            match = _TOKEN.match(text, position)
            if match is None:
                self.fail(_stray(text, position), _Token("", text[position], position))
            if match.lastgroup != "blank":
                self.tokens.append(_Token(str(match.lastgroup), match.group(), position))
            position = match.end()
        self.tokens.append(_Token("end", "", len(text)))

    def fail(self, problem: str, token: _Token | None = None, fix: str = "") -> NoReturn:
        token = token or self.tokens[self.next]
        before = self.text[: token.start]
        line = self.text.split("\n")[before.count("\n")]
        column = token.start - (before.rfind("\n") + 1)
        pointer = " " * column + "^" * max(1, len(token.text))
        shown = f" (column {column + 1})\n  {line}\n  {pointer}" if line else ""
        hint = f"\n{fix}" if fix else ""
        raise SignatureError(f"cannot read the signature: {problem}{shown}{hint}")

    @property
    def token(self) -> _Token:
        return self.tokens[self.next]

    def take(self, text: str) -> bool:
        if self.token.text == text and self.token.kind in ("mark", "arrow", "dots"):
            self.next += 1
            return True
        return False

    def expect(self, text: str, why: str) -> None:
        if not self.take(text):
            got = repr(self.token.text) if self.token.text else "the end"
            self.fail(f"expected {text!r} {why}, got {got}")

    def signature(self) -> list[Field]:
        example = "Write it as 'question, context: list[str] -> answer: float'."
        if self.token.kind == "end":
            self.fail("it is empty", fix=example)
        if not any(token.kind == "arrow" for token in self.tokens):
            self.fail("there is no '->' between inputs and outputs", self.tokens[-1], example)
        inputs = self.fields("input", "arrow")
        self.expect("->", "between inputs and outputs")
        outputs = self.fields("output", "end")
        if not outputs:
            self.fail("there is no output field after '->'", fix=example)
        fields = inputs + outputs
        seen: dict[str, _Token] = {}
        for field, token in fields:
            if field.name in seen:
                self.fail(
                    f"the field {field.name!r} appears twice",
                    token,
                    "Each name may be used once, inputs and outputs together.",
                )
            seen[field.name] = token
        return [field for field, _ in fields]

    def fields(self, role: Role, end: str) -> list[tuple[Field, _Token]]:
        found: list[tuple[Field, _Token]] = []
        while self.token.kind != end:
            token = self.token
            if token.kind != "name":
                what = "a second '->'" if token.kind == "arrow" else repr(token.text) if token.text else "the end"
                self.fail(f"expected a field name, got {what}", token)
            if "." in token.text:
                self.fail(f"a field name has no dots: {token.text!r}", token)
            problem = check_name(token.text)
            if problem:
                self.fail(problem, token)
            self.next += 1
            annotation: Any = self.type() if self.take(":") else str
            if self.token.text == "=":
                self.fail(
                    "a field has no default",
                    fix=f"Give an optional field the type `{token.text}: str | None` and pass None.",
                )
            found.append((Field(token.text, annotation, role=role), token))
            if not self.take(",") and self.token.kind != end:
                if self.token.kind == "arrow":
                    self.fail("a second '->'", fix="There is one '->' between the inputs and the outputs.")
                got = repr(self.token.text) if self.token.text else "the end"
                self.fail(f"expected ',' or {'->' if end == 'arrow' else 'the end'!r} after {token.text!r}, got {got}")
        return found

    def type(self) -> Any:
        self.depth += 1
        if self.depth > _MAX_DEPTH:
            self.fail(f"types are nested more than {_MAX_DEPTH} deep")
        members = [self.primary()]
        while self.take("|"):
            members.append(self.primary())
        self.depth -= 1
        return members[0] if len(members) == 1 else Union[tuple(members)]  # noqa: UP007

    def primary(self) -> Any:
        token = self.token
        if self.take("("):
            inner = self.type()
            self.expect(")", "to close '('")
            return inner
        if token.kind != "name":
            got = repr(token.text) if token.text else "the end"
            self.fail(f"expected a type, got {got}", token)
        self.next += 1
        if token.text == "None":
            return type(None)
        base = self.lookup(token)
        if self.token.text != "[":
            if any(base is generic for generic in (Literal, Optional, Union)):
                self.fail(f"{token.text} needs arguments", token, f"Write {token.text}[...].")
            return base
        self.next += 1
        if hasattr(base, "__text__"):  # Code["python"], the name of a language
            return base[self.arguments(self.literal)[0]]
        if base is Literal:
            return Literal[tuple(self.arguments(self.literal))]
        arguments = self.arguments(lambda: ... if self.take("...") else self.type())
        if ... in arguments and not (base in (tuple, TYPING_NAMES["Tuple"]) and arguments[1:] == [...]):
            self.fail("'...' has a meaning only in tuple[X, ...]", token)
        wanted = ARITY.get(base, None) if _hashable(base) else None
        if wanted is not None and len(arguments) != wanted:
            self.fail(f"{token.text} takes {wanted} argument{'s' * (wanted > 1)}, got {len(arguments)}", token)
        try:
            return base[arguments[0] if len(arguments) == 1 else tuple(arguments)]
        except TypeError as error:
            self.fail(f"{token.text} takes no arguments in brackets ({error})", token)

    def arguments(self, read: Callable[[], Any]) -> list[Any]:
        found = [read()]
        while self.take(",") and self.token.text != "]":
            found.append(read())
        self.expect("]", "to close '['")
        return found

    def literal(self) -> Any:
        token = self.token
        self.next += 1
        if token.kind == "string":
            import ast

            return ast.literal_eval(token.text)
        if token.kind == "number":
            return int(token.text)
        if token.text in _CONSTANTS:
            return _CONSTANTS[token.text]
        if token.kind == "name":
            self.fail(f"a Literal holds values, not names: {token.text}", token, f"Quote it: Literal[{token.text!r}].")
        self.fail(
            f"a Literal holds strings, whole numbers, True, False and None, not {token.text or 'the end'!r}", token
        )

    def lookup(self, token: _Token) -> Any:
        name = token.text
        if name in self.types:
            return self.types[name]
        short = name.removeprefix("typing.")
        if short in BUILTIN_TYPES:
            return BUILTIN_TYPES[short]
        if short in TYPING_NAMES:
            found = TYPING_NAMES[short]
            return found if self.token.text == "[" else _BARE.get(found, found)
        if short.removeprefix("pg.") in CONTENT_TYPES:
            from promptgrad import content

            return getattr(content, short.removeprefix("pg."))
        if "." in name:
            last = name.rpartition(".")[2]
            fix = f"Nothing is imported or looked up by path; write {last!r} and pass types={{{last!r}: {name}}}."
        else:
            close = suggest(name, [*self.types, *BUILTIN_TYPES, *TYPING_NAMES, *CONTENT_TYPES])
            fix = f"Types come from builtins and typing; any other is passed as types={{{name!r}: {name}}}{close}"
        self.fail(f"unknown type {name!r}", token, fix)


def _stray(text: str, position: int) -> str:
    """The problem with a character that starts no token."""
    if text[position] in "'\"":
        return "a string is not closed"
    if text[position] == ">" and text[:position].endswith("="):
        return "'=>' is not an arrow: write '->'"
    if text[position].isdigit() and re.match(r"\d+[^\W\d]", text[position:]):
        return "a name cannot start with a digit"
    if text[position].isdigit():
        return "only whole numbers can stand in a signature"
    return f"{text[position]!r} has no meaning in a signature"


def _hashable(value: object) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True


def parse_fields(text: str, types: Mapping[str, Any] | None = None) -> list[Field]:
    """The fields of a signature written as text.

    Raises:
        SignatureError: The text is not a signature; the message shows the place, and what to write.
    """
    return _Parser(text, types or {}).signature()


def parse_type(text: str, types: Mapping[str, Any] | None = None) -> Any:
    """The type that a text such as `list[str] | None` names; looked up as in a signature, never evaluated.

    Raises:
        SignatureError: The text is not a type, or names an unknown one.
    """
    parser = _Parser(text, types or {})
    found = parser.type()
    if parser.token.kind != "end":
        parser.fail(f"expected the end of the type, got {parser.token.text!r}")
    return found
