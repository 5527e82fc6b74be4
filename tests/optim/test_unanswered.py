"""Critics without an answer: a skipped call each, in a resumed run too; the run stops only where they are down."""

import re
from collections import Counter
from dataclasses import replace

import pytest

import promptgrad as pg
from promptgrad import aio, lm, nn, optim, run
from promptgrad.autograd import NodeFailure, Target
from promptgrad.errors import BadRequestError, ContentFilterError, DeadlineError, LMError, LMTimeoutError
from promptgrad.search._watched import Watched
from promptgrad.train import Trainer

ROWS = [pg.Example(text=f"t{i}", word="right").with_inputs("text") for i in range(20)]


class Program(nn.Module):
    def __init__(self):
        super().__init__()
        self.note = nn.Predict("text -> said", instruction="Note {text}.")
        self.take = nn.Predict("said -> word", instruction="Take a word of {said}.")

    def forward(self, text):
        return self.take(said=self.note(text=text).said)


class Critic:
    """Blames the second step; its first `failures` calls fail."""

    def __init__(self, error, failures):
        self.error, self.failures, self.asked, self.written = error, failures, 0, 0

    def __call__(self, messages):
        if "new_instruction" in messages[0].content:
            self.written += 1
            return f"[[ ## new_instruction ## ]]\nTake word {self.written} of {{said}}."
        self.asked += 1
        if self.asked <= self.failures:
            raise self.error
        return (
            '[[ ## findings ## ]]\n[{"runs": [1, 2, 3], "parameter": "take.instruction", '
            '"critique": "It takes the wrong word.", "to_blame": true}]'
        )


def train(folder, critic, *, resume=False, group=None):
    model = Program().to(lm.FunctionLM(lambda messages: "wrong", name="program"))
    opt = optim.TGD(model.parameters(), lm=lm.FunctionLM(critic, name="critic"), steps=3, blame="critic")
    if resume:
        return Trainer.resume(folder, model, opt, metric=pg.metrics.exact_match)
    options = {"metric": pg.metrics.exact_match, "budget": pg.Budget(calls=400), "group": group}
    trainer = Trainer(model, opt, run_dir=folder, **options)
    return trainer.fit(ROWS[:12], ROWS[12:])


@pytest.mark.parametrize(
    "error",
    [ContentFilterError("filtered", status=400), BadRequestError("no", status=400), LMTimeoutError("it took too long")],
)
def test_one_critique_without_an_answer_is_a_skipped_call(error, tmp_path):
    critic = Critic(error, 1)
    train(tmp_path / "run", critic)
    assert critic.asked > 1
    assert critic.written
    path = tmp_path / "run" / "journal.jsonl"
    events = list(run.Journal(path, readonly=True).events())
    (noted,) = [place for place, event in enumerate(events) if event["kind"] == "unanswered"]
    assert events[noted]["error"] == type(error).__name__
    whole = list(run.Journal(path, readonly=True).canonical())
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    at = next(i for i, line in enumerate(lines) if '"kind":"unanswered"' in line)
    path.write_text("".join(lines[: at + 1]), encoding="utf-8")
    train(tmp_path / "run", Critic(None, 0), resume=True)  # it would answer now
    assert list(run.Journal(path, readonly=True).canonical()) == whole


@pytest.mark.filterwarnings("ignore:every critic call failed")
def test_a_critic_that_is_down_stops_the_run():
    with pytest.raises(LMTimeoutError):
        train(None, Critic(LMTimeoutError("it took too long"), 1000), group=2)


class Catches(nn.Module):
    """A program that goes on where its first model gives no answer, so that no row shows it."""

    def __init__(self):
        super().__init__()
        self.first = nn.Predict("text -> word", instruction="Take a word of {text}.")
        self.second = nn.Predict("text, hint -> word", instruction="Take a word of {text}.")

    def forward(self, text):
        try:
            return self.first(text=text)
        except (LMError, DeadlineError):
            return self.second(text=text, hint="the first one was silent")


class Silent:
    """A model that is silent to every seventh call, until it is mended; else the reply depends on the prompt."""

    def __init__(self, error=LMTimeoutError, *, mended=False):
        self.error, self.asked, self.mended = error, 0, mended

    def __call__(self, messages):
        self.asked += 1
        is_program = not {"new_instruction", "findings"} & {*re.findall(r"\w+", messages[0].content)}
        if self.asked % 7 == 0 and not self.mended and (is_program or self.error is not DeadlineError):
            raise self.error("it took too long")  # a deadline is the program's own: it sets none for others
        if "new_instruction" in messages[0].content:
            return f"[[ ## new_instruction ## ]]\nTake word {len(messages[-1].content) % 5} of {{text}}."
        if "findings" in messages[0].content:
            return (
                '[[ ## findings ## ]]\n[{"runs": [1, 2], "parameter": "first.instruction", '
                '"critique": "It takes the wrong word.", "to_blame": true}]'
            )
        return "[[ ## word ## ]]\n" + ("right" if sum(map(ord, str(messages))) % 3 == 0 else "wrong")


@pytest.mark.parametrize("error", [LMTimeoutError, DeadlineError, KeyError, ConnectionResetError])
def test_a_run_goes_on_without_the_same_calls_wherever_it_was_cut(error, tmp_path):
    path = tmp_path / "run" / "journal.jsonl"

    def go_on(model):
        program = Catches().to(lm.FunctionLM(model, name="model"))
        opt = optim.TGD(program.parameters(), steps=3, blame="critic")
        if path.exists():
            return Trainer.resume(tmp_path / "run", program, opt, metric=pg.metrics.exact_match, concurrency=1)
        options = {"metric": pg.metrics.exact_match, "run_dir": tmp_path / "run", "concurrency": 1}
        return Trainer(program, opt, **options).fit(ROWS[:12], ROWS[12:])

    model = Silent(error)
    result = go_on(model)
    whole = list(run.Journal(path, readonly=True).canonical())
    lines = path.read_bytes().splitlines(keepends=True)
    mended = Silent(mended=True)
    assert go_on(mended).values == result.values
    assert mended.asked == 0
    ordered = [place for place, line in enumerate(lines) if b'"seq":' in line]
    assert len(ordered) > 10
    for place in ordered[:: len(ordered) // 8]:
        path.write_bytes(b"".join(lines[: place + 1]))
        go_on(Silent(mended=True))  # it does not diverge from what is on record
        again = list(run.Journal(path, readonly=True).canonical())
        count = ordered.index(place) + 1
        assert again[:count] == whole[:count]


@pytest.mark.filterwarnings("ignore:every critic call failed")
def test_a_run_that_stopped_because_its_critic_is_down_asks_it_again(tmp_path):
    with pytest.raises(LMTimeoutError):
        train(tmp_path / "run", Critic(LMTimeoutError("it took too long"), 1000), group=2)
    mended = Critic(None, 0)
    train(tmp_path / "run", mended, resume=True)
    assert mended.asked > 1


@pytest.mark.parametrize(
    "change",
    [
        lambda failure: replace(failure, node=failure.node.tape.nodes[1]),
        lambda failure: replace(failure, example=ROWS[1]),
        lambda failure: replace(failure, feedback=("too long",)),
        lambda failure: replace(failure, targets=failure.targets[:1]),
        lambda failure: replace(failure, replicate=1),
    ],
)
def test_calls_of_a_critic_that_differ_in_anything_are_counted_apart(change):
    class Silent:
        async def critique(self, failure):
            return {}

    (row,) = Program().to(lm.FunctionLM(lambda messages: "x")).map(ROWS[:1]).rows
    targets = tuple(Target(name, "input", "x") for name in ("text", "more"))
    failure = NodeFailure(row.tape.nodes[0], ROWS[0], ("wrong",), targets)
    watched = Watched(Silent(), "", lambda key, error: None)
    for one in (failure, replace(failure), change(failure)):
        aio.run(watched.critique(one))
    assert len(watched.asked) == 2


@pytest.mark.parametrize("error", [BadRequestError("no such model", status=404), KeyError("of the user's own client")])
@pytest.mark.parametrize("make", [optim.GEPA, optim.Auto])
def test_a_row_that_never_gets_an_answer_is_not_asked_for_at_each_step(make, error):
    """GEPA drew it again and again once all others were known, until the language model counted as down."""
    asked = []

    def answer(messages):
        if "new_instruction" in messages[0].content:
            return f"[[ ## new_instruction ## ]]\nTake word {len(messages[-1].content) % 5} of {{text}}."
        if "Take a word of" in messages[0].content and "t3\n" in messages[-1].content + "\n":
            asked.append(str(messages))
            raise error
        return "[[ ## word ## ]]\nwrong"

    program = nn.Predict("text -> word", instruction="Take a word of {text}.")
    program.to(lm.FunctionLM(answer, name="model"))
    opt = make(program.parameters(), steps=12)
    result = Trainer(program, opt, metric=pg.metrics.exact_match).fit(ROWS[:12], ROWS[12:])
    assert result.outcome
    assert asked
    assert set(Counter(asked).values()) == {1}
    assert not [note for note in result.notes if "failed on" in note]  # no prompt is to blame
