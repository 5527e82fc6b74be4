import json
import os
import socket
import subprocess
import sys

import pytest

import promptgrad as pg
from promptgrad.errors import (
    AuthenticationError,
    BadRequestError,
    ContextWindowError,
    LMConnectionError,
    LMStatusError,
    LMTimeoutError,
    MissingExtraError,
    RateLimitError,
)
from promptgrad.lm import LiteLLM, Request, Retry
from promptgrad.testing import Drop, Garbage, Hang, Reply, Status

KEY = "sk-very-secret-0123456789"

QUIET = """
import os, sys, json
os.environ.pop("LITELLM_LOCAL_MODEL_COST_MAP", None)
os.environ.pop("LITELLM_MODE", None)
before = dict(os.environ)
asked = []
sys.addaudithook(lambda event, args: asked.append(str(args[-1])) if event.startswith("socket.connect") else None)
from promptgrad.lm import LiteLLM
lm = LiteLLM("gpt-4o-mini", settings={"mock_response": "Paris"})
assert "litellm" not in sys.modules
reply = lm("Capital of France?")
secret = os.environ.get("FROM_DOT_ENV")
print(json.dumps([reply.text, reply.usage.calls, asked, secret, dict(os.environ) == before, os.listdir(".")]))
"""


def test_it_is_imported_late_and_without_side_effects(tmp_path):
    (tmp_path / ".env").write_text("FROM_DOT_ENV=leaked\n")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    for name in ("LITELLM_LOCAL_MODEL_COST_MAP", "LITELLM_MODE", "LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS"):
        environment.pop(name, None)
    done = subprocess.run(
        [sys.executable, "-c", QUIET], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    text, calls, asked, secret, same, files = json.loads(done.stdout)
    assert (text, calls, asked, secret, same, files) == ("Paris", 1, [], None, True, [".env"])
    assert done.stderr == ""


FETCHES = """
import sys
hosts = []
sys.addaudithook(lambda event, args: hosts.append(args[0]) if event == "socket.getaddrinfo" else None)
from promptgrad import content, errors, lm
claude = lm.LiteLLM("anthropic/claude-sonnet-4-5", "key", api_base="http://127.0.0.1:9")
asked = lm.Request.of([{"role": "user", "content": ["Read.", content.File("https://example.org/a.pdf")]}])
try:
    claude(asked)
except errors.LMConnectionError:
    print(sorted(set(hosts)))
"""


def test_the_first_call_fetches_no_table(tmp_path):
    """litellm would ask GitHub for headers of Anthropic's, and be stopped as if it loaded the file."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    environment.pop("LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS", None)
    done = subprocess.run(
        [sys.executable, "-c", FETCHES], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600
    )
    assert (done.stdout, done.returncode) == ("[]\n", 0), done.stderr


@pytest.mark.parametrize("usage", [None, {"prompt_tokens": 0, "completion_tokens": 3}])
def test_missing_usage_is_estimated(server, usage):
    choice = {"index": 0, "message": {"role": "assistant", "content": "x" * 40}, "finish_reason": "stop"}
    more = {} if usage is None else {"usage": {**usage, "total_tokens": 3}}
    server.script(Garbage(json.dumps({"id": "1", "model": "tiny", "choices": [choice], **more}).encode()))
    used = LiteLLM("openai/tiny", KEY, api_base=server.url)("y" * 400).usage
    assert (used.input_tokens, used.output_tokens) == (101, 11)


def test_a_call_over_the_wire(server):
    server.script(Reply("Paris", usage=(1_000_000, 0), finish_reason="length"))
    lm = LiteLLM("openai/gpt-4o-mini", KEY, api_base=server.url, temperature=0)
    request = Request.of([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Capital?"}])
    completion = lm(request, max_tokens=5, stop="x", seed=3, replicate=2, response_format={"type": "json_object"})
    assert (completion.text, completion.finish_reason) == ("Paris", "length")
    assert (completion.usage.calls, completion.usage.input_tokens) == (1, 1_000_000)
    assert completion.usage.usd == pytest.approx(0.15)
    sent = server.requests[-1]
    assert sent.headers["authorization"] == f"Bearer {KEY}"
    assert [m["content"] for m in sent.messages] == ["Be brief.", "Capital?"]
    body = sent.json
    assert (body["temperature"], body["max_tokens"], body["stop"], body["seed"]) == (0, 5, ["x"], 5)
    assert body["response_format"] == {"type": "json_object"}


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (Status(429, retry_after=7), RateLimitError),
        (Status(500), LMStatusError),
        (Status(401, message=f"bad key {KEY}"), AuthenticationError),
        (Status(400, kind="context_length_exceeded", message="maximum context length is 10"), ContextWindowError),
        (Drop(), LMConnectionError),
    ],
)
def test_failures_are_translated_and_litellm_does_not_retry(server, answer, kind):
    server.script(answer)
    with pytest.raises(kind) as caught:
        LiteLLM("openai/tiny", KEY, api_base=server.url)("q")
    assert len(server.requests) == 1
    assert KEY not in str(caught.value)
    if isinstance(answer, Status) and answer.retry_after:
        assert caught.value.retry_after == 7


@pytest.mark.parametrize("model", ["gpt-4o-mini", "gemini/gemini-1.5-pro"])
def test_a_missing_key_is_told_at_once_and_nothing_is_sent(monkeypatch, model):
    for name in list(os.environ):
        if name.startswith(("OPENAI_", "GEMINI_", "GOOGLE_")):
            monkeypatch.delenv(name)
    waits = []

    async def sleep(seconds):
        waits.append(seconds)

    with pytest.raises(AuthenticationError, match=r"_API_KEY`?.* environment variable") as caught:
        Retry(LiteLLM(model), sleep=sleep)("q")
    assert (waits, caught.value.status) == ([], 0)
    assert "Traceback" not in str(caught.value)


@pytest.mark.parametrize("model", ["moonshot/m", "nvidia_nim/m", "hyperbolic/m", "zai/m", "groq/m", "deepinfra/m"])
def test_the_key_of_openai_goes_to_nobody_else(server, monkeypatch, model):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with pytest.raises(AuthenticationError, match=r"there is no key for .*nothing was sent: set \w+_API_KEY"):
        LiteLLM(model)("?")
    prefix = model.partition("/")[0].upper()
    monkeypatch.setenv(f"{prefix}_API_BASE", server.url)
    with pytest.raises(AuthenticationError, match="nothing was sent"):
        LiteLLM(model)("?")
    assert not server.requests


KEYLESS = {
    "huggingface/meta-llama/m": "HF_TOKEN or HUGGINGFACE_API_KEY",
    "huggingface/m": "HF_TOKEN or HUGGINGFACE_API_KEY",
    "nlp_cloud/m": "NLP_CLOUD_API_KEY",
    "datarobot/m": "DATAROBOT_API_TOKEN",
    "nadir/m": "NADIR_API_KEY",
    "cometapi/m": "COMETAPI_KEY",
    "compactifai/m": "COMPACTIFAI_API_KEY",
}


@pytest.mark.parametrize("model", KEYLESS)
def test_providers_that_litellm_would_ask_without_a_key_are_not_asked(monkeypatch, model):
    for name in ("HF_TOKEN", "HUGGINGFACE_API_KEY", "HF_API_BASE", "HUGGINGFACE_API_BASE", *KEYLESS.values()):
        monkeypatch.delenv(name, raising=False)
    said = f"there is no key for '{model}', so nothing was sent: set {KEYLESS[model]} as an environment variable"
    with pytest.raises(AuthenticationError, match=said) as caught:
        LiteLLM(model)("q")
    assert not caught.value.transient


def test_a_server_of_ones_own_may_need_no_key(server, monkeypatch):
    monkeypatch.delenv("COMETAPI_KEY", raising=False)
    monkeypatch.setenv("COMETAPI_API_BASE", server.url)
    assert LiteLLM("cometapi/m")("?").text == "echo ?"


@pytest.mark.parametrize(
    ("model", "kind", "said"),
    [
        ("watsonx_text/m", AuthenticationError, "API key is required"),
        ("custom/m", BadRequestError, "api_base not set.*pass base_url="),
        ("heroku/m", BadRequestError, "No api base was set.*pass base_url="),
        ("predibase/m", BadRequestError, "Missing Predibase Tenant ID"),
    ],
)
def test_what_litellm_itself_refuses_is_not_asked_again(monkeypatch, model, kind, said):
    for name in list(os.environ):
        if name.startswith(("WATSONX_", "WX_", "HEROKU_", "PREDIBASE_")):
            monkeypatch.delenv(name)
    with pytest.raises(kind, match=said) as caught:
        LiteLLM(model)("q")
    assert not caught.value.transient
    assert "Traceback" not in str(caught.value)


def test_an_address_that_litellm_would_not_send_to_is_refused(server):
    for make in (LiteLLM, pg.LM):
        with pytest.raises(ValueError, match="whatever base_url= says"):
            make("replicate/a/b", base_url=server.url, api_key="k")
    assert pg.LM("replicate/a/b", base_url=server.url, api_key="k", dialect="openai", cache=False)("hi").text
    assert server.received == 1


def test_where_nobody_listens_on_this_machine_is_asked_once():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        lm = pg.LM("anthropic/m", base_url=f"http://127.0.0.1:{taken.getsockname()[1]}", api_key="k", cache=False)
        with pytest.raises(LMConnectionError, match="does the server run there") as caught:
            lm("hi")
    assert not caught.value.transient
    assert lm.stats()["requests"] == 1


@pytest.mark.parametrize("model", ["lm_studio/m", "litellm_proxy/m", "custom_openai/m", "xinference/m"])
def test_a_server_of_ones_own_without_an_address_is_not_sought_at_openai(server, monkeypatch, model):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_API_BASE", server.url)
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    with pytest.raises(BadRequestError, match=r"names no address.*nothing was sent: pass base_url="):
        LiteLLM(model)("?")
    assert not server.requests
    assert LiteLLM(model, "own", api_base=server.url)("?").text == "echo ?"
    assert "own" in server.requests[0].headers["authorization"]


def test_timeout(server):
    server.script(Hang())
    with pytest.raises(LMTimeoutError):
        LiteLLM("openai/tiny", "x", api_base=server.url, timeout=0.2)("q")


def test_our_retry_works_on_it(server):
    waits = []

    async def sleep(seconds):
        waits.append(seconds)

    server.script(Status(429, retry_after=7), "Paris")
    assert Retry(LiteLLM("openai/tiny", "x", api_base=server.url), sleep=sleep)("q").text == "Paris"
    assert 7 <= waits[0] < 9


def test_a_provider_that_litellm_does_not_know():
    with pytest.raises(LMStatusError, match="no-such-provider/model"):
        LiteLLM("no-such-provider/model")("q")


def test_an_unknown_price_is_none(server):
    lm = LiteLLM("openai/tiny", "x", api_base=server.url)
    assert lm("q").usage.usd is None
    assert LiteLLM("openai/tiny", "x", api_base=server.url, prices=(1.0, 1.0))("q").usage.usd > 0


def test_nothing_shows_a_secret():
    lm = LiteLLM("m", KEY, api_base="http://me:pa55@h/v1", settings={"aws_secret_access_key": "s3cr3t", "a": 1})
    shown = repr(lm) + lm.identity() + repr(vars(lm["_settings"] if False else lm._api_key.__class__))
    assert not [word for word in (KEY, "pa55", "s3cr3t") if word in shown]
    others = [
        LiteLLM("m", settings={"a": 2}),
        LiteLLM("m", settings={"a": 1}),
        LiteLLM("m", api_base="http://h/v1", settings={"a": 1}),
        LiteLLM("m", settings={"a": 1}, temperature=0),
    ]
    assert len({one.identity() for one in others}) == 4
    assert others[2].identity() == lm.identity()


def test_without_litellm_it_says_what_to_install(monkeypatch):
    from promptgrad.lm import _litellm

    _litellm.load_litellm.cache_clear()
    monkeypatch.setitem(sys.modules, "litellm", None)
    with pytest.raises(MissingExtraError, match="pip install litellm"):
        LiteLLM("m")("q")
    monkeypatch.undo()
    _litellm.load_litellm.cache_clear()
