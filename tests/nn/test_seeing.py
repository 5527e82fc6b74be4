"""Programs that see, hear and read: through the wire, evaluation, cache, run, cassette, files, and training."""

import base64
import json
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import promptgrad as pg
from promptgrad import autograd, lm, nn, optim
from promptgrad.content import Audio, Document, File, History, Image
from promptgrad.errors import InputError, LMError
from promptgrad.testing import LoopbackLM
from tests.made_files import pdf, png, read_pdf, read_png, read_wav, wav

COLOURS = {"red": (255, 0, 0), "green": (0, 200, 0), "blue": (0, 0, 255)}
FORMATS = {"wav": read_wav}


def bytes_of(url):
    head, _, body = url.partition(";base64,")
    return head, base64.b64decode(body, validate=True)


class Eyes:
    """A simulated model that sees: it decodes what was sent, and tells colours if it is asked for colours."""

    def __init__(self):
        self.seen = []

    def __call__(self, messages):
        parts = messages[-1]["content"]
        told = []
        for part in [] if isinstance(parts, str) else parts:
            if part["type"] == "image_url":
                head, data = bytes_of(part["image_url"]["url"])
                assert head == "data:image/png"
                told.append(next(name for name, rgb in COLOURS.items() if rgb == read_png(data)[2]))
            elif part["type"] == "input_audio":
                assert part["input_audio"]["format"] == "wav"
                told.append(f"{read_wav(base64.b64decode(part['input_audio']['data'], validate=True)):.1f} seconds")
            elif part["type"] == "file":
                head, data = bytes_of(part["file"]["file_data"])
                assert head == "data:application/pdf"
                told += read_pdf(data)
        self.seen += told
        asked = "colour" in messages[0]["content"] or not told or "picture" not in messages[0]["content"]
        return f"[[ ## answer ## ]]\n{' '.join(told) if asked else 'a picture'}\n\n[[ ## completed ## ]]"


@pytest.fixture(scope="module")
def server():
    with LoopbackLM() as made:
        yield made


@pytest.fixture
def eyes(server):
    server.respond = Eyes()
    return server.respond


@pytest.fixture
def model(server, eyes):
    return lm.HTTP("vision-1", server.url)


def look(model, **options):
    return nn.Predict("picture: Image -> answer", **options).to(model)


def examples(count=6):
    names = [*COLOURS] * count
    return [
        pg.Example(picture=Image(png(8 + n, 8, COLOURS[name])), answer=name).with_inputs("picture")
        for n, name in enumerate(names[:count])
    ]


def test_real_bytes_reach_the_model(model, eyes):
    program = nn.Predict("picture: Image, sound: Audio, paper: File -> answer").to(model)
    answer = program(picture=Image(png()), sound=Audio(wav(2.0)), paper=File(pdf("page one", "page two"))).answer
    assert answer == "a picture"
    assert eyes.seen == ["red", "2.0 seconds", "page one", "page two"]


def test_an_address_is_passed_on_and_nothing_is_loaded(server, model):
    server.script("[[ ## answer ## ]]\nx\n\n[[ ## completed ## ]]")
    assert look(model)(picture="http://127.0.0.1:9/private.png").answer == "x"
    sent = server.requests[-1].messages[-1]["content"]
    assert sent[1] == {"type": "image_url", "image_url": {"url": "http://127.0.0.1:9/private.png"}}


def test_a_demo_with_an_image_is_a_turn_with_an_image(server, model):
    program = look(model, instruction="Name the colour.", demos=examples(1))
    assert program(picture=Image(png(colour=COLOURS["blue"]))).answer == "blue"
    sent = server.requests[-1].messages
    assert read_png(bytes_of(sent[1]["content"][1]["image_url"]["url"])[1]) == (8, 8, COLOURS["red"])
    assert "red" in sent[2]["content"]


def test_evaluation_and_its_report(model, tmp_path):
    rows = examples(6)
    assert pg.evaluate(look(model), rows, metric=pg.metrics.exact_match).score == 0
    report = pg.evaluate(look(model, instruction="Name the colour."), rows, metric=pg.metrics.exact_match)
    assert report.score == 1
    written = repr(report) + report.to_json() + report._repr_html_()
    assert "base64" not in written
    assert "iVBORw" not in written
    assert "Image(png, 8x8" in written


def test_a_cache_knows_an_image_by_its_content(server, model, tmp_path):
    with pg.track_usage() as usage:
        cached = lm.Cache(model, path=tmp_path / "lm.db")
        for size in (5, 5, 6):
            look(cached)(picture=Image(png(size, 5)))
        cached.close()
        again = lm.Cache(lm.HTTP("vision-1", server.url), path=tmp_path / "lm.db")
        look(again)(picture=Image(png(6, 5)))
        again.close()
    assert (usage.calls, usage.cached) == (2, 2)
    assert b"iVBORw" not in (tmp_path / "lm.db").read_bytes()


def test_a_cassette_answers_again_and_writes_an_image_once(server, model, tmp_path):
    large = Image(png(90, 90, comment=bytes(3_000)))
    rows = [{"picture": large, "question": str(number)} for number in range(3)]
    program = nn.Predict("picture: Image, question -> answer").to(model)
    with lm.record(tmp_path / "tape.jsonl"):
        said = [program(**row).answer for row in rows]
    before = server.received
    with lm.replay(tmp_path / "tape.jsonl"):
        assert [program(**row).answer for row in rows] == said
    with pytest.raises(LMError, match="99% alike") as caught, lm.replay(tmp_path / "tape.jsonl"):
        program(picture=large, question="another")
    with lm.record(tmp_path / "tape.jsonl", append=True):
        program(picture=large, question="another")
    assert server.received == before + 1
    assert "iVBORw" not in str(caught.value)
    text = (tmp_path / "tape.jsonl").read_text()
    assert text.count("iVBORw") == 1


def test_a_budget_reserves_tokens_for_an_image(model):
    small, large = Image(png(8, 8)), Image(png(8, 8).replace(b"\0\0\0\x08\0\0\0\x08", b"\0\0\x04\0\0\0\x04\0", 1))
    from promptgrad.lm._channel import estimate_tokens

    program = look(model)
    sizes = [estimate_tokens(program.request(picture=picture)) for picture in (small, large)]
    assert sizes[1] - sizes[0] == large.tokens() - small.tokens() == 1403 - 258
    mini = [estimate_tokens(program.request(picture=picture), "openai/gpt-4o-mini") for picture in (small, large)]
    assert mini[1] - mini[0] == 3 * 5667


def test_a_local_model_refuses_before_anything_is_loaded(server):
    before = server.received
    with pytest.raises(InputError, match="takes text alone, and message 2"):
        look(lm.Local("no/such-model"))(picture=Image(png()))
    assert server.received == before


def test_history_and_errors_show_no_bytes(model, eyes):
    look(model)(picture=Image(png()))
    assert "<image png, 64x48, 149 bytes>" in repr(pg.inspect_history())
    assert "iVBORw" not in repr(pg.inspect_history())


class TestFiles:
    def test_a_program_with_images_is_saved_and_loaded(self, model, tmp_path):
        large = Image(png(90, 90, (1, 2, 3), comment=bytes(3_000)))
        demos = [pg.Example(picture=large, answer=str(n)) for n in range(4)]
        program = nn.Predict("history: History, picture: Image -> answer", demos=demos)
        program.demos.data = [*program.demos.data, pg.Example(history=History([("user", ("x", large))]), answer="y")]
        pg.save(program.state_dict(), tmp_path / "p.json")
        other = nn.Predict("history: History, picture: Image -> answer")
        other.load_state_dict(pg.load(tmp_path / "p.json"))
        assert other.demos.data == program.demos.data
        assert other.request(history=[], picture=large).digest() == program.request(history=[], picture=large).digest()
        text = (tmp_path / "p.json").read_text()
        assert text.count("iVBORw") == 1  # five demos, one image
        assert json.loads(text)["version"] == 2
        pg.save(program, tmp_path / "folder")
        assert pg.load(tmp_path / "folder", nn.Predict("history: History, picture: Image -> answer")).demos.data == (
            program.demos.data
        )

    def test_files_of_older_versions_are_read(self, tmp_path):
        picture = Image(png())
        program = nn.Predict("picture: Image -> answer", demos=[pg.Example(picture=picture, answer="a")])
        old = {"format": "promptgrad.state", "version": 1, "promptgrad": "0.2.0", "state": program.state_dict()}
        (tmp_path / "old.json").write_text(json.dumps(old))
        loaded = pg.load(tmp_path / "old.json", nn.Predict("picture: Image -> answer"))
        assert loaded.demos.data == program.demos.data

    def test_a_program_of_texts_is_written_as_before(self, tmp_path):
        program = nn.Predict(
            "question -> answer", demos=[pg.Example(question={"type": "image", "blob": "x"}, answer="a")]
        )
        pg.save(program.state_dict(), tmp_path / "p.json")
        assert json.loads((tmp_path / "p.json").read_text())["version"] == 1
        assert pg.load(tmp_path / "p.json") == json.loads(json.dumps(program.state_dict()))

    def test_blobs_that_are_none_are_refused(self, tmp_path):
        state = {"format": "promptgrad.state", "version": 2, "state": {}, "blobs": {"x": 3}}
        (tmp_path / "p.json").write_text(json.dumps(state))
        with pytest.raises(pg.errors.StateDictError, match="blobs are texts by their digests"):
            pg.load(tmp_path / "p.json")


class Writer:
    """A scripted model that improves instructions, and keeps what it was shown."""

    def __init__(self):
        self.shown = []

    def __call__(self, messages):
        self.shown.append("\n".join(message.preview for message in messages))
        assert all(isinstance(message.content, str) for message in messages)
        return "[[ ## new_instruction ## ]]\nName the colour of the picture.\n\n[[ ## completed ## ]]"


def test_tgd_trains_a_program_that_sees(model, tmp_path):
    program = look(model, instruction="Say what the picture shows.")
    batch = examples(6)

    def metric(example, output):
        right = output.answer == example.answer
        return pg.Score(float(right), "" if right else f"It is {example.answer}, and the colour was wanted.")

    writer = Writer()
    opt = optim.TGD(program.parameters(), lm=lm.FunctionLM(writer))
    criterion = nn.MetricLoss(metric)
    loss = criterion(program.map(batch), batch)
    loss.backward()
    assert "the colour was wanted" in str(program.instruction.grad)
    opt.step()
    assert program.instruction.data == "Name the colour of the picture."
    assert pg.evaluate(program, batch, metric=metric).score == 1
    assert "Image(png, 8x8" in writer.shown[0] or "<image png, 8x8" in writer.shown[0]
    assert "iVBORw" not in writer.shown[0]


def test_a_critic_is_shown_a_description_and_blames_the_call(model):
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.see = nn.Predict("picture: Image -> answer", instruction="Say what the picture shows.")
            self.tell = nn.Predict("seen, picture: Image -> answer", instruction="Repeat.")

        def forward(self, picture):
            return self.tell(seen=self.see(picture=picture).answer, picture=picture)

    program = Two().to(model)
    asked = []

    def critic(messages):
        asked.append("\n".join(message.preview for message in messages))
        assert all(isinstance(message.content, str) for message in messages)
        names = re.findall(r"\[\[ ## (\w+) ## \]\]\n\{", messages[0].content)
        said = {name: "true" if name.endswith("to_blame") else "Name the colour." for name in names}
        return "\n\n".join([*(f"[[ ## {name} ## ]]\n{text}" for name, text in said.items()), "[[ ## completed ## ]]"])

    batch = examples(2)
    criterion = nn.MetricLoss(pg.metrics.exact_match, critic=lm.FunctionLM(critic))
    loss = criterion(program.map(batch), batch)
    loss.backward(engine="local")
    assert asked
    assert "Image(png, 8x8" in asked[0] or "<image png" in asked[0]
    assert "iVBORw" not in "".join(asked)
    assert "Name the colour." in str(program.see.instruction.grad)


def test_a_run_trains_it_with_a_journal_and_resumes(model, tmp_path):
    rows = examples(12)
    program = look(model, instruction="Say what the picture shows.")
    run = tmp_path / "run"
    writer = lm.FunctionLM(Writer(), name="writer")
    optimizer = optim.TGD(program.parameters(), lm=writer)
    result = pg.Trainer(
        program, optimizer, metric=pg.metrics.exact_match, budget=pg.Budget(calls=120), run_dir=run, seed=1000
    ).fit(rows[:6], rows[6:])
    assert result.outcome == "shipped", result
    assert program.instruction.data == "Name the colour of the picture."
    text = "".join(path.read_text() for path in Path(run).rglob("*.json*"))
    assert text.count("iVBORw") <= len(rows)


def test_a_plan_counts_the_tokens_of_images_and_says_where_it_guesses(server):
    program = look(lm.HTTP("openai/gpt-4o", server.url))
    trainer = pg.Trainer(program, optim.TGD(program.parameters()), metric=pg.metrics.exact_match)
    rows = [pg.Example(picture=picture, answer="x").with_inputs("picture") for picture in [Image(png(8, 8))] * 8]
    large = [row.copy(picture=Image(png(1024, 1024))) for row in rows]
    small_plan, large_plan = trainer.plan(rows[:4], rows[4:]), trainer.plan(large[:4], large[4:])
    assert round(large_plan.tokens_per_call - small_plan.tokens_per_call) == 765 - 255
    assert not any("tokens are assumed" in note for note in large_plan.notes)
    away = [row.copy(picture=Image(f"https://e.org/{n}.png?sig=x")) for n, row in enumerate(rows)]
    notes = "\n".join(trainer.plan(away[:4], away[4:]).notes)
    assert "the size of Image(https://e.org/0.png), so 1,333 tokens are assumed for each such image" in notes


class Chat(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Predict("question -> answer", instruction="Answer.")
        self.second = nn.Predict("history: History, question -> answer", instruction="Go on.")

    def forward(self, question):
        history = History().add(question=question, answer=self.first(question=question).answer)
        return self.second(history=history, question="And then?")


def test_what_an_earlier_call_wrote_is_an_edge_through_a_history():
    def model(messages):
        return "[[ ## answer ## ]]\nParis of course\n\n[[ ## completed ## ]]"

    program = Chat().to(lm.FunctionLM(model))
    with_graph = program(question="Which city?")
    tape = with_graph.grad_fn.tape
    found = [
        (edge.source.path, edge.field, edge.kind)
        for edge in autograd.edges(tape)
        if edge.target.__class__.__name__ == "Node"
    ]
    assert found == [("first", "history", "exact")]


IMAGES = st.tuples(st.integers(1, 4), st.integers(1, 4), st.tuples(*[st.integers(0, 255)] * 3)).map(
    lambda made: Image(png(*made))
)
MEDIA = st.one_of(
    IMAGES,
    st.just("https://example.org/a.png").map(Image),
    st.builds(Image, IMAGES.map(lambda image: image.data), detail=st.sampled_from(["", "low", "high"])),
)
WORDS = st.text(max_size=12)
TURNS = st.lists(
    st.tuples(st.sampled_from(["user", "assistant"]), WORDS | st.lists(WORDS | MEDIA, min_size=1, max_size=2))
    | st.fixed_dictionaries({"question": WORDS, "answer": WORDS}),
    max_size=3,
).map(lambda turns: History([turn if isinstance(turn, dict) else tuple(turn) for turn in turns]))
ROWS = st.fixed_dictionaries(
    {
        "history": TURNS,
        "pictures": st.lists(MEDIA, max_size=2),
        "best": st.none() | MEDIA,
        "sound": st.floats(0.01, 0.1).map(lambda seconds: Audio(wav(seconds))),
        "document": st.builds(Document, WORDS, WORDS),
        "paper": st.lists(st.sampled_from(["one", "two"]), min_size=1, max_size=2).map(lambda pages: File(pdf(*pages))),
        "question": WORDS,
    }
)
ALL = (
    "history: History, pictures: list[Image], best: Image | None, sound: Audio, paper: File, "
    "document: Document, question -> answer, code: Code"
)


@settings(max_examples=15, deadline=None)
@given(ROWS, ROWS, WORDS.filter(str.strip), st.sampled_from(["chat", "json", "xml"]))
def test_from_signature_to_wire_and_back_to_the_same_request(row, demo, answer, adapter):
    """Signature, wire, reply, prediction, state, loaded, the same request."""
    sent = []

    def respond(request):
        sent.append(request)
        if adapter == "json":
            return json.dumps({"answer": answer, "code": "x = 1"})
        if adapter == "xml":
            return f"<answer>{answer}</answer>\n\n<code>x = 1</code>"
        return f"[[ ## answer ## ]]\n{answer}\n\n[[ ## code ## ]]\n```\nx = 1\n```\n\n[[ ## completed ## ]]"

    model = lm.FunctionLM(respond)
    model._whole = True
    program = nn.Predict(ALL, adapter=adapter, demos=[pg.Example(**demo, answer="a", code="b")]).to(model)
    found = program(**row)
    assert found.code == "x = 1"
    program.demos.data = [*program.demos.data, pg.Example({**row, **found.to_dict()})]
    state = json.loads(json.dumps(program.state_dict()))
    loaded = nn.Predict(ALL, adapter=adapter).to(model)
    loaded.load_state_dict(state)
    assert loaded.demos.data == program.demos.data
    assert json.loads(json.dumps(loaded.state_dict())) == state
    one, other = program.request(**row), loaded.request(**row)
    assert one.digest() == other.digest()
    assert one.to_dict() == other.to_dict()
    assert lm.Request.of(json.loads(json.dumps(one.to_dict()))["messages"]) == lm.Request.of(one.messages)
    assert sent[0].messages == nn.Predict(ALL, adapter=adapter, demos=program.demos.data[:1]).messages(**row)
