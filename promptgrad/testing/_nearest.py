"""`Nearest`: a language model that knows only the examples in its prompt."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from promptgrad.testing._fields import Fields, inputs_of, text_of


class Nearest:
    """Answer as the example in the prompt does whose words are the most like those of the question.

    For `LoopbackLM(respond=...)` and `lm.FunctionLM`, where a test or a tutorial needs a language model that better
    examples make better, and that really computes. It reads prompts of the chat adapter; one without examples is
    answered as `Fields` does.

    Args:
        fields: What answers a prompt without examples.
    """

    def __init__(self, fields: Fields | None = None) -> None:
        self.fields = fields or Fields()

    def __call__(self, messages: Sequence[Any]) -> str:
        """Answer the messages."""
        asked = _words(messages[-1])
        best, answer = 0.0, ""
        for shown, reply in pairwise(messages):
            if shown["role"] == "user" and reply["role"] == "assistant":
                words = _words(shown)
                alike = len(asked & words) / max(1, len(asked | words))
                if alike > best or not answer:
                    best, answer = alike, text_of(reply)
        return answer or self.fields(messages)


def _words(message: Any) -> set[str]:
    return set(re.findall(r"\w+", " ".join(inputs_of(message).values()).lower()))
