"""One reply that finds which texts are to blame and rewrites them: what it is shown, and what becomes of it."""

import json
import re

import pytest

import promptgrad as pg
from promptgrad import lm, nn, optim
from promptgrad.search import is_able, make_reviser
from promptgrad.testing import Fields
from tests.search.test_rows import TICKETS, coded, router, session_of, within

SUM = "Say who pays, and the sum."


class Pipeline(nn.Module):
    """What a note leaves out cannot be decided on."""

    def __init__(self):
        super().__init__()
        self.note = nn.Predict("text -> facts", instruction="Say who pays.")
        self.decide = nn.Predict("facts -> code", instruction="P1 from 100 on, else P4.")

    def forward(self, text):
        return self.decide(facts=self.note(text=text).facts)


def student(messages):
    """Notes what its instruction asks for, and decides on the sum in the note."""
    system, shown = messages[0].content, messages[-1].content
    if "[[ ## facts ## ]]\n{" in system:
        who, money = re.search(r"(\w+) pays (\d+)", shown).groups()
        return f"[[ ## facts ## ]]\n{who} pays {money if 'sum' in system else 'some'} dollars, as it seems"
    found = re.search(r"pays (\d+)", shown)
    return f"[[ ## code ## ]]\n{'P1' if found and int(found[1]) >= 100 else 'P4'}"


def tickets(count, start=0):
    sums = [(number % 2 * 200 + number % 50, number) for number in range(start, start + count)]
    return [
        pg.Example(text=f"N{name} pays {number} for it", code="P1" if number >= 100 else "P4").with_inputs("text")
        for number, name in sums
    ]


class Writer:
    """Answers with scripted revisions, and keeps what it was shown."""

    def __init__(self, *replies, raw=False):
        self.replies, self.raw, self.shown = list(replies), raw, []

    def __call__(self, messages):
        self.shown.append(messages)
        reply = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
        if self.raw:
            return reply
        revisions = [{"parameter": name, "new_text": text} for name, text in reply.items()]
        return f"[[ ## analysis ## ]]\nThe sum decides.\n\n[[ ## revisions ## ]]\n{json.dumps(revisions)}"

    def fields(self, number=0):
        parts = re.split(r"\[\[ ## (\w+) ## \]\]\n", self.shown[number][1].content.split("\n\nReply in the")[0])
        return {name: value.strip() for name, value in zip(parts[1::2], parts[2::2], strict=True)}


def trained(writer, model=None, critic=None, **options):
    model = model or Pipeline().to(lm.FunctionLM(student, name="student"))
    options = {"blame": "writer", "steps": 2, "proposals": 1, **options}
    opt = optim.TGD(model.parameters(), lm=lm.FunctionLM(writer, name="writer"), **options)
    critic = critic or lm.FunctionLM(Fields(critique="somebody else is to blame"), name="critic")
    trainer = pg.Trainer(model, opt, metric=coded, seed=3, critic=critic, progress=False)
    return model, trainer.fit(tickets(24), tickets(40, 100))


def test_one_reply_blames_one_text_and_rewrites_it_and_no_critic_is_asked():
    def critic(messages):
        raise AssertionError("a critic was asked")

    writer = Writer({"note.instruction": SUM})
    model, result = trained(writer, critic=lm.FunctionLM(critic, name="critic"))
    assert result.outcome == "shipped"
    assert model.note.instruction.data == SUM
    assert model.decide.instruction.data == "P1 from 100 on, else P4."
    assert len(writer.shown) == 1, "all validation examples are right"


def test_the_writer_sees_all_texts_and_whole_runs():
    writer = Writer({"note.instruction": SUM})
    trained(writer)
    shown = writer.fields()
    assert json.loads(shown["parameters"]) == {
        "note.instruction": "Say who pays.",
        "decide.instruction": "P1 from 100 on, else P4.",
    }
    assert json.loads(shown["interfaces"])["decide.instruction"] == "input `facts`: text\noutput `code`: text"
    assert json.loads(shown["attempts"]) == [{"changes": "(the present version)", "score": 0.5, "rows": 40}]
    runs = json.loads(shown["runs"])
    assert len(runs) == 24
    first = runs[0]
    note, decide = first["calls"]
    assert note["call"] == "note"
    assert note["outputs"]["facts"].endswith("pays some dollars, as it seems")
    assert decide == {"call": "decide", "inputs": {"facts": "= facts of note"}, "outputs": {"code": "P4"}}
    assert (first["outputs"], first["expected"], first["feedback"]) == ({"code": "P4"}, {"code": "P1"}, "should be P1")
    assert [run["score"] for run in runs] == sorted(run["score"] for run in runs), "failures first"


def test_in_auto_it_also_sees_the_labels_of_examples_that_were_not_run():
    writer = Writer({"note.instruction": SUM})
    model = Pipeline().to(lm.FunctionLM(student, name="student"))
    opt = optim.Auto(model.parameters(), lm=lm.FunctionLM(writer, name="writer"), rows=4, demos=())
    result = pg.Trainer(model, opt, metric=coded, seed=3, progress=False).fit(tickets(24), tickets(40, 100))
    assert result.outcome == "shipped"
    assert model.note.instruction.data == SUM
    runs = json.loads(writer.fields()["runs"])
    assert [sorted(run) for run in runs[4:]] == [["expected", "inputs", "row"]] * 20
    assert all("calls" in run for run in runs[:4])


def test_in_auto_each_text_is_once_written_apart_too_so_that_wrong_blame_is_no_dead_end():
    revised, apart = Writer({"decide.instruction": "P4 always."}), []

    def writer(messages):
        if "[[ ## revisions ## ]]" in messages[0].content:
            return revised(messages)
        apart.append(messages[-1].content)
        new = SUM if "Say who pays." in apart[-1].split("[[ ## rules ## ]]")[0] else "P1 from 100 on, else P4, always."
        return f"[[ ## analysis ## ]]\nThe sum.\n\n[[ ## new_instruction ## ]]\n{new}\n\n[[ ## completed ## ]]"

    model = Pipeline().to(lm.FunctionLM(student, name="student"))
    opt = optim.Auto(model.parameters(), lm=lm.FunctionLM(writer, name="writer"), demos=())
    result = pg.Trainer(model, opt, metric=coded, seed=3, progress=False).fit(tickets(24), tickets(40, 100))
    assert result.outcome == "shipped"
    assert result.candidate.origin == "step 0, each text apart"
    assert model.note.instruction.data == SUM
    assert len(apart) == 2


def test_several_texts_are_tried_together_and_one_at_a_time():
    writer = Writer({"note.instruction": SUM, "decide.instruction": "P4 always."})
    model, result = trained(writer)
    assert model.note.instruction.data == SUM
    assert model.decide.instruction.data == "P1 from 100 on, else P4.", "the harmful text did not ride on the good one"
    assert len(result.history) == 4


def test_what_was_tried_is_shown_to_the_next_step():
    writer = Writer({"decide.instruction": "P4 or so."}, {"note.instruction": SUM})
    trained(writer, steps=3)
    attempts, worse = (json.loads(writer.fields(1)[name]) for name in ("attempts", "worse"))
    (found,) = [each for each in (*attempts, *worse) if each["changes"] == {"decide.instruction": "P4 or so."}]
    assert found["score"] == 0.5


@pytest.mark.parametrize(
    ("writer", "reason"),
    [
        (Writer({"solve.instruction": "x"}), "the program has no text 'solve.instruction' to train"),
        (Writer({"note.instruction": "Say who pays."}), "does not change"),
        (Writer({"note.instruction": " "}), "it is empty"),
        (Writer("[[ ## analysis ## ]]\nhm\n\n[[ ## revisions ## ]]\nnone", raw=True), "the reply holds no revisions"),
    ],
)
def test_what_breaks_a_rule_is_refused_with_its_reason(writer, reason):
    model, result = trained(writer, steps=1)
    assert result.outcome != "shipped"
    assert model.note.instruction.data == "Say who pays."
    assert any(reason in note for note in result.notes), result.notes


def test_where_the_writer_blames_nobody_it_is_told():
    _, result = trained(Writer({}), steps=2)
    assert "in 2 of 2 steps samples failed and nobody was blamed" in result.notes


def test_with_one_call_each_text_is_rewritten_as_ever():
    asked = []

    def writer(messages):
        asked.append(messages[0].content)
        return "[[ ## analysis ## ]]\nx\n\n[[ ## new_instruction ## ]]\nP4, or P1 from 100 on."

    model = nn.Predict("text -> code", instruction="Say P4.").to(lm.FunctionLM(lambda m: "[[ ## code ## ]]\nP4"))
    trained(writer, model, steps=1)
    assert asked
    assert all(prompt.startswith("You improve one instruction") for prompt in asked)


def test_a_model_that_knows_only_its_own_tasks_is_not_asked():
    assert not is_able(make_reviser(), "pocket")
    assert is_able(make_reviser(), lm.FunctionLM(student))
    assert is_able(make_reviser(), None), "the call will say that there is no language model"


@pytest.mark.parametrize("options", [{"blame": "me"}, {"blame": "writer", "edits": "hunks"}])
def test_options_that_do_not_fit_are_refused(options):
    with pytest.raises(ValueError, match=r"blame is|whole texts"):
        optim.TGD(Pipeline().parameters(), **options)


class TestWholeRuns:
    def test_a_long_text_is_written_once_and_short_ones_are_repeated(self):
        session = session_of(router(), coded, TICKETS)
        within(session, lambda: session.forward(session.base, TICKETS[:1], scope="a"))
        (row,) = session.rows.whole(session.base)
        assert row.calls == [
            {"call": "amount", "inputs": {"text": "pay 300"}, "outputs": {"amount": "300"}},
            {"call": "decide", "inputs": {"text": "pay 300", "amount": "300"}, "outputs": {"code": "P4"}},
        ]
        assert (row.inputs, row.outputs, row.expected) == ({"text": "pay 300"}, {"code": "P4"}, {"code": "P2"})

    def test_a_run_speaks_only_of_the_values_that_it_read(self):
        session = session_of(router(), coded, TICKETS)
        tickets = [*TICKETS[:2], pg.Example(text="a question", code="P4").with_inputs("text")]
        within(session, lambda: session.forward(session.base, tickets, scope="a"))
        child = session.base.child({"amount.instruction": "Find the sum."}, "test")
        assert [row.example for row in session.rows.whole(child)] == [tickets[2].id], "it never asked for an amount"

    def test_calls_of_one_step_have_numbers_and_what_failed_says_so(self):
        class Twice(nn.Module):
            def __init__(self):
                super().__init__()
                self.step = nn.Predict("text -> code: int", instruction="Classify.")

            def forward(self, text):
                self.step(text=text)
                return self.step(text=f"{text}, once more")

        def answer(messages):
            return f"[[ ## code ## ]]\n{'unknown' if 'once more' in messages[1].content else 4}"

        session = session_of(Twice().to(lm.FunctionLM(answer)), coded, TICKETS)
        within(session, lambda: session.forward(session.base, TICKETS[:1], scope="a"))
        (row,) = session.rows.whole(session.base)
        first, second = row.calls
        assert (first["call"], second["call"]) == ("step[0]", "step[1]")
        assert second["error"].startswith("ParseError")
        assert (row.error, row.right) == ("it failed", False)
