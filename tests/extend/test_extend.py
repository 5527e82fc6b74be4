"""The door for whoever extends promptgrad: every name leads to its room, and the parts on the page work."""

import importlib
import re
import sys
from pathlib import Path

import pytest

import promptgrad as pg
from promptgrad import extend, func, lm, nn, optim
from promptgrad.autograd import Loss

PAGE = Path(__file__).resolve().parents[2] / "docs" / "extending.md"
FILES = dict(re.findall(r"^```python\n# (\w+)\.py\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL))


@pytest.fixture
def page(tmp_path, monkeypatch):
    """Import a file of the page."""
    monkeypatch.syspath_prepend(tmp_path)

    def load(name):
        (tmp_path / f"{name}.py").write_text(FILES[name])
        return importlib.import_module(name)

    yield load
    for name in FILES:
        sys.modules.pop(name, None)


@pytest.mark.parametrize("name", extend.__all__)
def test_every_name_is_that_of_its_room(name):
    found = getattr(extend, name)
    room = importlib.import_module(extend._HOME[name])
    assert found is getattr(room, name)
    assert name in room.__all__


def test_an_unknown_name_is_refused():
    with pytest.raises(AttributeError, match=r"promptgrad\.extend"):
        extend.Kinds  # noqa: B018


def test_the_kind_of_the_page_is_trained_saved_and_tried(page, tmp_path):
    checklist = page("checklist")
    model = checklist.Checked().to(lm.FunctionLM(lambda messages: "[[ ## answer ## ]]\nyes", name="yes"))
    assert model.checks.requires_grad
    assert model.checks.shape == (1,)
    assert "Is it one word?" in model.answer.render(question="?", checks=list(model.checks.data))[-1]["content"]
    pg.save(model.state_dict(), tmp_path / "state.json")
    other = checklist.Checked()
    other.checks.data = ["Is it true?", "Is it short?"]
    other.load_state_dict(pg.load(tmp_path / "state.json"))
    assert other.checks.data == ("Is it one word?",)
    seen = []
    spy = lm.FunctionLM(lambda messages: seen.append(messages[-1].content) or "[[ ## answer ## ]]\nyes", name="spy")
    func.functional_call(model.to(spy), {"checks": ["Is it new?"]}, ("?",))
    assert "Is it new?" in seen[0]
    assert model.checks.data == ("Is it one word?",)
    with pytest.raises(ValueError, match="a checklist is a sequence of lines"):
        model.checks.data = "Is it one word?"
    assert optim.LabeledFewShot(model.parameters(), k=1).skips == ("checklist", "instruction")


def test_the_operation_of_the_page_divides_the_blame(page):
    halves = page("halves").Halves

    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Predict("text -> answer", instruction="Say the head.")
            self.tail = nn.Predict("text -> answer", instruction="Say the tail.")

        def forward(self, text):
            return halves.apply(self.head(text=text).answer, self.tail(text=text).answer)

    class Echo:
        async def critique(self, failure):
            return {target.name: "; ".join(failure.feedback) for target in failure.targets}

    model = Two().to(lm.FunctionLM(lambda messages: "[[ ## answer ## ]]\nx", name="x"))
    example = pg.Example(text="a b").with_inputs("text")
    criterion = nn.MetricLoss(lambda example, output: pg.Score(0.0, feedback="the tail is wrong"), critic=Echo())
    loss = criterion(model.map([example]), [example])
    assert isinstance(loss, Loss)
    loss.backward()
    assert model.tail.instruction.grad.critiques
    assert model.head.instruction.grad is None


def test_the_adapter_of_the_page_writes_reads_and_asks_again(page):
    adapter = page("lines").LinesAdapter()
    replies = ["I think it is four.", "answer: 4\nsure: true"]
    model = nn.Predict(
        "question -> answer, sure: bool",
        adapter=adapter,
        demos=[pg.Example(question="1+1", answer="2", sure=True)],
        lm=lm.FunctionLM(lambda messages: replies.pop(0), name="four"),
    )
    assert [message["content"] for message in model.render(question="2+2")][1:] == [
        "question: 1+1",
        "answer: 2\nsure: True",
        "question: 2+2",
    ]
    found = model(question="2+2")
    assert (found.answer, found.sure) == ("4", True)
    assert replies == []


def test_the_adapter_of_the_page_streams(page):
    adapter, feed = page("lines").LinesAdapter(), page("lines_feed")
    adapter.make_format = feed.StreamedLines
    model = nn.Predict("question -> answer, sure: bool", adapter=adapter)
    model.to(lm.FunctionLM(lambda messages: "answer: by and by\nsure: true", name="slow"))
    events = list(model.stream_sync(question="When?"))
    deltas = [event.delta for event in events if isinstance(event, nn.FieldDelta)]
    assert "".join(deltas) == events[-1].answer == "by and by"
    assert len(deltas) > 3
    assert not [event for event in events if isinstance(event, nn.Voided)]
