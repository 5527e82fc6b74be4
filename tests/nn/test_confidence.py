"""The confidence in a choice: exact on a local model, from log-probabilities elsewhere."""

import enum
import math
from typing import Literal

import pydantic
import pytest

from promptgrad import nn
from promptgrad.errors import InputError
from promptgrad.lm import HTTP, Cache, Retry
from promptgrad.signature import Field, Signature
from promptgrad.testing import LoopbackLM, Reply


class Mood(enum.Enum):
    GOOD = "good"
    BAD = "bad"


@pytest.fixture(scope="module")
def server():
    with LoopbackLM() as running:
        yield running


def step(kind, **options):
    return nn.Predict(Signature([Field("text"), Field("label", kind, role="output")], "Say it."), retries=0, **options)


def ask(server, kind, reply, **options):
    server.script(reply)
    model = Retry(HTTP("m", base_url=server.url, logprobs=True, top_logprobs=3))
    return step(kind, **options)(text="x", lm=model)


def scripted(text, tokens):
    return Reply(text, logprobs=tokens)


SECTIONS = "[[ ## label ## ]]\ngood\n\n[[ ## completed ## ]]"


def in_sections(*tokens):
    return scripted(SECTIONS, [("[[ ## label ## ]]\n", -0.1), *tokens, ("\n\n[[ ## completed ## ]]", -0.2)])


def test_it_is_the_share_of_the_value_among_those_that_the_first_token_tells_apart(server):
    reply = in_sections(("good", math.log(0.6), {"good": math.log(0.6), "bad": math.log(0.2), "fine": math.log(0.1)}))
    found = ask(server, Literal["good", "bad"], reply)
    assert found.label == "good"
    assert found.confidence("label") == pytest.approx(0.75)
    assert nn.confidence(found, "label") == pytest.approx(0.75)
    assert ask(server, Mood, reply).confidence("label") == pytest.approx(0.75)


def test_it_is_the_probability_of_its_tokens_where_nothing_tells_the_others(server):
    reply = in_sections(("go", math.log(0.5)), ("od", math.log(0.8)))
    assert ask(server, Literal["good", "bad"], reply).confidence("label") == pytest.approx(0.4)
    both = in_sections(("go", math.log(0.5), {"go": math.log(0.5)}), ("od", math.log(0.8)))  # of "gone" as well
    assert ask(server, Literal["good", "gone"], both).confidence("label") == pytest.approx(0.4)


@pytest.mark.parametrize("text", ['{"label": true}', '{"other": {"label": false}, "label": true}'])
def test_it_reads_objects(server, text):
    head, tail = text[: text.rindex("true")], "}"
    top = {" true": -9.0, "true": math.log(0.9), "false": math.log(0.1)}
    reply = scripted(text, [(head, -0.5), ("true", math.log(0.9), top), (tail, 0.0)])
    found = ask(server, bool, reply, adapter="json")
    assert found.label is True
    assert found.confidence("label") == pytest.approx(0.9)


def test_a_quote_belongs_to_the_value_of_an_object(server):
    reply = scripted('{"label": "good"}', [('{"label":', -0.5), (' "', -0.01), ("good", -0.3), ('"}', -0.02)])
    found = ask(server, Literal["good", "bad"], reply, adapter="json")
    assert found.confidence("label") == pytest.approx(math.exp(-0.33))


class Vote(pydantic.BaseModel):
    who: str
    mood: Mood | None
    tags: list[Literal["a", "b"]]


VOTES = '[{"who": "]", "mood": "good", "tags": ["a", "b"]}, {"who": "x", "mood": null, "tags": []}]'


@pytest.mark.parametrize("adapter", ["chat", "json", "xml", "compact"])
def test_a_part_of_a_list_or_a_model_has_one_too(server, adapter):
    text = {
        "chat": f"[[ ## label ## ]]\n{VOTES}\n\n[[ ## completed ## ]]",
        "json": f'{{"label": {VOTES}}}',
        "xml": f"<label>{VOTES}</label>",
        "compact": f"label: {VOTES}",
    }[adapter]
    at, quoted = text.index('"good"'), text.index('"b"')
    tokens = [
        (text[:at], -0.1),
        ('"good', math.log(0.6), {'"good': math.log(0.6), '"bad': math.log(0.3), "null": math.log(0.1)}),
        (text[at + 5 : quoted], -0.2),
        ('"b', math.log(0.5)),
        ('"', math.log(0.5)),
        (text[quoted + 3 :], -0.1),
    ]
    found = ask(server, list[Vote], scripted(text, tokens), adapter=adapter)
    assert found.label[0].mood is Mood.GOOD
    assert found.confidence("label[0].mood") == pytest.approx(0.6)  # 1 with what is nothing
    assert found.confidence("label[0].tags[1]") == pytest.approx(0.25)
    assert 0 < found.confidence("label[1].mood") <= 1
    for bad in ("label[0].who", "label[9].mood", "label[0].none", "label", "label[0", "other[0]", "label[0].tags"):
        with pytest.raises(InputError, match="no confidence"):
            found.confidence(bad)


def test_keys_and_choices_that_may_be_nothing(server):
    text = '{"label": {"an na": "good", "bob": null}}'
    found = ask(server, dict[str, Mood | None], scripted(text, [(text, -0.5)]), adapter="json")
    assert found.confidence('label["an na"]') == found.confidence("label['bob']") == pytest.approx(math.exp(-0.5))
    nothing = scripted(
        '{"label": null}', [('{"label": ', -1), ("null", math.log(0.2), {'"good': math.log(0.6)}), ("}", 0)]
    )
    assert ask(server, Mood | None, nothing, adapter="json").confidence("label") == pytest.approx(0.25)


def test_thoughts_before_the_reply_do_not_count(server):
    text = f"<think>{SECTIONS} or not</think>{SECTIONS}"
    at = text.rindex("good")
    tokens = [(text[:at], -3.0), ("good", math.log(0.9)), (text[at + 4 :], -0.1)]
    found = ask(server, Literal["good", "bad"], scripted(text, tokens))
    assert found.confidence("label") == pytest.approx(0.9)


def test_what_cannot_be_told_is_an_error_that_says_why(server):
    found = ask(server, Literal["good", "bad"], SECTIONS)
    with pytest.raises(InputError, match=r"no log-probabilities.*logprobs=True"):
        found.confidence("label")
    with pytest.raises(InputError, match="its outputs are label"):
        found.confidence("labels")
    with pytest.raises(InputError, match="which is of the type str"):
        ask(server, str, in_sections(("good", -0.1))).confidence("label")
    with pytest.raises(InputError, match="in other words"):
        ask(server, Literal["good", "bad"], "**label**: good").confidence("label")
    with pytest.raises(InputError, match="do not add up"):
        ask(server, Literal["good", "bad"], scripted(SECTIONS, [("something else", -0.1)])).confidence("label")
    with pytest.raises(InputError, match="no call of a language model"):
        nn.Prediction(label="good").confidence("label")


def test_an_output_of_that_name_comes_first(server):
    outputs = [Field("confidence", Literal["low", "high"], role="output")]
    server.script("low")
    found = nn.Predict(Signature([Field("text"), *outputs], "Say it."))(text="x", lm=HTTP("m", base_url=server.url))
    assert found.confidence == "low"
    with pytest.raises(InputError, match="log-probabilities"):
        nn.confidence(found, "confidence")


def test_a_local_model_is_asked_for_each_value():
    torch = pytest.importorskip("torch")
    from promptgrad.lm import LocalTrace, pocket

    labels = ("red", "green", "blue", "yellow")
    kind = Literal[labels]
    asked = Signature([Field("text"), Field("answer", kind, role="output")], "name the color of the last word")
    model = nn.Predict(asked).to(Cache(pocket()))
    found = model(text="apple banana")
    sure = found.confidence("answer")
    request = model.request(text="apple banana")
    with torch.no_grad():
        totals = LocalTrace.log_likelihoods([pocket().target(request, label) for label in labels])
    wanted = torch.tensor(totals).softmax(0)
    assert sure == pytest.approx(float(wanted[labels.index(found.answer)]), rel=1e-4)
    assert found.answer == labels[int(wanted.argmax())]
    again = model(text="apple banana")  # from the cache
    assert again.confidence("answer") == pytest.approx(sure)


def test_a_value_before_others_does_not_count_what_follows():
    pytest.importorskip("torch")
    from promptgrad.lm import pocket

    outputs = [Field("verdict", bool, role="output"), Field("answer", role="output")]
    asked = Signature([Field("text"), *outputs], "name the color of the last word")
    found = nn.Predict(asked, retries=0)(text="apple banana", lm=pocket(constrain=True))
    prompt = nn.Predict(asked, adapter="pocket").request(text="apple banana")
    yes, no = pocket().log_likelihoods(prompt, ["yes [[answer]]", "no [[answer]]"], ended=False)
    share = 1 / (1 + math.exp(no - yes))
    assert found.confidence("verdict") == pytest.approx(share if found.verdict else 1 - share, rel=1e-4)
