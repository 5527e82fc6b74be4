"""What endpoints do not take is learnt once, from their own words."""

import asyncio
import json
from dataclasses import replace

import pytest

from promptgrad import aio, errors, run
from promptgrad.lm import (
    HTTP,
    Completion,
    DocumentMark,
    ImagePart,
    Message,
    Prefix,
    ReasoningPart,
    Request,
    TextPart,
    _habits,
)
from promptgrad.lm._habits import Habits, stopped, without_system
from promptgrad.testing import Garbage, LoopbackLM, Status


@pytest.fixture(autouse=True)
def forgotten_afterwards():
    """A later server may get the port of one of these."""
    yield
    _habits._known.clear()


FORM = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object", "title": "City"}}}
TALK = [
    Message("system", "Be brief."),
    Message("user", "Capital?"),
    Message("assistant", "Of?"),
    Message("user", "France"),
]

REFUSALS = {
    "openai system": ("system", "Unsupported value: 'messages[0].role' does not support 'system' with this model."),
    "gemma system": ("system", "System role not supported"),
    "google system": ("system", "Developer instruction is not enabled for models/gemma-3-27b-it"),
    "mistral system": ("system", "Conversation roles must alternate user/assistant/user/assistant/..."),
    "role system": ("system", "role 'system' is not supported on this model"),
    "pydantic system": ("system", "messages.0.role: Input should be 'user' or 'assistant'"),
    "deepseek form": ("json_schema", "This response_format type is unavailable now"),
    "lm studio form": ("response_format", "'response_format.type' must be 'json_schema' or 'text'"),
    "deepinfra form": ("response_format", "json_object response format is not supported for model: x"),
    "groq form": ("json_schema", "This model does not support response format `json_schema`."),
    "openai form": (
        "json_schema",
        "Invalid parameter: 'response_format' of type 'json_schema' is not supported with this model.",
    ),
    "old form": ("response_format", "Unrecognized request argument supplied: response_format"),
    "llama.cpp form": ("json_schema", "failed to parse grammar"),
    "complex form": ("json_schema", "Grammar compilation failed: the schema is too complex"),
    "anthropic temperature": ("temperature", "`temperature` may only be set to 1 when thinking is enabled."),
    "xai stop": ("stop", "Argument not supported on this model: stop"),
    "xai effort alone": ("reasoning_effort", "Model grok-4 does not support parameter reasoningEffort."),
    "thinking": ("reasoning_effort", "thinking is not supported by this model"),
    "openai temperature": (
        "temperature",
        "Unsupported value: 'temperature' does not support 0.5 with this model. Only the default (1) value is "
        "supported.",
    ),
    "kimi temperature": ("temperature", "invalid temperature: only 1 is allowed for this model"),
    "claude temperature": ("temperature", "`temperature` is deprecated for this model."),
    "claude both": ("top_p", "`temperature` and `top_p` cannot both be specified for this model. Please use only one."),
    "mistral seed": (
        "seed",
        '[{"type":"extra_forbidden","loc":["body","seed"],"msg":"Extra inputs are not permitted"}]',
    ),
    "openai limit": (
        "max_tokens",
        "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.",
    ),
    "openai stop": ("stop", "Unsupported parameter: 'stop' is not supported with this model."),
    "grok stop": ("stop", "Argument not supported on this model: stop sequences"),
    "openai logprobs": ("logprobs", "Unsupported parameter: 'logprobs' is not supported with this model."),
    "groq logprobs": ("logprobs", "logprobs is not supported with this model"),
    "openai effort": ("reasoning_effort", "Unrecognized request argument supplied: reasoning_effort"),
    "xai effort": ("reasoning_effort", "Model grok-4 does not support parameter reasoningEffort (reasoning_effort)."),
    "openai penalty": (
        "presence_penalty",
        "Unsupported parameter: 'presence_penalty' is not supported with this model.",
    ),
    "xai penalty": ("frequency_penalty", "Argument not supported on this model: frequency_penalty"),
    "openai parallel": (
        "parallel_tool_calls",
        "Unsupported parameter: 'parallel_tool_calls' is not supported with this model.",
    ),
    "deepseek choice": ("tool_choice", "deepseek-reasoner does not support this tool_choice"),
    "old server": ("max_completion_tokens", "Unrecognized request argument supplied: max_completion_tokens"),
}


def takes_all_but(name, words, code=400):
    """A server that refuses what has this field."""

    def respond(messages):
        body = server.requests[-1].json
        lacking = any(m["role"] == "system" for m in messages) if name == "system" else name in body
        if name == "json_schema":
            lacking = body.get("response_format", {}).get("type") == name
        if lacking:
            return Status(code, message=words)
        return json.dumps(body)

    server = LoopbackLM(respond)
    return server


def ask(lm, **more):
    options = {"temperature": 0.5, "max_tokens": 9, "top_p": 0.9, "seed": 1, "response_format": FORM, "stop": "\n\n"}
    options |= {"logprobs": True, "reasoning_effort": "low", "presence_penalty": 0.1, "frequency_penalty": 0.1}
    options |= {"parallel_tool_calls": False, "tool_choice": "auto", **more}
    return json.loads(lm(Request.of(TALK, **options)).text)


@pytest.mark.parametrize("words", REFUSALS)
def test_it_is_learnt_once_said_once_and_remembered(words):
    name, message = REFUSALS[words]
    with takes_all_but(name, message) as server:
        without = ["max_tokens"] if name == "max_completion_tokens" else []
        lm = HTTP("m", server.url, without=without)
        with pytest.warns(UserWarning, match=rf"'m' at {server.url} does not take .*without=\['{name}'\]") as said:
            ask(lm)
        assert (len(said), server.received) == (1, 2)
        ask(lm)
        ask(HTTP("m", server.url, without=without, temperature=1.0))  # another LM, the same endpoint and model
        assert server.received == 4
        sent = [request.json for request in server.requests]
        kept = set(sent[0]) - set(sent[1])
        assert kept == (set() if name in ("system", "json_schema") else {name})


def test_the_refused_request_is_counted_in_a_run():
    with takes_all_but("temperature", "temperature is not supported") as server:
        lm = HTTP("m", server.url)
        with run.active(ledger=run.Ledger(run.Budget(calls=2))) as session:
            with pytest.warns(UserWarning, match="does not take a temperature"):
                ask(lm)
            ask(lm, seed=2)
        spent = session.ledger.spent
    assert (spent.calls, spent.failed, server.received) == (2, 1, 3)


def test_an_option_says_it_from_the_start():
    for words in REFUSALS:
        name, message = REFUSALS[words]
        with takes_all_but(name, message) as server:
            ask(HTTP("m", server.url, without=[name]))
            assert server.received == 1
    with pytest.raises(ValueError, match=r"without= names system, json_schema, response_format.* not 'sistem'"):
        HTTP("m", without=["sistem"])


def test_system_text_goes_into_the_first_user_turn():
    with takes_all_but("system", "") as server:
        sent = ask(HTTP("m", server.url, without="system"))["messages"]
        assert [(m["role"], m["content"]) for m in sent][:1] == [("user", "Be brief.\n\nCapital?")]
        assert [m["role"] for m in sent] == ["user", "assistant", "user"]
        prefix = Prefix([Message("system", "Be brief.")])
        body = json.loads(HTTP("m", server.url, without="system")(Request(prefix, (Message("user", "hi"),))).text)
        assert body["messages"] == [{"role": "user", "content": "Be brief.\n\nhi"}]


def test_system_text_alone_becomes_a_user_turn():
    assert without_system((Message("system", "a"), Message("system", "b"))) == (Message("user", "a\n\nb"),)
    assert without_system((Message("user", "a"),)) == (Message("user", "a"),)


def test_system_text_joins_the_text_beside_an_image():
    image, page = ImagePart(b"x", "image/png"), TextPart("p", DocumentMark(1, "", 0))
    for parts, joined in [
        ((TextPart("b"), image, TextPart("c")), (TextPart("a\n\nb"), image, TextPart("c"))),
        ((image,), (TextPart("a\n\n"), image)),
        ((page, image), (TextPart("a\n\n"), page, image)),
    ]:
        assert without_system((Message("system", "a"), Message("user", parts))) == (Message("user", joined),)


def test_the_form_of_the_reply_is_asked_for_in_words():
    with takes_all_but("response_format", "") as server:
        last = ask(HTTP("m", server.url, without=["response_format"]))["messages"][-1]["content"]
        assert last.startswith("France\n\nReply with one JSON object and nothing else.")
        assert '"title": "City"' in last


def test_a_schema_becomes_some_object_and_words_before_it_becomes_words_alone():
    def respond(messages):
        body = server.requests[-1].json
        kind = body.get("response_format", {}).get("type")
        if kind in refused:
            return Status(400, message="This response_format type is unavailable now")
        return json.dumps(body)

    refused = ["json_schema"]
    with LoopbackLM(respond) as server:
        lm = HTTP("m", server.url)
        with pytest.warns(UserWarning, match="a JSON object is asked for, and its schema in words"):
            body = ask(lm)
        assert body["response_format"] == {"type": "json_object"}
        assert '"title": "City"' in body["messages"][-1]["content"]
        assert ask(lm, response_format={"type": "json_object"})["messages"][-1]["content"] == "France"
        refused.append("json_object")
        with pytest.warns(UserWarning, match="asked for in words"):
            body = ask(lm)
        assert "response_format" not in body
        assert body["messages"][-1]["content"].count("JSON schema") == 1
        assert (server.received, ask(lm)["messages"]) == (5, body["messages"])
        assert server.received == 6


def test_the_limit_on_tokens_has_another_name():
    with takes_all_but("max_tokens", "Use 'max_completion_tokens' instead") as server:
        with pytest.warns(UserWarning, match="max_completion_tokens is sent in its place"):
            body = ask(HTTP("m", server.url))
        assert (body["max_completion_tokens"], "max_tokens" in body) == (9, False)


def test_two_lacks_are_learnt_one_after_the_other():
    def respond(messages):
        body = server.requests[-1].json
        if any(m["role"] == "system" for m in messages):
            return Status(500, message="Jinja Exception: System role not supported")
        return Status(422, message="temperature: Extra inputs are not permitted") if "temperature" in body else "ok"

    with LoopbackLM(respond) as server:
        lm = HTTP("m", server.url)
        with pytest.warns(UserWarning, match="does not take") as said:
            assert lm(Request.of(TALK, temperature=0.5)).text == "ok"
        assert (len(said), server.received) == (2, 3)
        assert lm(Request.of(TALK, temperature=0.5)).text == "ok"
        assert server.received == 4


def test_calls_side_by_side_learn_it_once():
    with takes_all_but("temperature", "temperature is not supported") as server:
        lm = HTTP("m", server.url)

        async def many():
            return await asyncio.gather(*[lm.acall(str(n), temperature=0.5) for n in range(16)])

        with pytest.warns(UserWarning, match="a temperature") as said:
            assert len(aio.run(many())) == 16
        assert len(said) == 1
        assert server.received <= 32


def test_without_stop_the_reply_is_cut_when_it_is_there():
    def respond(messages):
        if "stop" in server.requests[-1].json:
            return Status(400, message="Unsupported parameter: 'stop' is not supported with this model.")
        return "Paris\nQ: Spain?\nA: Madrid"

    with LoopbackLM(respond) as server:
        lm = HTTP("m", server.url)
        with pytest.warns(UserWarning, match=r"texts at which it stops \(stop\).*cut at its texts"):
            assert lm("Q: France?\nA:", stop=["A:", "\nQ:"]).text == "Paris"
        assert lm("Q: France?\nA:").text.endswith("Madrid")
        assert lm("Q: France?\nA:", stop="Madrid").text == "Paris\nQ: Spain?\nA: "
        assert server.received == 4
    thought = Completion((ReasoningPart("a\nQ:"), TextPart("b\nQ: c")), finish_reason="length")
    both = replace(Completion("x"), more=(thought,))
    found = stopped(both, Request.of("q", stop="\nQ:"), frozenset({"stop"}))
    assert (found.text, found.more[0].text, found.more[0].finish_reason) == ("x", "b", "stop")
    assert found.more[0].reasoning == "a\nQ:"
    assert stopped(both, Request.of("q", stop="\nQ:"), frozenset()) is both


NOT_LEARNT = [
    Status(400, message="Invalid 'stop': array too long. Expected an array with maximum length 4, but got 5 instead."),
    Status(400, message="Invalid value: 'top_logprobs' must be less than or equal to 5"),
    Status(400, message='"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set'),
    Status(400, message="Invalid 'temperature': decimal above maximum value. Expected a value <= 2"),
    Status(400, message="max_tokens is too large: 9. This model's maximum context length is 8 tokens"),
    Status(400, message="Invalid schema for response_format 'a': 'additionalProperties' is required"),
    Status(401, message="temperature is not supported"),
    Status(400, message="The model `m` does not exist"),
    Status(400, message="n is not supported"),
    Garbage(b'{"error": {"message": "bad", "messages": ["temperature is not supported"]}}', 400),
]


@pytest.mark.parametrize("answer", NOT_LEARNT)
def test_other_errors_teach_nothing(server, answer):
    server.script(answer)
    with pytest.raises(errors.LMStatusError):  # a warning would be an error
        ask(HTTP("m", server.url))
    assert server.received == 1


def test_a_refusal_that_stays_is_raised():
    with LoopbackLM(lambda messages: Status(400, message="System role not supported")) as server:
        lm = HTTP("m", server.url)
        with pytest.warns(UserWarning, match="system"), pytest.raises(errors.BadRequestError, match="System role"):
            lm(TALK)
        assert server.received == 2


def test_endpoints_and_models_are_told_apart():
    for place in (("http://one", "a"), ("http://one", "b"), ("http://two", "a")):
        assert Habits(*place).lacks == frozenset()
    with pytest.warns(UserWarning, match="'a' at http://one does not take"):
        assert Habits("http://one", "a").learn("System role not supported", Request.of(TALK), frozenset())
    assert Habits("http://one", "a").lacks == {"system"}
    assert Habits("http://one", "b").lacks == Habits("http://two", "a").lacks == frozenset()


def test_an_endpoint_that_takes_neither_name_is_asked_no_more():
    def respond(messages):
        name = "max_tokens" if "max_tokens" in server.requests[-1].json else "max_completion_tokens"
        return Status(400, message=f"unknown parameter: {name}")

    with LoopbackLM(respond) as server:
        with pytest.warns(UserWarning, match="max_"), pytest.raises(errors.BadRequestError, match="unknown parameter"):
            HTTP("m", server.url)("q", max_tokens=3)
        assert server.received == 3


def test_a_local_model_whose_template_has_no_system_role(models):
    from promptgrad.lm import Local
    from tests.lm.conftest import make_tokenizer

    tokenizer = make_tokenizer()
    tokenizer.chat_template = (
        "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
        + tokenizer.chat_template
    )
    talk = Request.of([Message("system", "w1 w2"), Message("user", "w3")])
    lm = Local(models["llama"], tokenizer, name="no-system", max_tokens=3)
    with pytest.warns(UserWarning, match="'no-system' does not take system messages"):
        ids = lm.encode(talk)
    assert ids == lm.encode(Request.of("w1 w2\n\nw3"))
    assert lm(talk).text == lm("w1 w2\n\nw3").text
    said = Local(models["llama"], tokenizer, name="said", max_tokens=3, without=["system"])
    assert said.encode(talk) == ids
    prefixed = Request(Prefix([Message("system", "w1 w2")]), (Message("user", "w3"),))
    assert said(prefixed).text == lm(talk).text
    tokenizer.chat_template = "{{ raise_exception('no turns please') }}"
    with pytest.raises(errors.LMError, match="refuses the messages: no turns please"):
        Local(models["llama"], tokenizer, name="none")(talk)
