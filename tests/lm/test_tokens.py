"""A bound on the tokens of a text, and budgets measured at the server, with 64 calls in flight."""

import random
from functools import partial

import pytest

from promptgrad import aio, run
from promptgrad.errors import BudgetExceeded
from promptgrad.lm import (
    HTTP,
    ImagePart,
    Message,
    Prefix,
    ReasoningPart,
    TextPart,
    ToolCall,
    ToolResult,
    expected_tokens,
)
from promptgrad.lm._channel import LONG_REPLY, estimate_tokens
from promptgrad.lm._parts import bound
from promptgrad.lm._request import Request
from promptgrad.lm._tokens import likely_tokens, most_tokens
from promptgrad.testing import LoopbackLM, Reply
from tests.made_files import png

SMALL = "abcdefghijklmnopqrstuvwxyz"
SYLLABLES = [first + second for first in "bcdfghjklmnprstvwz" for second in "aeiou"]


def drawn(alphabet, size):
    chance = random.Random(0)
    return "".join(chance.choice(alphabet) for _ in range(size))


def signs(first, last):
    return "".join(map(chr, random.Random(0).choices(range(first, last), k=200)))


def words(text, size):
    return " ".join(text[at : at + size] for at in range(0, len(text), size))


TEXTS = {
    "base64": drawn(SMALL + SMALL.upper() + "0123456789+/", 600),
    "hexadecimal": drawn("0123456789abcdef", 600),
    "small letters": drawn(SMALL, 600),
    "capitals": drawn(SMALL.upper(), 600),
    "passwords": words(drawn(SMALL + SMALL.upper() + "0123456789", 600), 8),
    "syllables": drawn(SYLLABLES, 300),
    "syllables of 10": words(drawn(SYLLABLES, 300), 10),
    "vowels": drawn("aeiou", 600),
    "genes": drawn("ACGT", 600),
    "initials": ".".join(drawn(SMALL.upper(), 300)),
    "digits": drawn("0123456789", 600),
    "Chinese": "今天天气很好\uff0c我们去公园散步。" * 20,
    "rare Chinese": signs(0x4E00, 0x9FFF),
    "emoji": signs(0x1F300, 0x1F6FF),
    "English": (
        "The budget of a run is kept whatever the script is in which its prompts are written, and however many of "
        "its calls are in flight at once. "
    )
    * 4,
    "code": (
        "def answer(question: str, notes: list[str]) -> str:\n    return self.lm(question, notes=[*notes, 'none'])\n"
    )
    * 5,
    "German": ("Die Bundesregierung beschließt Geschwindigkeitsbegrenzungen für Kraftfahrzeuge auf Autobahnen. " * 5),
}
COUNTED = {  # by the strictest of cl100k, o200k, p50k and Claude's tokenizer
    "base64": 462, "hexadecimal": 345, "small letters": 360, "capitals": 387, "passwords": 476, "syllables": 277,
    "syllables of 10": 291, "vowels": 333, "genes": 313, "initials": 599, "digits": 253, "Chinese": 560,
    "rare Chinese": 551, "emoji": 576, "English": 121, "code": 180, "German": 176,
}  # fmt: skip


@pytest.mark.parametrize("name", TEXTS)
def test_no_tokenizer_makes_more(name):
    assert COUNTED[name] <= most_tokens(TEXTS[name]) <= len(TEXTS[name].encode()) + 1


def test_words_are_not_taken_for_random_letters():
    assert most_tokens(TEXTS["English"]) < 3 * COUNTED["English"]
    assert most_tokens(TEXTS["code"]) < 2 * COUNTED["code"]


@pytest.mark.parametrize("name", ["English", "code", "German", "Chinese", "emoji", "digits"])
def test_an_estimate_is_a_little_above_what_a_tokenizer_makes(name):
    newer = {"code": 165, "German": 156, "Chinese": 360, "emoji": 569, "digits": 250}.get(name, COUNTED[name])
    assert newer <= likely_tokens(TEXTS[name]) <= newer * (2.6 if name == "digits" else 1.6)


def test_an_estimate_counts_the_parts_of_content():
    picture, text = ImagePart(png()), "How many are there?"
    assert expected_tokens(text) == likely_tokens(text) == expected_tokens((TextPart(text),))
    assert expected_tokens((TextPart(text), picture)) == likely_tokens(text) + picture.tokens()
    assert expected_tokens((ToolCall("1", "f", "{}"), ToolResult("1", "x"), ReasoningPart(text))) > likely_tokens(text)


def test_it_counts_the_parts_of_a_prompt():
    text = TEXTS["emoji"]
    prompt = Request(prefix=Prefix([Message("system", text)]), tail=(Message("user", text),))
    assert bound(text) == most_tokens(text)
    assert estimate_tokens(prompt) == 2 * most_tokens(text) + 16
    assert most_tokens("") <= 1


def spend(budget, text, tokens, written, count=80, **options):
    """Ask so often, 64 at a time; returns what the server counted: calls and tokens."""
    counted = [0, 0]

    def respond(messages):
        counted[0] += 1
        counted[1] += tokens + 8 + written
        return Reply("x", usage=(tokens + 8, written))

    with LoopbackLM(respond, record=False) as server:
        lm = HTTP("m", server.url, prices=(1.0, 1.0), **options)

        async def one(number):
            try:
                return await lm.acall(f"{text}{number}")
            except BudgetExceeded:
                return None

        with run.active(ledger=run.Ledger(budget)) as session:
            answered = aio.run(aio.gather([partial(one, number) for number in range(count)], limit=64))
            assert sum(reply is not None for reply in answered) == counted[0] == session.ledger.spent.calls
    return counted


@pytest.mark.parametrize("name", ["English", "Chinese", "emoji", "base64"])
def test_a_budget_is_not_passed_where_replies_have_a_bound(name):
    text, tokens = TEXTS[name], COUNTED[name]
    each = tokens + 8 + 40
    calls, _ = spend(run.Budget(calls=30), text, tokens, 40, max_tokens=40)
    assert calls == 30
    calls, spent = spend(run.Budget(tokens=30 * each), text, tokens, 40, max_tokens=40)
    assert 25 * each <= spent <= 30 * each
    calls, spent = spend(run.Budget(usd=30 * each / 1e6), text, tokens, 40, max_tokens=40)
    assert 25 * each <= spent <= 30 * each


@pytest.mark.parametrize("written", [20, 1_500])
def test_it_is_passed_by_one_reply_at_most_where_they_have_none(written):
    tokens = COUNTED["English"]
    each = tokens + 8 + written
    for budget in (run.Budget(tokens=30 * each), run.Budget(usd=30 * each / 1e6)):
        calls, spent = spend(budget, TEXTS["English"], tokens, written)
        assert 20 * each <= spent < 30 * each + written
        assert calls >= 20
    assert written < LONG_REPLY
