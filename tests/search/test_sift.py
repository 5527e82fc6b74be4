"""`sift`: many candidates are tried on a few rows that their parent fails, and no validation example is touched."""

import pytest

from promptgrad import aio, lm, nn, run
from promptgrad.data import Example
from promptgrad.errors import LMConnectionError
from promptgrad.search import Session, sift


def rows(count, start=0):
    return [Example(word=f"w{number}x", answer=f"x{number}w").with_inputs("word") for number in range(start, count)]


def answer(messages):
    """Reverse the words whose number is below the limit that the instruction names."""
    word = messages[-1]["content"].split("\n")[1]
    limits = [int(part) for part in messages[0]["content"].split() if part.isdigit()]
    right = int(word[1:-1]) < max(limits, default=0)
    return f"[[ ## answer ## ]]\n{f'x{word[1:-1]}w' if right else word}\n\n[[ ## completed ## ]]"


def metric(example, output):
    return float(output.answer == example.answer)


@pytest.fixture
def session():
    journal = run.Journal()
    ledger = run.Ledger(run.Budget(), journal)
    away = ["first", "second"]

    def limited(messages):
        if "late" in messages[0]["content"] and away:
            raise LMConnectionError(f"refused, the {away.pop(0)} time")
        return answer(messages)

    program = nn.Predict("word -> answer", instruction="Copy it.").to(lm.FunctionLM(limited, name="limited"))
    with run.active(journal=journal, ledger=ledger):
        yield Session(
            model=program,
            train=rows(20),
            val=rows(40, 20),
            metric=metric,
            seed=1,
            journal=journal,
            ledger=ledger,
            progress=False,
        )


def sifted(session, *texts, count=2, fails=20):
    """Sift candidates with these texts, as many a round as are asked for; what is left, and how many each round had."""
    left, asked = [session.base.child({"instruction": text}, text) for text in texts], []

    async def ask(number, wanted):
        asked.append(wanted)
        made, left[:wanted] = left[:wanted], []
        return made

    before = aio.run(session.evaluate(session.base, session.train[:fails], scope="before"))
    spent = session.ledger.spent.calls
    kept = aio.run(sift(session, ask, before, scope="sift", count=count))
    return [one.values["instruction"] for one in kept], asked, session.ledger.spent.calls - spent


def test_the_writer_is_asked_until_one_is_right_where_the_parent_is_wrong(session):
    kept, asked, calls = sifted(session, "Copy.", "Copy it now.", "As it is.", "Below 99 reverse.", "never", "seen")
    assert kept == ["Below 99 reverse."]
    assert asked == [2, 2]
    assert calls == 3 * 2 + 5, "who is wrong like the parent leaves after two runs"


def test_it_gives_up_after_a_few_rounds(session):
    kept, asked, calls = sifted(session, *(f"Copy{'!' * n}" for n in range(99)))
    assert (kept, asked, calls) == ([], [2, 2, 4, 8], 2 * 16)


def test_the_best_come_first_and_no_more_than_were_wanted(session):
    kept, _, _ = sifted(session, "Copy.", "Below 12 reverse.", "Below 20 reverse.")
    assert kept == ["Below 20 reverse.", "Below 12 reverse."]


def test_a_text_that_got_no_answer_is_not_known_to_be_wrong(session):
    kept, _, _ = sifted(session, "Copy.", "Below 20 reverse, late.", "Below 20 reverse.", count=3)
    assert kept == ["Below 20 reverse.", "Below 20 reverse, late."]


def test_no_validation_example_is_touched(session):
    aio.run(session.evaluate(session.base, session.val, scope="base"))
    sifted(session, "Below 20 reverse.", "Copy.")
    assert [measured.candidate for measured in session.standings] == [session.base]


@pytest.mark.parametrize(
    ("fails", "budget"),
    [
        (4, run.Budget()),  # four rows tell too little
        (20, run.Budget(calls=20 + 79)),  # 30 % of the runs do not pay for twice 2 * (5 + 1)
    ],
)
def test_with_few_rows_or_calls_one_round_goes_on_as_it_is(session, fails, budget):
    session.ledger.budget = budget
    kept, asked, calls = sifted(session, "Copy.", "Copy it now.", fails=fails)
    assert (kept, asked, calls) == (["Copy.", "Copy it now."], [2], 0)


def test_it_asks_again_only_while_its_share_of_the_budget_pays_for_it(session):
    session.ledger.budget = run.Budget(calls=20 + 90)  # of 27 calls 8 are taken, and the third round may need 24
    _, asked, calls = sifted(session, *(f"Copy{'!' * n}" for n in range(99)))
    assert asked == [2, 2]
    assert calls <= 27
