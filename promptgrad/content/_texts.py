"""Texts with a meaning of their own: `Code` in a language, and the `Reasoning` of a model."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args, get_origin

from promptgrad._patterns import late_pattern

_OPENS = late_pattern(r"[ \t]*(`{3,}|~{3,})[ \t]*([\w+#.-]*)")
_NESTS = frozenset({"markdown", "md"})


@dataclass(frozen=True, slots=True)
class Language:
    """That a text is code, and in which language: `Annotated[str, Language("python")]` is `Code["python"]`.

    Args:
        name: The language, such as `python`; empty for any.
    """

    name: str = ""

    def unwrap(self, text: str) -> str:
        """The code in a text: the inside of the only code fence in it, else the text as it is.

        A fence of another language than the asked one does not count where one of this language is there.

        Raises:
            ValueError: There are several, so that one would have to be guessed.
        """
        if "```" not in text and "~~~" not in text:
            return text
        found = list(_blocks(text))
        if self.name.lower() in _NESTS:  # fences are a part of it, except for one around the whole
            found = [one for one in found if text.strip() == text[one[2][0] : one[2][1]].strip() and one[0] in _NESTS]
        named = [one for one in found if one[0] and one[0] == self.name.lower()]
        found = named or found
        if len(found) > 1:
            raise ValueError(f"it holds {len(found)} blocks of code: give one, without a fence")
        return found[0][1].removesuffix("\n") if found else text


def _blocks(text: str) -> Iterator[tuple[str, str, tuple[int, int]]]:
    """The language, the code and the place of each block in fences. Read line by line, in linear time."""
    lines = text.split("\n")
    closed: list[dict[str, int]] = [{}]  # by line: the longest fence from there on that closes one, for each sign
    for line in reversed(lines):
        bare = line.strip(" \t")
        size = 0 if bare.strip("`~") else len(bare) - len(bare.lstrip(bare[:1]))
        closed.append(closed[-1] if size < 3 else {**closed[-1], bare[0]: max(size, closed[-1].get(bare[0], 0))})
    closed.reverse()
    at, begun, opens = 0, 0, None
    for number, line in enumerate(lines):
        if opens is None:
            found = _OPENS.match(line)
            if found and "`" not in line[found.end() :] and closed[number + 1].get(found[1][0], 0) >= len(found[1]):
                opens, begun = found, at
        elif (bare := line.strip(" \t")).startswith(opens[1]) and not bare.strip("`~"):
            yield opens[2].lower(), text[text.index("\n", begun) + 1 : at], (begun, at + len(line))
            opens = None
        at += len(line) + 1


@dataclass(frozen=True, slots=True)
class Thinking:
    """That a text is the reasoning of the model: `Annotated[str, Thinking()]` is `Reasoning`."""


class Code:
    """The type of a text that is code: `Code["python"]`, or `Code` alone for any language.

    The value is a `str`. The language is told to the model, and a code fence around its reply is taken off; several
    blocks of code are asked for again.

        class Write(pg.Signature):
            task: str = pg.Input()
            program: pg.Code["python"] = pg.Output()

    mypy takes the name of a language for a type: write `Annotated[str, pg.content.Language("python")]` where it runs.

    Raises:
        TypeError: The language is no name; or `Code` was called: its values are texts.
    """

    __text__ = Annotated[str, Language()]

    def __class_getitem__(cls, language: Any) -> Any:
        if get_origin(language) is Literal:
            (language,) = get_args(language)
        if not isinstance(language, str) or not re.fullmatch(r"[\w+#. -]{1,40}", language):
            raise TypeError(f"Code takes the name of a language, such as Code['python'], not {language!r}")
        return Annotated[str, Language(language)]

    def __init__(self) -> None:
        raise TypeError("Code is the type of a field; its values are texts: write Code['python'] in a signature")


Reasoning = Annotated[str, Thinking()]
"""The type of an output that is the model's reasoning: the thoughts that its provider shows, else a field it writes."""


def language_of(annotation: Any) -> Language | None:
    """The language of a type of code; None for any other type."""
    found: Language | None = _mark(annotation, Language)
    return found


def is_reasoning(annotation: Any) -> bool:
    """Whether a type is `Reasoning`."""
    return _mark(annotation, Thinking) is not None


def _mark(annotation: Any, kind: type) -> Any:
    if get_origin(annotation) is not Annotated or get_args(annotation)[0] is not str:
        return None
    return next((mark for mark in get_args(annotation)[1:] if isinstance(mark, kind)), None)
