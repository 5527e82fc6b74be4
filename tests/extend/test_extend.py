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
    room = importlib.import_module(extend._LATE[name])
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
        "answer: 2\nsure: true",
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


def test_the_search_of_the_page_finds(page, tmp_path):
    search = page("full_text").FullText(str(tmp_path / "base"))
    search.write(["The Tiber flows through Rome.", "Paris is in France."])
    model = nn.Retrieve(search, k=2)
    assert [str(passage) for passage in model("Which river flows through Rome?")] == ["The Tiber flows through Rome."]
    assert [passage.id for passage in model('"; drop table passages; -- Tiber')] == ["1"]
    assert list(model("?!")) == []


def test_the_tools_of_the_page_are_called_and_checked(page):
    sent = []

    def send(method, path, **arguments):
        sent.append((method, path, arguments))
        return {"celsius": 21}

    town = {"name": "town", "required": True, "schema": {"type": "string"}, "description": "Where."}
    days = {"name": "days", "schema": {"type": "integer", "default": 1}}
    weather = {"operationId": "weather", "summary": "The weather.", "parameters": [town, days]}
    document = {"info": {"title": "met"}, "paths": {"/weather": {"get": weather}}}
    tools = page("operations").from_openapi(document, send)
    assert tools.names == ("weather",)
    assert tools["weather"].run(pg.ToolCall("1", "weather", {"town": "Oslo", "days": "3"})) == {"celsius": 21}
    assert sent == [("get", "/weather", {"town": "Oslo", "days": 3})]
    refused = tools["weather"].result(pg.ToolCall("2", "weather", {"days": 2}))
    assert refused.is_error
    assert "town" in str(refused.content)
    assert len(sent) == 1


def test_the_embedding_model_of_the_page_finds_neighbours(page):
    pytest.importorskip("numpy")
    embed = page("trigrams").embed
    assert embed(["a cat", "a dog"]).shape == (2, 256)
    index = pg.retrieve.Dense(["a black cat", "two dogs"], embed)
    assert [str(passage) for passage in index.search("a cat", k=1)] == ["a black cat"]
    examples = [
        pg.Example(text=text, kind=kind).with_inputs("text") for text, kind in (("cats", "cat"), ("dogs", "dog"))
    ]
    near = nn.Neighbours(examples, k=1, vectorizer=embed)
    assert [demo.kind for demo in near.select({"text": "my cat"})] == ["cat"]


def test_the_type_of_the_page_is_sent_with_its_image_and_checked(page):
    receipts = page("receipts")
    sent = []

    def respond(request):
        sent.append(request)
        return "[[ ## total ## ]]\n" + ("-3" if len(sent) == 1 else "12.345")

    respond.__annotations__["request"] = lm.Request
    scan = pg.Image(b"\x89PNG\r\n\x1a\n" + bytes(20), "image/png")
    model = nn.Predict(receipts.Total, adapter="chat", lm=lm.FunctionLM(respond, name="adds"))
    assert model(receipt=receipts.Receipt(scan=scan, shop="Bakery")).total == 12.35
    assert len(sent) == 2  # what is below zero was asked for again
    parts = [part for message in sent[0].messages for part in message.content if not isinstance(message.content, str)]
    assert scan in parts
