"""A proposal is read as strictly as an answer: one that was cut, filtered or declined is refused with its reason."""

import asyncio

import pytest

import promptgrad as pg
from promptgrad import lm, nn, optim, run
from promptgrad.autograd import Critique, Gradient
from promptgrad.errors import BadRequestError, ContentFilterError
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


def test_a_warning_of_a_backward_pass_inside_a_search_points_at_the_users_line():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Predict("text -> topic")
            self.last = nn.Predict("text, topic -> word")

        def forward(self, text):
            return self.last(text=text, topic=self.first(text=text).topic)

    model = Two().to(lm.FunctionLM(lambda messages: "wrong", name="program"))
    rows = [pg.Example(text=f"t{i}", word=f"t{i}").with_inputs("text") for i in range(14)]
    opt = optim.TGD(model.parameters(), lm=writer(CUT)[0], blame="critic", steps=1)
    with pytest.warns(RuntimeWarning, match="every critic call failed") as said:
        Trainer(model, opt, metric=pg.metrics.exact_match, budget=pg.Budget(calls=60)).fit(rows[:8], rows[8:])
    assert {one.filename for one in said if "every critic call" in str(one.message)} == {__file__}


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


class Fails:
    """A writer that fails at its first request, and writes another text at each one after that."""

    def __init__(self, error):
        self.error, self.asked = error, 0

    def __call__(self, messages):
        self.asked += 1
        if self.error is not None and self.asked == 1:
            raise self.error
        size = len(messages[-1].content) % 7
        return f"[[ ## analysis ## ]]\nx\n\n[[ ## new_instruction ## ]]\nTake word {size} of {{text}}."


@pytest.mark.parametrize("error", [ContentFilterError("filtered", status=400), BadRequestError("no", status=400)])
def test_a_refused_request_stays_without_answer_in_a_resumed_run(error, tmp_path):
    def parts(writer):
        model = nn.Predict("text -> word", instruction=TEXT).to(lm.FunctionLM(lambda messages: "wrong", name="program"))
        return model, optim.TGD(model.parameters(), lm=lm.FunctionLM(writer, name="writer"), steps=3)

    rows = [pg.Example(text=f"t{i}", word="right").with_inputs("text") for i in range(20)]
    model, opt = parts(Fails(error))
    Trainer(model, opt, metric=pg.metrics.exact_match, budget=pg.Budget(calls=200), run_dir=tmp_path / "run").fit(
        rows[:12], rows[12:]
    )
    path = tmp_path / "run" / "journal.jsonl"
    whole = list(run.Journal(path, readonly=True).canonical())
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    path.write_text("".join(lines[: len(lines) * 2 // 3]), encoding="utf-8")
    model, opt = parts(Fails(None))  # it would answer now
    Trainer.resume(tmp_path / "run", model, opt, metric=pg.metrics.exact_match)
    assert list(run.Journal(path, readonly=True).canonical()) == whole
