"""`Fields`: an answer for each field of a chat prompt."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from promptgrad._patterns import late_pattern

_ASKED = late_pattern(r"^\[\[ ## (\w+) ## \]\]\n\{([^}\n]*)", re.MULTILINE)
_GIVEN = late_pattern(r"^\[\[ ## (\w+) ## \]\]\n", re.MULTILINE)
_KINDS = {"a number": "7", "a whole number": "7", "true or false": "true"}


class Fields:
    """Answer the prompts of the chat adapter field by field; for `LoopbackLM(respond=...)` and `lm.FunctionLM`.

    It reads the requested fields from the prompt, so one object serves a program with its critics and proposers:

        LoopbackLM(Fields(answer=lambda inputs: inputs["question"].upper(), critique="Say less."))

    Args:
        default: The answer for a text field that is not in `values`. A number is 7, a truth value true, a list empty,
            and a choice the first of its options. A critic of whole runs says `critique` of every text.
        values: The answer for each field: a text, or a function of the inputs of the prompt, by name.
    """

    def __init__(self, default: str = "ok", /, **values: str | Callable[[Mapping[str, str]], str]) -> None:
        self.default = default
        self.values = values

    def __call__(self, messages: Sequence[Any]) -> str:
        """Answer the messages.

        Raises:
            ValueError: The prompt has no output fields, as one of another adapter.
        """
        asked = asked_of(messages)
        if not asked:
            raise ValueError("Fields answers prompts of the chat adapter, and this one asks for no fields")
        inputs = inputs_of(messages[-1])
        sections = [f"[[ ## {name} ## ]]\n{self._answer(name, kind, inputs)}" for name, kind in asked]
        return "\n\n".join([*sections, "[[ ## completed ## ]]"])

    def _answer(self, name: str, kind: str, inputs: Mapping[str, str]) -> str:
        value = self.values.get(name)
        if value is not None:
            return value(inputs) if callable(value) else value
        if name == "findings" and "runs" in inputs:
            return self._findings(inputs)
        return default_answer(kind, self.default)

    def _findings(self, inputs: Mapping[str, str]) -> str:
        """The answer of a critic of whole runs, made of what a critic of one call says: `critique`, of every text."""
        said = self.values.get("critique", self.default)
        texts = [name for name, text in _json(inputs["parameters"]).items() if isinstance(text, str)]
        runs = [run["run"] for run in _json(inputs["runs"]) if run["result"] == "wrong"]
        text = said(inputs) if callable(said) else said
        found = [{"runs": runs, "parameter": name, "critique": text, "to_blame": True} for name in texts]
        return json.dumps(found if text else [])


def _json(text: str) -> Any:
    """The JSON at the beginning of a text; labels of images may follow."""
    return json.JSONDecoder().raw_decode(text.lstrip())[0]


def asked_of(messages: Sequence[Any]) -> list[tuple[str, str]]:
    """The output fields of a prompt, each with the description of its type; empty for another adapter's prompt."""
    return _ASKED.findall(text_of(messages[0]))


def inputs_of(message: Any) -> dict[str, str]:
    """The values by field that one message of a prompt holds."""
    parts = _GIVEN.split(text_of(message).rsplit("\n\nReply in the format above", 1)[0])
    found = {name: body.strip("\n") for name, body in zip(parts[1::2], parts[2::2], strict=True)}
    found.pop("completed", None)
    return found


def default_answer(kind: str, default: str) -> str:
    """An answer for a field of this type: `default` for a text."""
    if kind.startswith("one of `"):
        return kind.split("`")[1]
    if kind.startswith("JSON of the type list"):
        return "[]"
    return _KINDS.get(re.split("[;,]", kind)[0], default)


def text_of(message: Any) -> str:
    """The texts of a message, which may stand among images and other parts."""
    content = message["content"]
    if content is None or isinstance(content, str):
        return str(content)
    texts = [part.get("text") if isinstance(part, Mapping) else getattr(part, "text", "") for part in content]
    return "".join(filter(None, texts))
