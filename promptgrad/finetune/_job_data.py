"""What is sent to a provider to train on: JSON lines, and what is checked before anything leaves."""

from __future__ import annotations

from collections.abc import Sequence

from promptgrad import lm
from promptgrad.errors import DataError
from promptgrad.finetune._conversation import Conversation, Preference
from promptgrad.finetune._forms import lines_of
from promptgrad.finetune._preference import Preferences
from promptgrad.finetune._sample import Collected

LEAST = 10
"""Samples that a job has at least, as OpenAI and Azure ask for."""

MAX_LENGTH = 65_536
"""Most tokens of a sample by default, those of OpenAI's current models."""

MOST_BYTES = 512 * 2**20
"""The largest file that is uploaded."""


def lines_for(
    collected: Collected | Preferences, api: lm.Api, *, max_length: int, skip_long: bool
) -> tuple[bytes, int]:
    """The records as JSON lines in OpenAI's form, and their number.

    The length of a record is estimated, as the provider's tokenizer is not here: a token for four bytes.

    Raises:
        DataError: There are too few; one is too long, no text, or holds a secret; or all are too large.
    """
    if not collected.samples:
        raise DataError(f"there is nothing to learn: {collected.nothing()}")
    made: list[str] = []
    long = 0
    samples: Sequence[Conversation | Preference] = collected.samples
    for number, (sample, line) in enumerate(zip(samples, lines_of(collected.samples, "openai"), strict=True), 1):
        if secret := api.secret_in(line):
            raise DataError(
                f"record {number} holds {secret}: a model repeats what it is trained on, so nothing was sent"
            )
        if _tokens(sample) > max_length:
            long += 1
        else:
            made.append(line)
    if long and (not skip_long or not made):
        raise DataError(
            f"{long} of {len(collected)} records are longer than {max_length} tokens, as far as can be told (a token "
            "for four bytes): show fewer demos, raise max_length= if the model allows it, or pass skip_long=True"
        )
    if len(made) < LEAST:
        raise DataError(
            f"a job needs at least {LEAST} records, and there are {len(made)}: give more examples, a teacher= that "
            "does better, a lower threshold=, or several runs n= of each example"
        )
    data = "".join(made).encode()
    if len(data) > MOST_BYTES:
        raise DataError(f"the records are {len(data) / 2**20:.0f} MiB, more than the {MOST_BYTES // 2**20} of a file")
    return data, len(made)


def _tokens(sample: Conversation | Preference) -> int:
    reply = sample.reply if isinstance(sample, Conversation) else max(sample.chosen, sample.rejected, key=len)
    texts = [message.text for message in sample.messages] + [reply]
    if isinstance(sample, Conversation):
        texts += [sample.tools] if sample.tools else []
        texts += [f"{call.name}{call.arguments}" for call in sample.calls]
    return sum(len(text.encode("utf-8", "surrogatepass")) // 4 + 1 for text in texts)
