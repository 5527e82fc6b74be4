"""Words that are understood, words that are refused, and where a request goes and does not go."""

import json
import warnings
from importlib.util import find_spec

import pytest

from promptgrad import nn
from promptgrad.errors import (
    AuthenticationError,
    BadRequestError,
    ContextWindowError,
    LMConnectionError,
    LMError,
    OverloadedError,
    RateLimitError,
    ServerTimeoutError,
)
from promptgrad.lm import HTTP, LM, FunctionLM, LiteLLM, Local, Request, Retry, _habits, resolve
from promptgrad.lm._providers import own_address
from promptgrad.testing import Garbage, LoopbackLM, Reply, Status

pytestmark = pytest.mark.filterwarnings("ignore:Items? .* on TypedDict class:UserWarning")  # of litellm

KEY = "sk-very-secret-0123456789"
OTHER_KEY = "sk-of-somebody-else-0123"


@pytest.fixture(autouse=True)
def no_environment(monkeypatch):
    import os

    for name in list(os.environ):
        if name.endswith(("_API_KEY", "_API_BASE", "_BASE_URL")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


# -- words -----------------------------------------------------------------------------------------------------------


def test_words_of_litellm_and_dspy(server):
    lm = resolve(
        "openai/m",
        api_base=server.url,
        api_key=KEY,
        num_retries=3,
        request_timeout=7,
        model_type="chat",
        max_completion_tokens=9,
        organization="org-1",
        extra_headers={"X-Team": "a"},
        extra_body={"vendor_field": [1]},
        max_parallel_requests=5,
        rpm=600,
        tpm=100_000,
        cache=False,
    )
    assert isinstance(lm, Retry)
    assert (lm.attempts, lm.lm.concurrency, lm.transport.timeout) == (4, 5, 7)
    assert (lm.lm.requests_per_minute, lm.lm.tokens_per_minute) == (600, 100_000)
    assert lm("q").text == "echo q"
    sent = server.requests[-1]
    assert (sent.headers["authorization"], sent.headers["openai-organization"]) == (f"Bearer {KEY}", "org-1")
    assert sent.headers["x-team"] == "a"
    assert sent.json == {
        "model": "m",
        "messages": [{"role": "user", "content": "q"}],
        "max_tokens": 9,
        "vendor_field": [1],
    }


@pytest.mark.parametrize("word", ["api_base", "base_url", "azure_endpoint", "openai_api_base"])
@pytest.mark.parametrize("name", ["openai/m", "ollama/m", "hosted_vllm/m", "m", "groq/m"])
def test_an_address_is_heard_in_every_word(server, monkeypatch, word, name):
    monkeypatch.setenv("OPENAI_API_KEY", OTHER_KEY)
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    lm = resolve(name, **{word: server.url}, cache=False)
    assert lm("q").text == "echo q"
    sent = server.requests[-1]
    assert (sent.path, sent.json["model"], set(sent.json)) == ("/v1/chat/completions", "m", {"model", "messages"})
    assert ("authorization" in sent.headers) == (name == "openai/m")  # the key of OpenAI is for openai/


@pytest.mark.parametrize("variable", ["OPENAI_BASE_URL", "OPENAI_API_BASE"])
def test_an_address_of_the_environment_is_heard(server, monkeypatch, variable):
    monkeypatch.setenv(variable, server.url)
    assert resolve("openai/env", cache=False, api_key=variable)("q").text == "echo q"


def test_ollamas_own_variable_is_heard(server, monkeypatch):
    monkeypatch.setenv("OLLAMA_HOST", server.url.removeprefix("http://").removesuffix("/v1"))
    assert resolve("ollama/llama3", cache=False, timeout=8)("q").text == "echo q"
    assert resolve("ollama/llama3", base_url="http://h:1").transport.base_url == "http://h:1/v1"


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:11434/v1"),
        ("0.0.0.0", "http://127.0.0.1:11434/v1"),
        ("0.0.0.0:8080", "http://127.0.0.1:8080/v1"),
        (":8080", "http://127.0.0.1:8080/v1"),
        ("[::1]", "http://[::1]:11434/v1"),
        ("[::1]:8080", "http://[::1]:8080/v1"),
        ("https://far.example/", "https://far.example/v1"),
    ],
)
def test_ollamas_variable_names_a_host_in_many_ways(monkeypatch, host, url):
    monkeypatch.setenv("OLLAMA_HOST", host)
    assert resolve(f"ollama/{host}").transport.base_url == url


def test_each_provider_has_its_own_key(server, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", OTHER_KEY)
    monkeypatch.setenv("GROQ_API_KEY", "groq")
    monkeypatch.setenv("HOSTED_VLLM_API_KEY", "vllm")
    for name, key in (("groq/m", "Bearer groq"), ("hosted_vllm/m", "Bearer vllm"), ("mistral/m", None), ("m", None)):
        resolve(name, base_url=server.url, cache=False)("q")
        assert server.requests[-1].headers.get("authorization") == key


def test_where_the_prefix_is_part_of_the_name():
    lm = resolve("deepseek/deepseek-chat", base_url="https://openrouter.ai/api/v1", api_key="k")
    assert (type(lm.transport), lm.transport.model) == (HTTP, "deepseek/deepseek-chat")


MISSPELT = [
    (lambda **more: resolve("openai/m", **more), "pg.LM"),
    (lambda **more: LM("openai/m", **more), "pg.LM"),
    (lambda **more: resolve("pocket", **more), "pg.LM"),
    (lambda **more: resolve("anthropic/m", **more), "pg.LM"),
    (lambda **more: HTTP("m", **more), "lm.HTTP"),
    (lambda **more: LiteLLM("m", **more), "lm.LiteLLM"),
    (lambda **more: Local("org/m", **more), "lm.Local"),
]


@pytest.mark.parametrize(("make", "what"), MISSPELT)
@pytest.mark.parametrize(
    ("name", "near"), [("tempersture", "temperature"), ("max_tokns", "max_tokens"), ("sead", "seed")]
)
def test_a_misspelt_option_is_refused_with_the_near_name(make, what, name, near):
    with pytest.raises(TypeError, match=rf"{what}.* has no option '{name}': did you mean '{near}'\?"):
        make(**{name: 1})


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("api_bse", "api_base"),
        ("base_ulr", "base_url"),
        ("time_out", "timeout"),
        ("num_retrys", "num_retries"),
        ("concurency", "concurrency"),
        ("apikey", "api_key"),
        ("request_per_minute", "requests_per_minute"),
        ("extra_boddy", "extra_body"),
    ],
)
def test_a_misspelt_setting_too(name, near):
    with pytest.raises(TypeError, match=rf"pg.LM has no option '{name}': did you mean '{near}'"):
        resolve("openai/m", **{name: "x"})


def test_one_reply_and_no_stream_are_what_there_is_anyway(server):
    for make in (lambda **more: resolve("openai/m", **more), lambda **more: HTTP("m", **more)):
        lm = make(base_url=server.url, api_key=KEY, n=1, stream=False)
        lm("q")
        assert {"n", "stream"}.isdisjoint(server.requests[-1].json)
        with pytest.raises(ValueError, match=r"takes no n, as a call gives one reply: model.map\(batch, n=3\)"):
            make(base_url=server.url, n=3)
        with pytest.raises(ValueError, match=r"stream is not an option: write lm.stream"):
            make(base_url=server.url, stream=True)


@pytest.mark.parametrize(
    "make", [lambda **o: HTTP("m", "http://h/v1", **o), lambda **o: LM("openai/m", api_key=KEY, **o)]
)
@pytest.mark.parametrize("name", ["headers", "extra_headers", "default_headers"])
def test_headers_are_a_mapping(make, name):
    with pytest.raises(TypeError, match=rf"^{name} is a mapping of names to texts"):
        make(**{name: "X-Team: a"})


def test_a_name_is_none_of_its_options():
    with pytest.raises(TypeError, match=r"pg\.LM has no option 'name'"):
        LM("openai/m", name="m")


def test_a_function_has_the_options_of_requests_alone():
    lm = FunctionLM(lambda messages: "x", max_new_tokens=3, stream=False, n=1, temperature=0.5)
    assert lm.options == {"max_tokens": 3, "temperature": 0.5}
    with pytest.raises(ValueError, match=r"lm\.FunctionLM takes no n"):
        FunctionLM(lambda messages: "x", n=3)
    for name in ("headers", "timeout", "base_url", "rpm"):
        with pytest.raises(TypeError, match=rf"lm\.FunctionLM has no setting '{name}', as pg\.LM"):
            FunctionLM(lambda messages: "x", **{name: 5})


def test_what_no_name_is_near_to_goes_through_extra_body():
    with pytest.raises(
        TypeError, match=r"no option 'vendor_field' \(what only your provider knows goes through extra_body"
    ):
        resolve("openai/m", vendor_field=1)
    assert dict(HTTP("m", extra_body={"vendor_field": 1}).options["extra"]) == {"vendor_field": "1"}
    with pytest.raises(TypeError, match="extra_body is a dict"):
        HTTP("m", extra_body=3)
    with pytest.raises(ValueError, match="api_key"):
        HTTP("m", extra_body={"api_key": KEY})
    with pytest.raises(ValueError, match="stream"):
        HTTP("m", extra_body={"stream": True})


@pytest.mark.parametrize("make", [lambda: HTTP("m", num_retries=3), lambda: LiteLLM("m", max_retries=3)])
def test_a_transport_sends_once(make):
    with pytest.raises(TypeError, match=r"sends a request once: wrap it in lm.Retry\(\.\.\., attempts=\)"):
        make()


def test_what_is_anothers(tmp_path):
    with pytest.raises(TypeError, match="'aws_region_name', which is litellm's"):
        resolve("openai/m", aws_region_name="us-east-1")
    assert resolve("bedrock/m", aws_region_name="us-east-1").transport._settings == {"aws_region_name": "us-east-1"}
    with pytest.raises(TypeError, match=r"lm\.Local has no setting 'api_base', as pg.LM"):
        Local(str(tmp_path), api_base="http://h/v1")
    with pytest.raises(TypeError, match=r"lm\.HTTP has no setting 'attempts'"):
        HTTP("m", attempts=3)
    known = "chat_template_kwargs, enable_thinking, grammar, logprobs, max_tokens"
    with pytest.raises(TypeError, match=rf"lm.Local has no option 'audio'; it knows {known}"):
        Local(str(tmp_path), audio={})
    assert Local(str(tmp_path), torch_dtype="auto", max_new_tokens=3).options == {"max_tokens": 3}
    with pytest.raises(TypeError, match="a function has no base_url"):
        resolve(lambda messages: "x", api_base="http://h/v1")
    with pytest.raises(TypeError, match="speaks the chat dialect alone"):
        resolve("openai/m", model_type="text")


def test_none_is_not_given():
    lm = resolve(
        "openai/m", base_url="http://a/v1", api_base=None, num_retries=None, organization=None, extra_body=None
    )
    assert (lm.transport.base_url, lm.lm.attempts) == ("http://a/v1", 5)
    assert Request.of("q", extra_body=None, temperature=None) == Request.of("q")
    with pytest.raises(TypeError, match="runs in this process and has no api_key, timeout"):
        resolve("pocket", api_key="k", timeout=3)


def test_two_words_for_one_thing_must_agree():
    with pytest.raises(TypeError, match="base_url is given by two names"):
        resolve("openai/m", base_url="http://a/v1", api_base="http://b/v1")
    with pytest.raises(TypeError, match="base_url is given by two names"):
        HTTP("m", "http://a/v1", api_base="http://b/v1")
    with pytest.raises(TypeError, match="both are given"):
        resolve("openai/m", max_completion_tokens=3, max_tokens=4)
    assert resolve("openai/m", base_url="http://a/v1", api_base="http://a/v1").transport.base_url == "http://a/v1"
    with pytest.raises(TypeError, match="number of retries"):
        resolve("openai/m", num_retries=-1)
    assert resolve("openai/m", num_retries=0).lm.attempts == 1


def test_options_of_a_request_are_known_too(server):
    lm = HTTP("m", server.url)
    for name, near in (("tempersture", "temperature"), ("top_pp", "top_p"), ("tool_choise", "tool_choice")):
        with pytest.raises(TypeError, match=f"no option '{name}': did you mean '{near}'"):
            lm("q", **{name: 1})
        with pytest.raises(TypeError, match=f"{name}"):
            nn.Predict("q -> a", **{name: 1})
    with pytest.raises(TypeError, match="'timeout' is a setting of the LM"):
        lm("q", timeout=3)
    with pytest.raises(TypeError, match=r"extra_body=\{'vendor': \.\.\.\}"):
        Request.of("q", vendor=3)
    lm("q", extra_body={"vendor": 3}, top_k=4, max_completion_tokens=5)
    assert {"vendor": 3, "top_k": 4, "max_tokens": 5}.items() <= server.requests[-1].json.items()
    assert server.received == 1
    with pytest.raises(TypeError, match="no option 'vendor'"):
        FunctionLM(str, vendor=3)


# -- dialects --------------------------------------------------------------------------------------------------------


def test_a_dialect_that_is_none():
    with pytest.raises(ValueError, match='dialect is "openai" or None'):
        resolve("openai/m", base_url="http://h/v1", dialect="anthropic")
    with pytest.raises(ValueError, match="needs the base_url"):
        resolve("anthropic/m", dialect="openai")


@pytest.mark.parametrize(
    "name", ["anthropic/claude-x", "gemini/gemini-2.5-flash", "bedrock/m", "azure/m", "vertex_ai/m"]
)
def test_a_provider_with_a_dialect_of_its_own_keeps_it_at_an_address(name):
    lm = resolve(name, base_url="http://127.0.0.1:9/v1", api_key="k").transport
    assert (type(lm), lm.model, lm._api_base) == (LiteLLM, name, "http://127.0.0.1:9/v1")


def test_dialect_openai_says_otherwise(server):
    lm = resolve("anthropic/claude-x", base_url=server.url, dialect="openai", cache=False)
    assert lm("q").text == "echo q"
    assert server.requests[-1].json["model"] == "anthropic/claude-x"  # the name as it stands


def anthropic(messages):
    request = server_of_anthropic.requests[-1].json
    text = f"{request['model']} {request.get('system')} {request['messages'][-1]['content']}"
    body = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": request["model"],
        "content": [{"type": "text", "text": text}],
        "stop_reason": "end_turn",
        "usage": {"input_tokens": 7, "output_tokens": 3},
    }
    return Garbage(json.dumps(body).encode())


server_of_anthropic: LoopbackLM


needs_litellm = pytest.mark.skipif(find_spec("litellm") is None, reason="litellm is an optional dependency")


@pytest.fixture
def anthropics():
    global server_of_anthropic
    with LoopbackLM(anthropic) as server_of_anthropic:
        yield server_of_anthropic


@needs_litellm
@pytest.mark.parametrize("end", ["", "/", "/v1", "/v1/", "/v1/messages"])
def test_anthropics_address_may_end_with_its_version(anthropics, end, monkeypatch):
    address = anthropics.url.removesuffix("/v1") + end
    LiteLLM("anthropic/claude-x", KEY, base_url=address)("q")
    monkeypatch.setenv("ANTHROPIC_BASE_URL", address)
    LiteLLM("anthropic/claude-x", KEY)("q")
    LiteLLM("claude-sonnet-4-5", KEY, settings={"base_url": address})("q")
    assert [sent.path for sent in anthropics.requests] == ["/v1/messages"] * 3


@pytest.mark.parametrize(
    ("provider", "address", "wanted"),
    [
        ("gemini", "https://generativelanguage.googleapis.com", "https://generativelanguage.googleapis.com/v1beta"),
        ("gemini", "https://generativelanguage.googleapis.com/v1", "https://generativelanguage.googleapis.com/v1"),
        ("gemini", "http://proxy/gemini", "http://proxy/gemini"),
        ("cohere_chat", "http://proxy", "http://proxy/v2/chat"),
        ("cohere", "http://proxy/v1/", "http://proxy/v1/chat"),
        ("cohere", "http://proxy/v2/chat", "http://proxy/v2/chat"),
        ("openai", "http://proxy/v1", "http://proxy/v1"),
        ("anthropic", None, None),
        ("openai", None, None),
    ],
)
def test_addresses_are_completed_as_their_dialect_wants(provider, address, wanted, monkeypatch):
    for name in ("ANTHROPIC_API_BASE", "ANTHROPIC_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    assert own_address(provider, address) == wanted


@needs_litellm
def test_anthropics_dialect(anthropics):
    lm = resolve(
        "anthropic/claude-x", base_url=anthropics.url.removesuffix("/v1"), api_key=KEY, cache=False, max_tokens=9
    )
    reply = lm([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "q"}])
    sent = anthropics.requests[-1]
    assert (sent.path, sent.headers["x-api-key"]) == ("/v1/messages", KEY)
    assert sent.json["model"] == "claude-x"
    assert "Be brief." in json.dumps(sent.json["system"])
    assert (reply.usage.input_tokens, reply.usage.output_tokens) == (7, 3)
    assert reply.text.startswith("claude-x")


@needs_litellm
@pytest.mark.parametrize(
    ("status", "kind", "message", "error"),
    [
        (529, "overloaded_error", "Overloaded", OverloadedError),
        (401, "authentication_error", "invalid x-api-key", AuthenticationError),
        (400, "invalid_request_error", "prompt is too long: 207889 tokens > 200000 maximum", ContextWindowError),
        (400, "invalid_request_error", "messages: at least one message is required", BadRequestError),
        (429, "rate_limit_error", "This request would exceed your rate limit", RateLimitError),
        (504, "timeout_error", "Request timed out", ServerTimeoutError),
    ],
)
def test_anthropics_errors(anthropics, status, kind, message, error):
    body = {"type": "error", "error": {"type": kind, "message": message}}
    anthropics.script(Garbage(json.dumps(body).encode(), status))
    with pytest.raises(error) as caught:
        LiteLLM("anthropic/claude-x", KEY, base_url=anthropics.url.removesuffix("/v1"))("q")
    assert type(caught.value) is error
    assert KEY not in str(caught.value)
    assert anthropics.received == 1


@needs_litellm
@pytest.mark.parametrize(
    ("name", "variable"),
    [
        ("anthropic/claude-x", "ANTHROPIC_API_KEY"),
        ("gemini/gemini-2.5-flash", "GEMINI_API_KEY"),
        ("groq/m", "GROQ_API_KEY"),
        ("mistral/m", "MISTRAL_API_KEY"),
        ("deepseek/m", "DEEPSEEK_API_KEY"),
        ("openrouter/a/m", "OPENROUTER_API_KEY"),
        ("fireworks_ai/m", "FIREWORKS_"),
        ("cohere/m", "COHERE_API_KEY or CO_API_KEY"),
        ("cohere_chat/m", "COHERE_API_KEY or CO_API_KEY"),
        ("replicate/a/m", "REPLICATE_API_TOKEN"),
        ("minimax/m", "MINIMAX_API_KEY"),
        ("snowflake/m", "SNOWFLAKE_JWT"),
        ("gpt-4o-mini", "OPENAI_API_KEY"),
    ],
)
def test_a_missing_key_is_said_before_litellm_sends_anything(name, variable, escapes):
    waits = []

    async def note(seconds):
        waits.append(seconds)

    with pytest.raises(AuthenticationError, match=variable):
        Retry(LiteLLM(name), sleep=note)("q")
    assert (waits, escapes) == ([], [])


@needs_litellm
@pytest.mark.parametrize(
    ("name", "variable"),
    [("cohere/m", "CO_API_KEY"), ("replicate/a/m", "REPLICATE_API_TOKEN"), ("openrouter/a/m", "OR_API_KEY")],
)
def test_a_key_is_one_under_the_name_that_its_provider_gives_it(name, variable, escapes, monkeypatch):
    monkeypatch.setenv(variable, KEY)
    with pytest.raises(LMConnectionError):
        LiteLLM(name)("q")
    assert escapes
    escapes.clear()


@needs_litellm
def test_an_address_that_litellm_lacks_is_said_at_once(escapes):
    waits = []

    async def note(seconds):
        waits.append(seconds)

    with pytest.raises(BadRequestError, match="nothing was sent: pass base_url="):
        Retry(LiteLLM("azure_ai/m", KEY), sleep=note)("q")
    assert (waits, escapes) == ([], [])


@needs_litellm
def test_a_provider_that_is_misspelt():
    with pytest.raises(BadRequestError, match=r"no provider is called 'antropic': did you mean 'anthropic/\.\.\.'"):
        LiteLLM("antropic/claude-x", KEY)("q")
    with pytest.raises(BadRequestError, match="a server of yours needs base_url="):
        LiteLLM("Qwen/Qwen3-8B", KEY)("q")


@needs_litellm
def test_a_server_that_litellm_cannot_reach(escapes):
    with pytest.raises(LMConnectionError):
        LiteLLM("groq/m", KEY)("q")
    assert escapes
    escapes.clear()


@needs_litellm
def test_azures_address_with_its_version():
    with LoopbackLM("Paris") as server:
        lm = resolve("azure/dep", api_base=server.url, api_version="2024-10-21", api_key=KEY, cache=False)
        assert lm("q").text == "Paris"
        sent = server.requests[-1]
        assert sent.path.endswith("/openai/deployments/dep/chat/completions?api-version=2024-10-21")
        assert sent.headers["api-key"] == KEY


@needs_litellm
@pytest.mark.parametrize("name", ["anthropic/claude-x", "gemini/gemini-2.5-flash"])
def test_litellm_carries_no_key_to_where_a_redirect_points(name):
    with LoopbackLM() as server, LoopbackLM() as elsewhere:
        server.script(Garbage(b"", 307, content_type=f"text/plain\r\nLocation: {elsewhere.url}/v1/messages"))
        with pytest.raises(LMError):
            LiteLLM(name, KEY, base_url=server.url.removesuffix("/v1"))("q")
        assert (server.received, elsewhere.received) == (1, 0)


@needs_litellm
def test_geminis_dialect():
    body = {
        "candidates": [{"content": {"role": "model", "parts": [{"text": "Paris"}]}, "finishReason": "STOP"}],
        "usageMetadata": {"promptTokenCount": 7, "candidatesTokenCount": 3, "totalTokenCount": 10},
        "modelVersion": "gemini-2.5-flash",
    }
    exhausted = {"error": {"code": 429, "message": "Resource has been exhausted", "status": "RESOURCE_EXHAUSTED"}}
    with LoopbackLM() as server:
        server.script(Garbage(json.dumps(body).encode()), Garbage(json.dumps(exhausted).encode(), 429))
        lm = resolve("gemini/gemini-2.5-flash", base_url=server.url, api_key=KEY, cache=False, attempts=1)
        reply = lm([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "q"}])
        assert (reply.text, reply.usage.input_tokens) == ("Paris", 7)
        sent = server.requests[-1]
        assert "generateContent" in sent.path
        assert sent.json["contents"][-1]["parts"] == [{"text": "q"}]
        assert "Be brief." in json.dumps(sent.json["system_instruction"])
        with pytest.raises(RateLimitError) as caught:
            lm("q")
        assert KEY not in str(caught.value)
        assert server.received == 2


@needs_litellm
def test_litellm_learns_what_an_endpoint_does_not_take(server):
    server.script(Status(400, message="System role not supported"), Reply("Paris"), Reply("Rome"))
    lm = LiteLLM("openai/tiny", KEY, base_url=server.url)
    talk = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "q"}]
    with pytest.warns(UserWarning, match="does not take system messages"):
        assert lm(talk).text == "Paris"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert lm(talk).text == "Rome"
    assert server.requests[-1].messages == [{"role": "user", "content": "Be brief.\n\nq"}]
    assert lm.stats()["requests"] == server.received == 3
    _habits._known.clear()  # a later server may get this port


@needs_litellm
def test_litellm_sends_nothing_through_a_proxy_that_is_for_this_machine(server, monkeypatch):
    with LoopbackLM("from the proxy") as proxy:
        monkeypatch.setenv("http_proxy", proxy.url.removesuffix("/v1"))
        with pytest.raises(LMConnectionError, match=r"nothing was sent: set NO_PROXY=127\.0\.0\.1"):
            LiteLLM("openai/tiny", KEY, base_url=server.url)("q")
        assert (proxy.received, server.received) == (0, 0)


def test_an_address_of_the_environment_is_heard_when_it_changes(monkeypatch):
    for name in ("OPENAI_BASE_URL", "OPENAI_API_BASE", "OLLAMA_API_BASE", "OLLAMA_HOST"):
        monkeypatch.delenv(name, raising=False)
    public, local = resolve("openai/m"), resolve("ollama/m")
    monkeypatch.setenv("OPENAI_API_BASE", "http://127.0.0.1:9/v1")
    monkeypatch.setenv("OLLAMA_HOST", "http://127.0.0.1:8")
    assert resolve("openai/m").transport.endpoint == "http://127.0.0.1:9/v1 m"
    assert resolve("ollama/m").transport.endpoint == "http://127.0.0.1:8/v1 m"
    monkeypatch.setenv("OPENAI_API_BASE", "  ")
    assert resolve("openai/m") is public
    monkeypatch.delenv("OLLAMA_HOST")
    assert resolve("ollama/m") is local


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("url", "base_url"),
        ("host", "base_url"),
        ("token", "api_key"),
        ("stream_timeout", "timeout"),
        ("temp", "temperature"),
        ("max_length", "max_tokens"),
        ("stop_words", "stop"),
        ("guided_json", "response_format"),
        ("input_cost_per_token", "prices"),
        ("provider", "dialect"),
    ],
)
def test_a_word_that_is_far_from_the_name_is_understood_in_the_hint(name, meant):
    with pytest.raises(TypeError, match=f"has no option '{name}': did you mean '{meant}'"):
        resolve("openai/m", **{name: "x"})


@pytest.mark.parametrize(
    ("options", "error", "what"),
    [
        ({"timeout": 0}, ValueError, "timeout is a number of seconds above 0"),
        ({"timeout": float("inf")}, ValueError, "timeout is a number of seconds above 0"),
        ({"timeout": "5"}, TypeError, "timeout is a number of seconds, the longest silence, not str"),
        ({"timeout": (5, 5)}, TypeError, "timeout is a number of seconds"),
        ({"request_timeout": True}, TypeError, "timeout is a number of seconds"),
        ({"api_key": 5}, TypeError, "api_key is a str, not int"),
        ({"api_key": b"k"}, TypeError, "api_key is a str, not bytes"),
    ],
)
def test_a_setting_of_the_wrong_kind_is_refused_where_it_is_given(options, error, what):
    for make in (HTTP, LiteLLM, resolve):
        with pytest.raises(error, match=what):
            make("openai/m", **options)
    assert HTTP("m", timeout=None).timeout == LiteLLM("m", timeout=None).timeout == 600


def test_a_header_that_is_no_text_is_not_left_out():
    with pytest.raises(TypeError, match="header X is a str, not int"):
        HTTP("m", headers={"X": 5})


def test_a_header_whose_name_would_begin_another_is_refused():
    with pytest.raises(ValueError, match="the name of a header holds characters"):
        HTTP("m", headers={"a\r\nAuthorization": "x"})
