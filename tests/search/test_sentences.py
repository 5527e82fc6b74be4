"""Sentences: how texts are taken apart, and that what is put together of many is better than each of them."""

import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptgrad import lm, nn
from promptgrad.data import Example
from promptgrad.search import Attempts, Rewriter, Rules, recombined, sentences
from tests.search.sessions import session_of, within

GOOD = ("Mind the sign.", "Mind the unit.", "Mind the date.")
BAD = ("Be quick.", "Trust your first idea.")
REST = ("Be polite.", "Be calm.", "Be clear.", "Be kind.")


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("One. Two, e.g. Three.  Four", ["One. ", "Two, e.g. Three.  ", "Four"]),
        ("1. Check it.\n2. Say it.\n\n- and so on", ["1. Check it.\n", "2. Say it.\n\n", "- and so on"]),
        ("Use it:\n```\na = 1.\n\nB = 2\n```\nThen end.", ["Use it:\n", "```\na = 1.\n\nB = 2\n```\n", "Then end."]),
        ('Why? "Because." And 3.5 is a number.', ["Why? ", '"Because." And 3.5 is a number.']),
        ("\u6ce8\u610f\u3002\u7b80\u77ed\u3002\n\u597d", ["\u6ce8\u610f\u3002", "\u7b80\u77ed\u3002\n", "\u597d"]),
        ("", []),
    ],
)
def test_a_text_is_taken_apart(text, parts):
    assert sentences(text) == parts


@given(st.text(st.sampled_from("aA .!?\n`1-e\u3002"), max_size=40))
def test_its_parts_are_the_text(text):
    assert "".join(sentences(text)).strip() == text.strip()
    assert all(part.strip() for part in sentences(text))


def answer(messages):
    """Right on an example as often as the good sentences outweigh the bad ones."""
    told = messages[0]["content"]
    number = int(re.search(r"w(\d+)x", messages[-1]["content"])[1])
    level = 3 + 2 * sum(each in told for each in GOOD) - 2 * sum(each in told for each in BAD)
    return f"[[ ## answer ## ]]\n{'yes' if number * 7 % 10 < level else 'no'}\n\n[[ ## completed ## ]]"


def rows(count, start=0):
    return [Example(word=f"w{n}x", answer="yes").with_inputs("word") for n in range(start, start + count)]


def searched(texts, *, constraints=(), joiner=" ", train=20):
    """A session in which candidates with these texts were run, and what is put together of them for each of these."""
    model = nn.Predict("word -> answer", instruction="Answer.").to(lm.FunctionLM(answer, name="minder"))
    session = session_of(model, lambda example, output: float(output.answer == "yes"), rows(train), rows(20, 50))
    made = [
        session.base.child({"instruction": joiner.join(["Answer.", *each])}, f"t{n}") for n, each in enumerate(texts)
    ]
    rewriter, found = Rewriter(Attempts({}, 8), rules=Rules(constraints=constraints)), []

    async def run():
        everyone = [session.base, *made]
        await session.evaluate_all(everyone, session.val[:10], scope="some")
        await session.evaluate_all(everyone, session.train[:10], scope="trained")
        step = next(iter(session.steps(1, "x")))
        place = session.places(("is_text",))[0]
        for base in everyone:
            known = rewriter.evidence(session, base, place)
            found.append([edit.text for edit in recombined(rewriter, step, base, [known], 3)])

    within(session, run)
    return [session.value("instruction", one) for one in (session.base, *made)], found


def mixed(count=10, seed=0):
    rng = random.Random(seed)
    return [rng.sample(GOOD + BAD + REST, 4) for _ in range(count)]


def level(text):
    return sum(each in text for each in GOOD) - sum(each in text for each in BAD)


def test_good_sentences_come_together_and_bad_ones_leave():
    texts, found = searched(mixed())
    assert max(map(level, texts)) == 2
    assert max(level(text) for proposed in found for text in proposed) == 3
    better = [level(proposed[0]) - level(text) for text, proposed in zip(texts, found, strict=True) if proposed]
    assert len(better) >= 6
    assert min(better) >= 0 < sum(better)


def test_no_text_is_proposed_twice_or_was_tried():
    texts, found = searched(mixed())
    for proposed in found:
        assert len(set(proposed)) == len(proposed) <= 2
        assert not set(proposed) & set(texts)
    assert max(map(len, found)) == 2  # all but the first by draws


def test_at_most_three_sentences_change():
    texts, found = searched(mixed())
    for text, proposed in zip(texts, found, strict=True):
        old = {part.strip() for part in sentences(text)}
        for new in proposed:
            assert 1 <= len(old ^ {part.strip() for part in sentences(new)}) <= 3


def test_without_sentences_that_tell_candidates_apart_there_is_no_proposal():
    assert searched([("Be calm.",), ("Be kind.",)])[1] == [[], [], []]  # three candidates: too few
    assert not any(searched([()] * 5)[1])


def test_what_the_rules_refuse_is_not_proposed():
    assert not any(searched(mixed(), constraints=[lambda text: False])[1])


def test_lists_go_on_as_lists():
    proposed = [text for each in searched(mixed(), joiner="\n- ")[1] for text in each]
    assert proposed
    assert all(line.startswith("- ") for text in proposed for line in text.splitlines()[1:])


def test_numbers_go_on_as_numbers():
    texts = [["1. Mind the sign.", "2. Be calm."], ["1. Mind the unit.", "2. Be calm."]]
    texts += [["1. Be calm.", "2. Be kind."], ["1. Be kind.", "2. Mind the sign."]]
    proposed = [text for each in searched(texts, joiner="\n")[1] for text in each]
    assert any("\n3. Mind the " in text for text in proposed)
    assert not any(re.search(r"\d\. \d\.", text) for text in proposed)


@pytest.mark.parametrize(("others", "heard"), [(148, True), (150, False)])
def test_of_many_candidates_those_that_were_run_most_are_heard(others, heard):
    """One of them, run on a single row, is right there: its sentence is the only one that seems to help."""

    def found(messages):
        return f"[[ ## answer ## ]]\n{'yes' if GOOD[0] in messages[0]['content'] else 'no'}\n\n[[ ## completed ## ]]"

    model = nn.Predict("word -> answer", instruction="Answer.").to(lm.FunctionLM(found, name="found"))
    session = session_of(model, lambda example, output: float(output.answer == "yes"), rows(2), rows(2, 50))
    rewriter, proposed = Rewriter(Attempts({}, 8)), list[str]()
    made = [session.base.child({"instruction": f"Answer {n}."}, f"t{n}") for n in range(others)]
    one = session.base.child({"instruction": f"Read. {GOOD[0]}"}, "one")

    async def run():
        await session.evaluate_all([one], session.val[:1], scope="one")
        await session.evaluate_all([session.base, *made], session.val, scope="others")
        step, place = next(iter(session.steps(1, "x"))), session.places(("is_text",))[0]
        known = rewriter.evidence(session, session.base, place)
        proposed.extend(str(edit.text) for edit in recombined(rewriter, step, session.base, [known], 0))

    within(session, run)
    assert any(GOOD[0] in text for text in proposed) == heard


def test_other_values_are_not_taken_for_what_sentences_add():
    """Candidates with demos are better by .2, and all of them happen to hold a sentence that does nothing."""

    def shown(messages):
        word, good = re.search(r"w(\d+)x", messages[-1]["content"])[1], sum(one in str(messages[0]) for one in GOOD)
        right = int(word) % 20 < 8 + good + 4 * (len(messages) > 2)
        return f"[[ ## answer ## ]]\n{'yes' if right else 'no'}\n\n[[ ## completed ## ]]"

    model = nn.Predict("word -> answer", instruction="Answer.").to(lm.FunctionLM(shown, name="shown"))
    session = session_of(model, lambda example, output: float(output.answer == "yes"), rows(4), rows(40, 50))
    rewriter, proposed = Rewriter(Attempts({}, 8)), list[str]()
    told = [" ".join([one, *rest]) for one, *rest in ([*GOOD[:2]], [*GOOD[1:]], [GOOD[0]], [GOOD[1]], [GOOD[2]])]
    values = [{"instruction": f"Answer. {text}"} for text in [*told, *(f"{text} Be kind." for text in told[:2])]]
    demos = tuple(rows(2, 90))
    values += [{"instruction": f"Answer. {text} Be kind.", "demos": demos} for text in told]
    made = [session.base.child(value, f"t{n}") for n, value in enumerate(values)]

    async def run():
        await session.evaluate_all([session.base, *made], session.val, scope="some")
        step, place = next(iter(session.steps(1, "x"))), session.places(("is_text",))[0]
        known = rewriter.evidence(session, session.base, place)
        proposed.extend(str(edit.text) for edit in recombined(rewriter, step, session.base, [known], 0, 1))

    within(session, run)
    assert [sorted(each.strip() for each in sentences(text)) for text in proposed] == [["Answer.", *sorted(GOOD)]]
