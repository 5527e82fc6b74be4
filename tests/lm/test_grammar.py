"""Replies held to a form while they are written: grammars, the rows of a batch, and what cannot be held."""

import asyncio
import datetime
import decimal
import json
import random
import sys
import uuid
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest

from promptgrad import aio, nn
from promptgrad.adapters import get_adapter
from promptgrad.errors import BadRequestError, CutReplyError, MissingExtraError
from promptgrad.lm import Cache, Local, Message, Request, json_grammar, json_rule, pocket
from promptgrad.signature import Field, Signature

torch = pytest.importorskip("torch")
llguidance = pytest.importorskip("llguidance")
pydantic = pytest.importorskip("pydantic")

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def schemas():
    sys.path.insert(0, str(BENCHMARKS))
    try:
        import random_schemas

        return random_schemas
    finally:
        sys.path.remove(str(BENCHMARKS))


@pytest.fixture(scope="module")
def byte_pairs(schemas):
    """The layers of the embedded model under a vocabulary of byte pairs: it writes at random what a form allows."""
    tokenizer = schemas.byte_tokenizer(500)
    return schemas.byte_model(tokenizer), tokenizer


@pytest.fixture
def wide(byte_pairs):
    lm = Local(*byte_pairs, name="bytes", constrain=True, temperature=1.0, max_tokens=120, threads=1)
    yield lm
    lm.close()


def ask(lm, *requests):
    async def all_of_them():
        return await asyncio.gather(*[lm.sample(request) for request in requests])

    return aio.run(all_of_them())


def form_of(schema):
    return {"type": "json_schema", "json_schema": {"name": "it", "schema": schema, "strict": True}}


RECORD = {
    "type": "object",
    "properties": {"size": {"type": "integer", "minimum": 3, "maximum": 40}, "kind": {"enum": ["red", "blue"]}},
    "required": ["size", "kind"],
    "additionalProperties": False,
}
WORDS = {"type": "array", "items": {"enum": ["yes", "no"]}, "minItems": 2, "maxItems": 3}


# --- every reply is read ---


@pytest.mark.parametrize("adapter", ["json", "chat", "xml", "compact"])
def test_random_types_are_never_unparsable(schemas, wide, adapter):
    draw = random.Random(1000 if adapter == "json" else 1001)
    asked = [schemas.random_signature(draw, number, texts=adapter == "json") for number in range(12)]
    counts, bad = aio.run(schemas.outcomes(asked, wide, adapter, "which one", 0))
    assert bad == []
    assert counts["read"] >= 5  # the others ran out of tokens


def test_the_embedded_model_writes_what_its_types_say(schemas):
    draw = random.Random(1002)
    asked = [schemas.pocket_signature(draw, number) for number in range(40)]
    held, free = pocket(constrain=True, temperature=1.0), pocket(constrain=False, temperature=1.0)
    counts, bad = aio.run(schemas.outcomes(asked, held, "pocket", "red apple", 0))
    assert bad == []
    assert counts["read"] >= 30  # the others ran out of tokens in a text
    loose, _ = aio.run(schemas.outcomes(asked, free, "pocket", "red apple", 0))
    assert loose["unparsable"] > 20  # so it is the grammar
    held.close()
    free.close()


def test_a_choice_of_words_that_the_embedded_model_cannot_write_is_left_free():
    step = nn.Predict("text -> answer: Literal['spam', 'ham']")
    with pytest.warns(UserWarning, match="spam"):
        assert step_grammar(step, "pocket") is None


def step_grammar(step, adapter):
    return get_adapter(adapter).compile(step.signature).grammar


def test_texts_alone_are_free_and_sections_come_in_their_order(wide):
    assert step_grammar(nn.Predict("question -> answer"), "chat") is None
    assert step_grammar(nn.Predict("text -> reasoning, answer"), "pocket") is None
    assert step_grammar(nn.Predict("question -> answer: int"), "json") is None  # response_format says it
    step = nn.Predict("question -> why, label: Literal['yes', 'no'], note, size: int")
    assert step_grammar(step, "chat").splitlines()[0] == (
        'start: /[ \\n]{0,2}/ "[[ ## why ## ]]" text " label ## ]]" "\\n" value_1 "\\n\\n[[ ##" " note ## ]]" text '
        '" size ## ]]" "\\n" value_3 "\\n\\n[[ ##" " completed ## ]]"'
    )
    reply = (
        "[[ ## why ## ]]\nas [[ it ]]\n\nsays\n\n[[ ## label ## ]]\nno\n\n[[ ## note ## ]]\n\n[[ ## size ## ]]\n"
        "-12\n\n[[ ## completed ## ]]"
    )
    grammar = step_grammar(step, "chat")
    assert takes(wide, grammar, reply)
    assert nn.Predict(step.signature, adapter="chat")._adapter_here().parse(step.signature, reply)["size"] == -12
    for old, new in [
        ("no\n", "maybe\n"),
        ("-12", "-1.2"),
        ("label ##", "size ##"),
        ("completed", "done"),
        ("12", "01"),
    ]:
        assert not takes(wide, grammar, reply.replace(old, new))


def test_tags_hold_what_their_types_say(wide):
    step = nn.Predict("question -> why, label: Literal['yes', 'no'], size: int")
    grammar = step_grammar(step, "xml")
    reply = "<why>as <b>it</b>\nsays</why>\n\n<label>no</label>\n\n<size>-12</size>"
    assert takes(wide, grammar, reply)
    form = nn.Predict(step.signature, adapter="xml")._adapter_here().format(step.signature)
    assert form.read(reply) == {"why": "as <b>it</b>\nsays", "label": "no", "size": -12}
    for old, new in [("no<", "maybe<"), ("-12", "-1.2"), ("<label>", "<size>"), ("</size>", "")]:
        assert not takes(wide, grammar, reply.replace(old, new))
    found = form.place(reply, "label")
    assert (reply[found.start : found.end], found.after) == ("no", "</label>")
    assert step_grammar(nn.Predict("question -> answer"), "xml") is None


def test_lines_come_in_their_order_and_each_label_once(wide):
    step = nn.Predict("question -> why, kind: Literal['ham', 'spam'], more")
    grammar = step_grammar(step, "compact")
    reply = "why: a: b\n\nkinds: [\nquestion: c\nkind: spam\nmore:  d\ne "
    assert takes(wide, grammar, reply)
    form = nn.Predict(step.signature, adapter="compact")._adapter_here().format(step.signature)
    assert form.read(reply) == {"why": "a: b\n\nkinds: [\nquestion: c", "kind": "spam", "more": "d\ne"}
    for old, new in [
        ("kinds: [", "Why : ["),
        ("question: c", "more: c"),
        ("spam", "eggs"),
        ("\ne ", "\nKIND: ham"),
        ("why: ", ""),
    ]:
        assert not takes(wide, grammar, reply.replace(old, new))
    assert step_grammar(nn.Predict("question -> answer"), "compact") is None


def takes(lm, grammar, text):
    engine = lm._load()
    matcher = engine._grammars().constraint(grammar).matcher
    ids = lm.tokenizer(text)["input_ids"]
    return matcher.try_consume_tokens(ids) == len(ids) and matcher.is_accepting()


# --- rows of a batch ---


def test_rows_with_different_forms_and_with_none_are_those_they_are_alone(wide):
    forms = [form_of(RECORD), None, form_of(WORDS), {"type": "json_object"}, None, form_of(RECORD)]
    asked = [Request.of([Message("user", f"number {n}")], temperature=1.0, max_tokens=24) for n in range(len(forms))]
    asked = [one if form is None else one.replace(response_format=form) for one, form in zip(asked, forms, strict=True)]
    together = ask(wide, *asked)
    assert [one.text for one in together] == [ask(wide, one)[0].text for one in asked]
    for one, form in zip(together, forms, strict=True):
        if form == form_of(RECORD):
            value = json.loads(one.text)
            assert 3 <= value["size"] <= 40
            assert value["kind"] in ("red", "blue")
    assert 2 <= len(json.loads(together[2].text)) <= 3
    assert together[1].text != together[4].text
    assert not together[1].text.startswith("{")


def test_many_rows_are_masked_by_several_threads_alike(wide, monkeypatch):
    monkeypatch.setattr("promptgrad.lm._grammar._PARALLEL", 1_000)
    asked = [
        Request.of(f"number {n}", temperature=1.0, max_tokens=40, response_format=form_of(RECORD)) for n in range(12)
    ]
    made = [json.loads(one.text)["kind"] for one in ask(wide, *asked)]
    assert set(made) == {"red", "blue"}
    assert len(wide._load().decoder.grammars._matchers) == 1  # compiled once


def test_log_probabilities_are_those_of_the_model_whatever_is_forbidden(wide):
    request = Request.of("say it", temperature=1.0, response_format=form_of(WORDS))

    async def scored():
        return await wide.sample(request, logprobs=True)

    made = aio.run(scored())
    (whole,) = wide.log_likelihoods(request, [made.text])
    assert sum(made.logprobs) == pytest.approx(whole, abs=0.05) or len(made.ids) != len(
        wide.tokenizer(made.text)["input_ids"]
    )
    assert sum(made.logprobs) < -3 * len(made.ids)  # what is drawn among few was unlikely among all


def test_greedy_replies_are_held_too(byte_pairs):
    lm = Local(*byte_pairs, name="bytes", constrain=True, temperature=0.0, max_tokens=60, threads=1)
    assert len(json.loads(lm("one", response_format=form_of(WORDS)).text)) in (2, 3)
    lm.close()


def test_it_streams(wide):
    async def collect():
        events = [event async for event in wide.stream("one", response_format=form_of(WORDS), max_tokens=60)]
        return "".join(event.text for event in events[:-1]), events[-1]

    said, completion = aio.run(collect())
    assert said == completion.text
    assert len(json.loads(said)) in (2, 3)


def test_a_lora_and_its_base_share_the_grammars(wide):
    lora = wide.lora("a", r=2)
    assert lora.constrains
    made = ask(lora, Request.of("x", temperature=1.0, max_tokens=60, response_format=form_of(WORDS)))
    assert len(json.loads(made[0].text)) in (2, 3)


# --- what ends otherwise ---


def test_a_cut_reply_is_an_error_of_its_own_kind(wide):
    step = nn.Predict("question -> words: list[str]", adapter="json", retries=0)
    with pytest.raises(CutReplyError, match="max_tokens=4"):
        step(question="which", lm=wide, config={"max_tokens": 4})


UNSUPPORTED = [
    ({"type": "string", "pattern": "(?=a)b"}, "look-around"),
    ({"type": "integer", "minimum": 3, "maximum": 2}, "Unsatisfiable"),
    ({"type": "object", "propertyNames": {"format": "email"}}, "propertyNames"),
    ({"not": {"type": "string"}}, "not"),
]


@pytest.mark.parametrize(("schema", "said"), UNSUPPORTED)
def test_what_is_not_supported_is_refused_before_anything_is_computed(wide, schema, said):
    with pytest.raises(BadRequestError, match=said) as caught:
        wide("one", response_format=form_of(schema))
    assert "constrain=False" in str(caught.value)
    assert wide.stats()["output_tokens"] == 0


def test_by_default_it_is_said_once_and_left_free(byte_pairs):
    lm = Local(*byte_pairs, name="bytes", temperature=1.0, max_tokens=8, threads=1)
    form = form_of(UNSUPPORTED[0][0])
    with pytest.warns(UserWarning, match="look-around"):
        lm("number 0", response_format=form)
    assert lm("number 1", response_format=form).text  # warnings are errors here
    with pytest.warns(UserWarning, match="cannot hold its reply"):  # another form, whose replies are free as well
        lm("number 0", grammar='start: "red')
    lm.close()


def test_a_grammar_that_no_token_begins_is_refused():
    lm = pocket(constrain=True)
    with pytest.raises(BadRequestError, match="no token of its vocabulary begins"):
        lm("name the color", response_format=form_of(RECORD))
    lm.close()


def test_without_the_library_replies_are_free_or_the_extra_is_named(byte_pairs, monkeypatch):
    monkeypatch.setitem(sys.modules, "llguidance", None)
    lm = Local(*byte_pairs, name="bytes", constrain=True, max_tokens=4, threads=1)
    with pytest.raises(MissingExtraError, match="constrained"):
        lm("one", response_format=form_of(WORDS))
    monkeypatch.setattr("promptgrad.lm._local.can_constrain", lambda: False)
    free = Local(*byte_pairs, name="bytes", max_tokens=4, threads=1)
    assert not free.constrains
    assert free("one", response_format=form_of(WORDS)).text
    lm.close()
    free.close()


def test_a_vocabulary_with_very_long_tokens_is_taken(schemas):
    tokenizer = schemas.byte_tokenizer(500)
    before = len(tokenizer)
    tokenizer.add_tokens(["a whole instruction " * 60, "[[ ## size ## ]]\n"])
    model = schemas.byte_model(tokenizer)
    lm = Local(model, tokenizer, name="long", constrain=True, temperature=1.0, max_tokens=120, threads=1)
    (reply,) = ask(lm, Request(tail=(Message("user", "go"),), response_format=json.dumps(form_of(WORDS))))
    assert json.loads(reply.text)[0] in ("yes", "no")
    assert before + 2 == len(tokenizer)
    lm.close()


def test_free_means_free(byte_pairs):
    lm = Local(*byte_pairs, name="bytes", constrain=False, temperature=1.0, max_tokens=8, threads=1)
    assert not lm("one", response_format=form_of(RECORD)).text.startswith("{")
    lm.close()


def test_layers_say_what_the_model_below_does(wide, byte_pairs):
    assert Cache(wide).constrains
    assert not Cache(Local(*byte_pairs, name="bytes", constrain=False)).constrains
    assert wide.identity().endswith(" constrained")


@pytest.mark.parametrize("bad", ["", 7, {"type": "lark"}])
def test_a_grammar_is_a_text(bad):
    with pytest.raises(TypeError, match="Lark"):
        Request.of("x", grammar=bad)


def test_a_grammar_of_ones_own_counts_in_the_digest(wide):
    request = Request.of("x", temperature=1.0, grammar='start: "yes" | "no"')
    assert request.digest() != Request.of("x", temperature=1.0).digest()
    assert ask(wide, request)[0].text in ("yes", "no")
    assert "grammar" in request.to_dict()


def test_thoughts_before_the_reply_are_free(byte_pairs):
    from promptgrad.lm._grammar import Grammars

    tokenizer = byte_pairs[1]
    tokenizer = type(tokenizer)(tokenizer_object=tokenizer.backend_tokenizer, eos_token="<|end|>", pad_token="<pad>")
    tokenizer.add_tokens(["<think>", "</think>"])
    opens, closes = tokenizer.convert_tokens_to_ids(["<think>", "</think>"])
    size = len(tokenizer)
    grammars = Grammars(tokenizer, size, [tokenizer.eos_token_id], "thinker")
    grammar = json_grammar(WORDS)

    def allowed(constraint):
        logits = grammars.mask(torch.zeros(1, size), [(0, constraint)])
        return set(torch.isfinite(logits)[0].nonzero()[:, 0].tolist())

    begun = grammars.constraint(grammar)
    assert opens in allowed(begun)
    assert closes not in allowed(begun)
    begun.advance(opens)
    assert len(allowed(begun)) == size  # anything, while it thinks
    begun.advance(closes)
    inside = allowed(begun)
    assert opens not in inside
    assert inside < set(range(size))
    within = grammars.constraint(grammar, [5, opens, 7])  # its template has begun the thoughts
    assert len(allowed(within)) == size
    after = grammars.constraint(grammar, [opens, 7, closes, 9])
    assert len(allowed(after)) < size


# --- the words of a schema ---

TEXTS = [
    (datetime.date, ['"2024-02-29"', '"0001-12-31"'], ['"2023-02-29"', '"0000-01-01"', '"2023-04-31"', '"1900-02-29"']),
    (
        datetime.datetime,
        ['"2024-02-29T10:00:00Z"', '"2024-02-29T10:00"', '"2024-02-29T10:00:00-11:00"', '"2024-02-29T10:00+11:00"'],
        ['"2024-02-29T23:59:60Z"', "1", '"2024-02-29T03:01-08:15"'],
    ),
    (datetime.time, ['"10:00:00.25"', '"10:00Z"', '"10:00:00-11:30"', '"10:00+11:30"'], ['"24:00"', '"10:30-11:30"']),
    (datetime.timedelta, ['"P1D"', '"PT90M"', '"P1DT1H5S"'], ['"P"', '"PT"', "5"]),
    (bytes, ['"AAAA"', '""'], ['"A"']),
    (decimal.Decimal, ['"1.50"', '"-3"', '"6.02E+23"'], ["true", '"abc"', '"1.2.3"', '""', '"1E999"']),
    (
        Annotated[decimal.Decimal, pydantic.Field(max_digits=4, decimal_places=2)],
        ["99.99", "-1.5", "3"],
        ["100", "1.234", '"a"', "1e5"],
    ),
    (Annotated[decimal.Decimal, pydantic.Field(decimal_places=2)], ["12.50"], ["1.234", "1" * 14, "1e5"]),
    (Annotated[decimal.Decimal, pydantic.Field(decimal_places=20)], ["0.12345678901234567891"], ["true"]),
    (Annotated[decimal.Decimal, pydantic.Field(gt=0, le=5)], ["5", "0.125"], ["0", "5.1", "-1"]),
    (dict[int, str], ['{"1": "a", "-20":"b"}', "{}"], ['{"a": "b"}', '{"1.5": "b"}', '{"01": "b"}']),
    (dict[decimal.Decimal, int], ['{"1.50": 1}'], ['{"a": 1}']),
    (dict[float, int], ['{"-0.5": 1, "1e9": 2}'], ['{"a": 1}', '{"1e999": 1}']),
    (dict[bool, int], ['{"true": 1, "false": 2}'], ['{"yes": 1}', '{"true": 1, "true": 2}']),
    (dict[Literal[1, 2], int], ['{"1": 1, "2": 3}'], ['{"3": 1}']),
    (dict[Annotated[int, pydantic.Field(ge=3, lt=6)], int], ['{"3": 1, "5": 1}'], ['{"2": 1}', '{"6": 1}']),
    (dict[Annotated[int, pydantic.Field(ge=0)], int], ['{"30": 1}'], ['{"-2": 1}']),
    (dict[datetime.date, int], ['{"2024-02-29": 1}'], ['{"2023-02-29": 1}', '{"a": 1}']),
    (dict[uuid.UUID, int], ['{"12345678-1234-1234-1234-123456789abc": 1}'], ['{"1234": 1}']),
    (dict[Annotated[str, pydantic.Field(min_length=2, max_length=3)], int], ['{"ab": 1}'], ['{"a": 1}', '{"abcd": 1}']),
    (dict[Annotated[str, pydantic.Field(pattern="^[a-c]+$")], int], ['{"ab": 1}'], ['{"x": 1}']),
    (set[int], ["[1, 2]"], ['["a"]']),
    (tuple[int, str], ['[1, "a"]'], ["[1]"]),
    (dict[Literal["a", "b"], int], ['{"a": 1, "b":2}', '{"b": 2}', "{}"], ['{"c": 1}', '{"a": 1, "a": 2}']),
    (dict[str, Any], ['{"x": [1, {"y": null}]}'], ["[]"]),
    (int | None, ["null", "-3"], ['"x"', "1.5"]),
    (Annotated[float, pydantic.Field(gt=-4, lt=-3)], ["-3.5", "-3.01"], ["-3", "-3.0", "-4", "-4.00"]),
]


@pytest.mark.parametrize(("kind", "good", "bad"), TEXTS, ids=lambda value: str(value)[:30])
def test_a_grammar_takes_what_pydantic_reads(kind, good, bad, wide):
    field = Field("it", kind, role="output")
    grammar = json_grammar(field.json_schema())

    assert [text for text in good if not takes(wide, grammar, text)] == []
    assert [text for text in bad if takes(wide, grammar, text)] == []
    form = get_adapter("json").format(Signature([Field("question"), field]))
    for text in good:
        assert "it" in form.read(f'{{"it": {text}}}')


@pytest.mark.parametrize("adapter", ["chat", "xml", "compact"])
def test_numbers_in_a_list_outside_of_json_are_told_apart(wide, adapter):
    step = nn.Predict("question -> counts: list[int]")
    form = nn.Predict(step.signature, adapter=adapter)._adapter_here().format(step.signature)
    grammar, reply = step_grammar(step, adapter), form.assistant({"counts": [253, 935]})
    reply = reply.replace("[253,935]", "[253, 935]")
    assert takes(wide, grammar, reply)
    assert form.read(reply) == {"counts": [253, 935]}
    assert not takes(wide, grammar, reply.replace(", ", ","))


def test_numbers_in_a_list_are_told_apart_in_json_too(wide):
    """Other lists may do without blanks: only those of numbers have two readings."""
    kinds = {"numbers": list[float], "texts": list[str], "rest": dict[str, Any]}
    forms = {name: json_grammar(Field("it", kind, role="output").json_schema()) for name, kind in kinds.items()}
    assert takes(wide, forms["numbers"], "[9232, 164, 17]")
    assert not takes(wide, forms["numbers"], "[9232, 164,17]")
    rule = json_rule({"type": "object", "properties": {"it": {"type": "array", "items": {"type": "integer"}}}})
    call = f"start: call\ncall: {rule}\n"  # as the arguments of a tool of a local model are held
    assert takes(wide, call, '{"it": [9232, 164, 17]}')
    assert not takes(wide, call, '{"it": [9232, 164,17]}')
    assert takes(wide, forms["texts"], '["a","b", "c"]')
    assert not takes(wide, forms["rest"], '{"a": [1, 2,3]}')


def test_the_signature_reaches_the_reply(wide):
    class Part(pydantic.BaseModel):
        name: str = pydantic.Field(pattern="^[a-z]{2,5}$")
        weight: float = pydantic.Field(ge=0, le=5)

    outputs = [Field("parts", list[Part], role="output", constraints={"max_length": 2})]
    signature = Signature([Field("question"), *outputs], "List the parts.", name="Parts")
    for adapter in ("json", "chat"):
        found = nn.Predict(signature, adapter=adapter)(question="which", lm=wide, config={"max_tokens": 200})
        assert len(found.parts) <= 2
        assert all(0 <= part.weight <= 5 for part in found.parts)
        assert found.reasks == 0
