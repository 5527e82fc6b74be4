"""Descriptions of fields as parameters: in prompts, saved, blamed, trained; and `ParameterDict`, which holds them."""

import json
import re

import pytest

import promptgrad as pg
from promptgrad import lm, nn, optim
from promptgrad.errors import SignatureError, StateDictError
from promptgrad.testing import LoopbackLM
from tests.nn.test_seeing import Eyes, examples


class Shelf(pg.Signature):
    """Say what is there."""

    picture: pg.Image = pg.Input(desc="a photo")
    history: pg.History = pg.Input()
    answer: str = pg.Output(desc="one word")


def look(**options):
    return nn.Predict("picture: Image -> answer", instruction="Say what the picture shows.", **options)


def test_without_it_nothing_is_a_parameter():
    assert [*dict(look().named_parameters())] == ["instruction", "demos"]
    assert [*look().state_dict()] == ["instruction", "demos"]
    assert look(describe=[]).state_dict() == look().state_dict()


def test_they_begin_as_the_signature_says_and_stand_in_the_prompt():
    program = nn.Predict(Shelf, describe=True)
    texts = program.descriptions
    assert {name: parameter.data for name, parameter in texts.items()} == {"picture": "a photo", "answer": "one word"}
    assert all(parameter.kind == "description" and parameter.requires_grad for parameter in texts.values())
    before = program.messages(picture="https://e.org/a.png", history=[])
    assert before == nn.Predict(Shelf).messages(picture="https://e.org/a.png", history=[])
    texts["picture"].data = "a photo of a shelf"
    assert (
        "- `picture`: an image; a photo of a shelf"
        in program.render(picture="https://e.org/a.png", history=[])[0]["content"]
    )
    assert program.signature.fields["picture"].description == "a photo of a shelf"
    plain = nn.Predict("question -> answer", describe=True, lm="openai/gpt-4o-mini")
    plain.descriptions["question"].data = "a riddle"
    assert "a riddle" in pg.export(plain, format="python")
    assert "a photo of a shelf" in json.dumps(program.export())


@pytest.mark.parametrize("adapter", ["chat", "json", "xml", "compact"])
def test_each_adapter_writes_them(adapter):
    program = look(describe="picture", adapter=adapter)
    program.descriptions["picture"].data = "mind its colour"
    assert [*program.descriptions] == ["picture"]
    assert "mind its colour" in program.render(picture="https://e.org/a.png")[0]["content"]


def test_what_is_no_field_is_refused():
    with pytest.raises(SignatureError, match="whose descriptions are trained, picture, answer, not 'image'"):
        look(describe=["image"])
    with pytest.raises(SignatureError, match="not 'history'"):
        nn.Predict(Shelf, describe=["history"])


def test_they_are_saved_and_loaded(tmp_path):
    program = look(describe=True)
    program.descriptions["answer"].data = "a colour"
    pg.save(program.state_dict(), tmp_path / "p.json")
    other = pg.load(tmp_path / "p.json", look(describe=True))
    assert other.descriptions["answer"].data == "a colour"
    assert other.messages(picture="https://e.org/a.png") == program.messages(picture="https://e.org/a.png")
    with pytest.raises(StateDictError, match=r"descriptions\.answer"):
        pg.load(tmp_path / "p.json", look())


def test_a_candidate_and_an_attempt_lay_theirs_over_them():
    seen = []
    program = look(describe=True).to(lm.FunctionLM(lambda messages: seen.append(messages[0].content) or "x"))
    with program.candidate({"descriptions.picture": "mind its colour"}):
        program(picture="https://e.org/a.png")
    program(picture="https://e.org/a.png")
    assert ["mind its colour" in text for text in seen] == [True, False]
    assert program.descriptions["picture"].data == ""


def metric(example, output):
    right = output.answer == example.answer
    return pg.Score(float(right), "" if right else f"It is {example.answer}, and the colour was wanted.")


def test_the_description_of_an_image_is_blamed_and_trained():
    asked = []

    def writer(messages):
        asked.append("\n".join(message.preview for message in messages))
        return "[[ ## new_instruction ## ]]\nmind its colour\n\n[[ ## completed ## ]]"

    batch = examples(6)
    with LoopbackLM(Eyes()) as server:
        program = look(describe=["picture"]).to(lm.HTTP("vision-1", server.url))
        assert pg.evaluate(program, batch, metric).score == 0
        opt = optim.TGD(program.descriptions.parameters(), lm=lm.FunctionLM(writer))
        loss = nn.MetricLoss(metric)(program.map(batch), batch)
        loss.backward()
        assert "the colour was wanted" in str(program.descriptions["picture"].grad)
        opt.step()
        assert program.descriptions["picture"].data == "mind its colour"
        assert program.instruction.data == "Say what the picture shows."
        assert pg.evaluate(program, batch, metric).score == 1
    assert "<image png, 8x8" in asked[0]
    assert "iVBORw" not in "".join(asked)


@pytest.mark.parametrize("engine", ["local", "joint"])
def test_a_critic_divides_the_blame_among_instruction_and_description(engine):
    asked = []

    def critic(messages):
        asked.append("\n".join(message.preview for message in messages))
        system = messages[0].content
        if engine == "joint":
            finding = {
                "runs": [1, 2],
                "parameter": "descriptions.picture",
                "critique": "It names no colour.",
                "to_blame": True,
            }
            return f"[[ ## findings ## ]]\n{json.dumps([finding])}\n\n[[ ## completed ## ]]"
        names = re.findall(r"\[\[ ## (\w+) ## \]\]\n\{", system)
        said = {
            name: str("picture" in name).lower() if name.endswith("to_blame") else "It names no colour."
            for name in names
        }
        return "\n\n".join([*(f"[[ ## {name} ## ]]\n{text}" for name, text in said.items()), "[[ ## completed ## ]]"])

    batch = examples(2)
    with LoopbackLM(Eyes()) as server:
        program = look(describe=["picture"]).to(lm.HTTP("vision-1", server.url))
        loss = nn.MetricLoss(metric, critic=lm.FunctionLM(critic))(program.map(batch), batch)
        loss.backward(engine=engine)
    assert asked
    assert "It names no colour." in str(program.descriptions["picture"].grad)
    assert "iVBORw" not in "".join(asked)
    assert "descriptions" in asked[0]


def test_a_search_trains_them_and_a_run_is_resumed(tmp_path):
    asked = []

    def writer(messages):
        asked.append(messages[-1].content)
        return "[[ ## new_instruction ## ]]\nmind its colour\n\n[[ ## completed ## ]]"

    rows = examples(18)
    with LoopbackLM(Eyes()) as server:

        def fit(begin):
            program = look(describe=["picture"]).to(lm.HTTP("vision-1", server.url))
            opt = optim.TGD(program.descriptions.parameters(), lm=lm.FunctionLM(writer, name="writer"))
            if not begin:
                return pg.Trainer.resume(tmp_path, program, opt, metric, progress=False), program
            trainer = pg.Trainer(
                program, opt, metric=metric, budget=pg.Budget(calls=120), run_dir=tmp_path, seed=3, progress=False
            )
            return trainer.fit(rows[:6], rows[6:]), program

        first, program = fit(True)
        before = server.received
        again, other = fit(False)
        assert server.received == before
    assert (first.outcome, again.outcome) == ("shipped", "shipped")
    assert "describes the input `picture` of a step to the model that answers it" in asked[0]
    assert program.descriptions["picture"].data == other.descriptions["picture"].data == "mind its colour"


class TestParameterDict:
    def test_any_word_is_a_key(self):
        model = nn.Module()
        model.tones = nn.ParameterDict({"train": pg.Parameter("warm"), "data": pg.Parameter("cold")})
        assert [*dict(model.named_parameters())] == ["tones.train", "tones.data"]
        assert (len(model.tones), "train" in model.tones, [*model.tones.keys()]) == (2, True, ["train", "data"])
        assert callable(model.tones.train)  # the method is still there
        model.load_state_dict({**model.state_dict(), "tones.train": "hot"})
        assert model.tones["train"].data == "hot"
        assert model.tones.pop("data").data == "cold"
        del model.tones["train"]
        assert [*model.parameters()] == []

    def test_what_is_no_parameter_or_key_is_refused(self):
        with pytest.raises(TypeError, match="a ParameterDict holds parameters, not str"):
            nn.ParameterDict({"a": "b"})
        with pytest.raises(KeyError, match="without a dot"):
            nn.ParameterDict({"a.b": pg.Parameter("x")})
        with pytest.raises(KeyError, match="there is no parameter 'x'; the keys are a"):
            _ = nn.ParameterDict({"a": pg.Parameter("x")})["x"]
        with pytest.raises(NotImplementedError, match="a ParameterDict is not called"):
            nn.ParameterDict()()
