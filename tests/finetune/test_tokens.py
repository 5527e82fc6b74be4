"""Samples in tokens: the prompt as the model reads it, the reply with the end of its turn, nothing after it."""

from __future__ import annotations

import copy

import pytest

from promptgrad import lm, nn
from promptgrad.data import Example, pocket
from promptgrad.errors import DataError
from promptgrad.finetune import Conversation, labeled
from promptgrad.finetune._tokens import encode, fitting

SAMPLE = Conversation(
    (lm.Message("system", "do the task"), lm.Message("user", "[[text]] cat wolf [[answer]]")), "grey cat"
)


def words(local: lm.Local, ids: tuple[int, ...]) -> list[str]:
    return list(local.tokenizer.convert_ids_to_tokens(list(ids)))


def local_with(template: str | None) -> lm.Local:
    tokenizer = copy.deepcopy(lm.pocket().tokenizer)
    tokenizer.chat_template = template
    return lm.Local(lm.pocket().model, tokenizer, name="templated", adapter="pocket")


def test_prompt_and_reply() -> None:
    tokens = encode(lm.pocket(), SAMPLE)
    assert words(lm.pocket(), tokens.ids) == [
        *("<s>", "<|system|>", "do", "the", "task", "[[text]]", "cat", "wolf", "[[answer]]"),
        *("grey", "cat", "<|end|>"),
    ]
    assert tokens.start == 9


def test_the_prompt_is_that_of_a_call(program: nn.Predict, data: tuple[list[Example], ...]) -> None:
    sample = labeled(program, data[0][:1]).samples[0]
    tokens = encode(lm.pocket(), sample)
    assert list(tokens.ids[: tokens.start]) == lm.pocket().encode(lm.Request(tail=sample.messages))
    assert words(lm.pocket(), tokens.ids[tokens.start :]) == [data[0][0].answer, "<|end|>"]


def test_what_a_template_writes_after_the_end_is_not_learned() -> None:
    template = (
        "{%- for m in messages %} {{ m.role if m.role != 'system' else 'the' }} {{ m.content }} <|end|> cat "
        "{%- endfor %}"
        "{%- if add_generation_prompt %} assistant{% endif %}"
    )
    tokens = encode(local_with(template), SAMPLE)
    assert words(lm.pocket(), tokens.ids[tokens.start :]) == ["grey", "cat", "<|end|>"]


def test_a_template_that_rewrites_the_prompt() -> None:
    template = "{{ messages | length }} {{ messages | map(attribute='content') | reverse | join(' ') }}"
    tokens = encode(local_with(template), SAMPLE)
    assert words(lm.pocket(), tokens.ids[tokens.start :]) == ["grey", "cat", "<|end|>"]


def test_too_long() -> None:
    long = Conversation(SAMPLE.messages, " ".join([pocket.words()[0]] * 600))
    local = lm.pocket()
    both = [len(encode(local, sample).ids) for sample in (SAMPLE, long)]
    with pytest.raises(DataError, match=r"1 of 2 samples are longer than \d+ tokens \(the longest has 610\)"):
        fitting(local, both, int)
    assert len(fitting(local, both, int, skip_long=True)) == 1
    says = (
        r"every sample \(there are 2\) is longer than 5 tokens, so that skip_long=True would leave none \(the shortest"
    )
    with pytest.raises(DataError, match=rf"{says} has {both[0]}\): show fewer demos or raise max_length$"):
        fitting(local, both, int, max_length=5, skip_long=True)
    with pytest.raises(DataError, match=r"every sample.*show fewer demos or take a model that reads more$"):
        fitting(local, both[1:], int)
