"""Critics and writers of programs that see: images as they are where the model takes them, else their captions."""

import base64

import pydantic
import pytest

import promptgrad as pg
from promptgrad import lm, nn, optim
from promptgrad.content import Audio, Image, captioned
from promptgrad.metrics import exact_match
from promptgrad.nn._fit import fit, size
from promptgrad.testing import Fields, LoopbackLM
from tests.made_files import png, read_png, wav

RED, BLUE = Image(png(64, 48)), Image(png(30, 20, (0, 0, 255)))
ROWS = [
    pg.Example(picture=RED, question="which color?", answer="red").with_inputs("picture", "question"),
    pg.Example(picture=BLUE, question="which color?", answer="blue").with_inputs("picture", "question"),
]


class Seeing(nn.Module):
    def __init__(self):
        super().__init__()
        self.look = nn.Predict("picture: Image, question -> clue", describe=["picture"])
        self.name = nn.Predict("clue -> answer")

    def forward(self, picture, question):
        return self.name(clue=self.look(picture=picture, question=question).clue)


def images_of(request):
    content = request.messages[-1]["content"]
    parts = [] if isinstance(content, str) else [part for part in content if part["type"] == "image_url"]
    return [read_png(base64.b64decode(part["image_url"]["url"].partition(",")[2]))[:2] for part in parts]


def text_of(request):
    content = request.messages[-1]["content"]
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


@pytest.fixture
def server():
    said = "Say that the picture has one color."
    with LoopbackLM(Fields(answer="red", critique=said, descriptions_picture_critique=said)) as made:
        yield made


def failed(server, **options):
    model = Seeing().to(lm.HTTP("sees", server.url))
    loss = nn.MetricLoss(exact_match, **options)(model.map(ROWS), ROWS)
    before = len(server.requests)
    return model, loss, before


@pytest.mark.parametrize("engine", ["local", "joint"])
def test_the_model_that_saw_the_images_criticises_with_them(server, engine):
    model, loss, before = failed(server)
    loss.backward(engine=engine)
    asked = [request for request in server.requests[before:] if "<image" not in text_of(request)]
    (seen,) = [request for request in asked if images_of(request)]
    assert images_of(seen) == (
        [(30, 20)] if engine == "local" else [(30, 20), (64, 48)]
    )  # a right run stands beside it
    assert "image 1" in text_of(seen)
    blamed = dict(model.named_parameters())["look.descriptions.picture"]
    assert blamed.grad.critiques[0].text.startswith("Say that the picture")


@pytest.mark.parametrize("engine", ["local", "joint"])
def test_another_critic_of_which_nothing_is_known_gets_captions(server, engine):
    with LoopbackLM(Fields(critique="Say more.")) as other:
        _, loss, _ = failed(server, critic=lm.HTTP("another", other.url))
        loss.backward(engine=engine)
        assert other.requests
        assert not any(images_of(request) for request in other.requests)
        assert any("Image(png, 30x20" in text_of(request) for request in other.requests)


def test_what_litellms_table_says_of_a_model_counts():
    pytest.importorskip("litellm")
    assert lm.HTTP("openai/gpt-4o-mini", "http://127.0.0.1:1").media >= {"image"}
    assert lm.Cache(lm.HTTP("gpt-4o-mini", "http://127.0.0.1:1")).media >= {"image"}
    assert lm.HTTP("no such model", "http://127.0.0.1:1").media is None
    assert lm.FunctionLM(str, name="gpt-4o-mini").media is None
    both = lm.Fallback(lm.HTTP("gpt-4o-mini", "http://127.0.0.1:1"), lm.HTTP("gpt-3.5", "http://127.0.0.1:1"))
    assert both.media is None
    hedged = lm.Hedge(lm.HTTP("gpt-4o-mini", "http://127.0.0.1:1"), after=1.0)
    assert hedged.media >= {"image"}


def test_a_critic_that_the_table_knows_sees_what_another_model_saw(server):
    pytest.importorskip("litellm")
    with LoopbackLM(Fields(critique="Say more.")) as other:
        _, loss, _ = failed(server, critic=lm.HTTP("openai/gpt-4o-mini", other.url, api_key_env=None))
        loss.backward()
        assert any(images_of(request) for request in other.requests)


def test_a_judge_that_takes_images_sees_them():
    pytest.importorskip("litellm")
    with LoopbackLM(Fields(score="0.5", feedback="so so")) as server:
        for name, sees in (("openai/gpt-4o-mini", True), ("another", False)):
            judge = nn.Judge("Is the answer about the picture?", lm=lm.HTTP(name, server.url, api_key_env=None))
            assert judge(ROWS[0], nn.Prediction(answer="red")).value == 0.5
            assert images_of(server.requests[-1]) == ([(64, 48)] if sees else [])
            assert ("Image(png, 64x48" in text_of(server.requests[-1])) is not sees


def test_the_embedded_model_takes_text_alone():
    assert lm.pocket().media == frozenset()


@pytest.mark.parametrize("steps", ["one", "two"])
def test_tgd_trains_a_program_that_sees_and_its_writer_sees_the_rows(steps):
    """A chain has its blame found by the writer, a single call needs none: both writers look at the pictures."""
    whole = "Look at the whole picture."

    def answer(messages):
        return "blue" if whole in str(messages[0]["content"]) else "red"

    def respond(messages):
        revisions = f'[{{"parameter": "look.instruction", "new_text": "{whole}"}}]'
        return Fields(answer=answer(messages), clue=answer(messages), new_instruction=whole, revisions=revisions)(
            messages
        )

    rows = [row.copy(answer="blue") for row in ROWS]
    with LoopbackLM(respond) as server:
        model = Seeing() if steps == "two" else nn.Predict("picture: Image, question -> answer")
        model.to(lm.HTTP("sees", server.url))
        optimizer = optim.TGD(model.parameters(), batch_size=2)
        pg.Trainer(model, optimizer, metric=exact_match, budget=pg.Budget(calls=80), progress=False).fit(
            rows, [row.copy(question="and now?") for row in rows]
        )
        writers = [
            one for one in server.requests if "[[ ## rows ## ]]" in text_of(one) or "[[ ## runs ## ]]" in text_of(one)
        ]
    assert writers
    assert all(sorted(images_of(one)) == [(30, 20), (64, 48)] for one in writers)
    assert "<image" not in "".join(map(text_of, writers))


def test_values_for_readers_of_text():
    sound = Audio(wav())
    value = {"a": [RED, "x"], "b": (1, {"c": sound})}
    assert captioned(value) == {"a": [str(RED), "x"], "b": (1, {"c": str(sound)})}
    assert captioned(value, {"image"})["a"][0] is RED
    assert captioned(value, {"image", "audio"}) is value


def test_images_count_in_the_size_of_what_a_critic_is_shown():
    assert size([RED, "x" * 40]) == 10 + RED.tokens()
    cut = fit({"a": RED, "b": "x" * 4_000}, RED.tokens() + 100)
    assert cut["a"] is RED
    assert "characters left out" in cut["b"]


class Card(pydantic.BaseModel):
    picture: Image
    more: list[Image] = []
    note: str = ""


CARD_ROWS = [
    pg.Example(card=Card(picture=RED, more=[BLUE], note="image 1"), answer="red").with_inputs("card"),
    pg.Example(card=Card(picture=BLUE), answer="blue").with_inputs("card"),
]


class Naming(nn.Module):
    def __init__(self):
        super().__init__()
        self.look = nn.Predict("card: Card -> clue", types={"Card": Card})
        self.name = nn.Predict("clue -> answer")

    def forward(self, card):
        return self.name(clue=self.look(card=card).clue)


@pytest.mark.parametrize("engine", ["local", "joint"])
@pytest.mark.parametrize("sees", [True, False])
def test_images_inside_a_model_are_seen_as_any_other(engine, sees):
    said = Fields(answer="green", critique="Say that the picture has one color.", clue="none")
    with LoopbackLM(said) as server, LoopbackLM(said) as other:
        model = Naming().to(lm.HTTP("sees", server.url))
        critic = None if sees else lm.HTTP("another", other.url)
        loss = nn.MetricLoss(exact_match, critic=critic)(model.map(CARD_ROWS), CARD_ROWS)
        before = len(server.requests)
        loss.backward(engine=engine)
        asked = server.requests[before:] if sees else other.requests
    found = sorted(image for request in asked for image in set(images_of(request)))
    assert set(found) == ({(30, 20), (64, 48)} if sees else set())
    told = "".join(map(text_of, asked))
    assert '"note":"image 1"' in told  # a text of the card, and no reference
    assert ("Image(png, 64x48" in told) is not sees


@pytest.mark.parametrize("kind", ["field", "model", "history"])
@pytest.mark.parametrize("sees", [True, False])
def test_the_adviser_of_refine_sees_what_the_program_saw(kind, sees):
    signature, given = {
        "field": ("picture: Image -> answer", RED),
        "model": ("picture: Card -> answer", Card(picture=RED)),
        "history": ("picture: History -> answer", pg.History([("user", ("look", RED)), ("assistant", "yes")])),
    }[kind]
    said = Fields(answer="green", discussion="It is not green.", advice="Look again.")
    with LoopbackLM(said) as server, LoopbackLM(said) as other:
        program = nn.Refine(nn.Predict(signature, types={"Card": Card}), 2, lambda inputs, output: 0.0)
        program.to(lm.HTTP("sees", server.url))
        if not sees:
            program.adviser.to(lm.HTTP("another", other.url))
        program(picture=given)
    (asked,) = [one for one in server.requests + other.requests if "[[ ## verdict ## ]]" in text_of(one)]
    assert images_of(asked) == ([(64, 48)] if sees else [])  # once, although inputs and calls have it
    assert "Image(png, 64x48" in text_of(asked)
