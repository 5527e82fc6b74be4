"""Training records from files of JSON lines, in our forms, OpenAI's or TRL's."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from promptgrad.data import json_lines
from promptgrad.errors import DataError
from promptgrad.finetune._forms import conversations_of, preferences_of
from promptgrad.finetune._preference import Preferences
from promptgrad.finetune._sample import Collected

S = TypeVar("S")

_WEIGHTLESS = "line whose replies all have weight 0"
_BAD = "line that cannot be read"


def load_conversations(path: str | os.PathLike[str], *, skip_bad: bool = False) -> Collected:
    """Conversations from a file of JSON lines; each line is recognised by its keys.

    - `messages`: a chat, of OpenAI's fine-tuning, TRL or `Collected.save`. Each message of the assistant is a reply to
      those before it, and makes a conversation, unless its `weight` is 0. The last message is one.
    - `prompt` and `completion`, each a text or a list of messages, of TRL or `Collected.save`. A prompt that is a text
      becomes a message of the user.

    `tools`, `tool_calls` of the assistant and messages of the role `tool` are those of OpenAI's dialect; `functions`,
    its older form, is refused. Other keys are left alone. A record of no module (`path` is "") trains the local model
    of any program.

    Args:
        path: The file, in UTF-8.
        skip_bad: Count lines that cannot be read, rather than raise.

    Raises:
        DataError: A line is not JSON or has none of the forms, or there is nothing to learn. The message has the line.
        OSError: The file cannot be read.
    """
    samples, dropped = _load(path, conversations_of, skip_bad=skip_bad)
    return Collected(tuple(samples), len(samples), len(samples), 0, dropped)


def load_preferences(path: str | os.PathLike[str], *, skip_bad: bool = False) -> Preferences:
    """Preferences from a file of JSON lines; each line is recognised by its keys.

    - `prompt`, `chosen` and `rejected`, each a text or a list of messages, of TRL or `Preferences.save`; without
      `prompt`, `chosen` and `rejected` are whole chats that differ in their last message.
    - `input` with `messages`, `preferred_output` and `non_preferred_output`, of OpenAI's fine-tuning.

    Tools and calls of tools are refused: a pair holds texts.

    Args:
        path: The file, in UTF-8.
        skip_bad: Count lines that cannot be read, rather than raise.

    Raises:
        DataError: A line is not JSON or has none of the forms, or there is no line. The message has the line.
        OSError: The file cannot be read.
    """
    samples, dropped = _load(path, preferences_of, skip_bad=skip_bad)
    return Preferences(tuple(samples), len(samples), 0, 0, dropped)


def _load(
    path: str | os.PathLike[str], read: Callable[[Mapping[str, Any]], list[S]], *, skip_bad: bool
) -> tuple[list[S], dict[str, int]]:
    samples: list[S] = []
    dropped: dict[str, int] = {}

    def skip(error: DataError) -> None:
        if not skip_bad:
            raise error from None
        dropped[_BAD] = dropped.get(_BAD, 0) + 1

    for where, row in json_lines(path, on_bad=skip):
        try:
            if not isinstance(row, Mapping):
                raise DataError("it is no JSON object")
            made = read(row)
        except DataError as error:
            skip(DataError(f"{where}: {error}"))
            continue
        if not made:
            dropped[_WEIGHTLESS] = dropped.get(_WEIGHTLESS, 0) + 1
        samples += made
    if not samples:
        lost = ", ".join(f"{n} x {reason}" for reason, n in dropped.items())
        raise DataError(f"{path} has no records" + (f": {lost}" if lost else ""))
    return samples, dropped
