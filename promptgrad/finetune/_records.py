"""What collected training records have in common: filters that count what they drop, and files."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from promptgrad._files import write_text
from promptgrad.errors import DataError
from promptgrad.finetune._conversation import Conversation, Preference
from promptgrad.finetune._forms import lines_of
from promptgrad.finetune._tokens import encode, too_long

if TYPE_CHECKING:
    from typing_extensions import Self

    from promptgrad import lm

S = TypeVar("S", Conversation, Preference)

DUPLICATE = "duplicate"
ELSEWHERE = "call of a module that is not on the local model"
EMPTY = "empty reply"


class Records(Generic[S]):
    """Training records, and what was left out on the way to them.

    Each filter returns new records and adds what it drops to `dropped`, under a reason that says its unit. The records
    keep their order.

    Attributes:
        samples: The records.
        dropped: How many runs, calls, pairs or lines were left out, by reason.
    """

    samples: tuple[S, ...]
    dropped: Mapping[str, int]
    _known: ClassVar[tuple[str, ...]] = ()  # reasons that the representation tells in its own words

    def filter(self, keep: Callable[[S], bool], reason: str = "filtered out") -> Self:
        """Keep the records of which `keep` is true.

        Args:
            keep: Called with each record: `lambda sample: sample.path == "solve"`.
            reason: What the others are counted under.
        """
        return self._keeping([sample for sample in self.samples if keep(sample)], reason)

    def dedup(self, key: Callable[[S], Any] | None = None) -> Self:
        """Keep the first of records that are alike.

        Args:
            key: What alike records have in common, hashable; by default module, messages and replies, so that the same
                call in several runs counts once. `lambda sample: sample.messages` keeps one record for each prompt.
        """
        first: dict[Any, S] = {}
        for sample in self.samples:
            first.setdefault((key or _content_of)(sample), sample)
        return self._keeping(list(first.values()), DUPLICATE)

    def limit(self, max_length: int, lm: lm.Local) -> Self:
        """Keep the records of at most so many tokens, prompt and longest reply together.

        `sft(..., max_length=, skip_long=True)` does the same; this is for records that are saved for another trainer.

        Args:
            max_length: Most tokens.
            lm: The local model whose tokens count.

        Raises:
            ValueError: `max_length` is below 1.
        """
        if max_length < 1:
            raise ValueError(f"max_length is a number of tokens, at least 1, not {max_length!r}")
        return self.filter(lambda sample: _length(lm, sample) <= max_length, too_long(max_length))

    def usable(self, paths: Collection[str]) -> Self:
        """Keep the records that the modules of these paths can learn from: not another module's, no empty reply.

        A record without a path comes from no module of a program, and is kept.
        """
        ours = self.filter(lambda sample: sample.path in paths or not sample.path, ELSEWHERE)
        return ours.filter(lambda sample: not _is_empty(sample), EMPTY)

    def save(self, path: str | os.PathLike[str], format: str = "") -> Path:
        """Write the records as JSON lines, for `load_conversations` or `load_preferences` or for another trainer.

        - `"chat"`: `messages`, the last one the reply. Earlier replies, those of demos, have `weight` 0. The default.
        - `"prompt-completion"`: `prompt` and `completion`, lists of messages.
        - `"preference"`: `prompt`, `chosen` and `rejected`, lists of messages. The default for preferences.
        - `"openai"`: as OpenAI's fine-tuning takes it: `messages` with weights, or `input`, `preferred_output` and
          `non_preferred_output`.
        - `"trl"`: as TRL's SFTTrainer and DPOTrainer take it: `prompt` and `completion`, of which the completion alone
          is learned, or `prompt`, `chosen` and `rejected`.

        The first three also hold module, example and score, under the key `promptgrad`, and are read back as the same
        records; the last two hold nothing but their own keys, and text alone. Calls of tools in a reply and the tools
        that a prompt declares are `tool_calls` and `tools`, as OpenAI and TRL have them, in every form. The file is
        written as a whole or not at all, for its owner alone.

        Raises:
            DataError: There is no record, or one does not fit the form.
            ValueError: There is no such form.
        """
        if not self.samples:
            raise DataError(f"there is nothing to save: {self.nothing()}")
        target = Path(path)
        write_text(target, "".join(lines_of(self.samples, format)))
        return target

    def nothing(self) -> str:
        """Why there may be no record, and what to do about it."""
        raise NotImplementedError

    def lost(self, *, known: bool = True) -> str:
        """What was left out, in words; "" if nothing was."""
        shown = {reason: n for reason, n in self.dropped.items() if n and (known or reason not in self._known)}
        return ", ".join(f"{n} x {reason}" for reason, n in shown.items())

    def dropping(self, number: int, reason: str) -> dict[str, int]:
        """What was left out, with some more of it."""
        return {**self.dropped, reason: self.dropped.get(reason, 0) + number} if number else dict(self.dropped)

    def _keeping(self, samples: list[S], reason: str) -> Self:
        lost = len(self.samples) - len(samples)
        made: Self = replace(self, samples=tuple(samples), dropped=self.dropping(lost, reason))  # type: ignore[type-var]
        return made

    def __iter__(self) -> Iterator[S]:
        return iter(self.samples)

    def __len__(self) -> int:
        return len(self.samples)


def _content_of(sample: Conversation | Preference) -> tuple[Any, ...]:
    if isinstance(sample, Conversation):
        return (sample.path, sample.messages, sample.reply, sample.calls, sample.tools)
    return (sample.path, sample.messages, sample.chosen, sample.rejected)


def _is_empty(sample: Conversation | Preference) -> bool:
    if isinstance(sample, Conversation):
        return not (sample.reply.strip() or sample.calls)
    return not sample.chosen.strip()


def _length(local: lm.Local, sample: Conversation | Preference) -> int:
    if isinstance(sample, Conversation):
        return len(encode(local, sample).ids)
    both = (Conversation(sample.messages, reply) for reply in (sample.chosen, sample.rejected))
    return max(len(encode(local, one).ids) for one in both)
