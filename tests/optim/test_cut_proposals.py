"""A proposal is read as strictly as an answer: one that was cut, filtered or declined is refused with its reason."""

import asyncio

import pytest

import promptgrad as pg
from promptgrad import lm, nn, optim
from promptgrad.autograd import Critique, Gradient
from promptgrad.errors import ContentFilterError
from promptgrad.search import Improve, make_proposer, write
from promptgrad.train import Trainer

TEXT = "Take a word from {text}."
CUT = lm.Completion(
    "[[ ## analysis ## ]]\nIt is the last.\n\n[[ ## new_instruction ## ]]\nTake the last word, and never",
    finish_reason="length",
)
REASON = "it was cut at max_tokens=30: raise max_tokens"


def writer(reply, **options):
    asked = []

    def answer(messages):
        asked.append(messages)
        return reply

    return lm.FunctionLM(answer, name="writer", **options), asked


def test_tgd_keeps_the_text_and_says_why():
    model = nn.Predict("text -> word", instruction=TEXT)
    model.instruction.grad = Gradient([Critique("1", "pick", 0, "instruction", "Take the last word.")])
    short, asked = writer(CUT, max_tokens=30)
    report = optim.TGD(model.parameters(), lm=short).step()
    assert (report.changes[0].status, len(asked), model.instruction.data) == ("rejected", 1, TEXT)
    assert REASON in report.changes[0].reason


@pytest.mark.parametrize("optimizer", [optim.TGD, optim.MIPRO, optim.GEPA, optim.Auto])
def test_a_search_installs_none_and_goes_on(optimizer):
    short, asked = writer(CUT, max_tokens=30)
    model = nn.Predict("text -> word", instruction=TEXT)
    model.to(lm.FunctionLM(lambda messages: "wrong", name="program"))
    rows = [pg.Example(text=f"t{i}", word=f"t{i}").with_inputs("text") for i in range(14)]
    opt = optimizer(model.parameters(), lm=short)
    result = Trainer(model, opt, metric=pg.metrics.exact_match, budget=pg.Budget(calls=80)).fit(rows[:8], rows[8:])
    assert asked
    assert model.instruction.data == TEXT
    assert any(REASON in note for note in result.notes), result.notes


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (CUT, "it was cut at"),
        (lm.Completion("", refusal="I would rather not."), "the model refused to answer"),
        ("<think>[[ ## new_instruction ## ]]\nno", "within its thoughts"),
    ],
)
def test_a_writer_gives_the_reason(reply, reason):
    proposer = make_proposer(Improve, None)
    inputs = dict.fromkeys(proposer.input_names(), "")
    inputs.update(rules=[], attempts=[], worse=[], rows=[], instruction=TEXT)
    text, why = asyncio.run(write(proposer, inputs, lm=writer(reply)[0]))
    assert text is None
    assert why.startswith("the reply holds no instruction: ")
    assert reason in why


def test_a_filtered_proposal_has_no_answer():
    proposer = make_proposer(Improve, None)
    inputs = dict.fromkeys(proposer.input_names(), "")
    inputs.update(rules=[], attempts=[], worse=[], rows=[], instruction=TEXT)
    filtered = lm.Completion("[[ ## new_instruction ## ]]\nTake", finish_reason="content_filter")
    with pytest.raises(ContentFilterError):
        asyncio.run(write(proposer, inputs, lm=writer(filtered)[0]))
