import pytest

from promptgrad.lm import HTTP, LM, Cache, FunctionLM, Limit, LiteLLM, Local, Retry, resolve


@pytest.fixture(autouse=True)
def no_addresses(monkeypatch):
    for name in ("OPENAI_BASE_URL", "HOSTED_VLLM_API_BASE", "OLLAMA_API_BASE", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)


def test_a_name_has_all_layers_on():
    lm = resolve("openai/gpt-4o-mini")
    assert isinstance(lm, Cache)
    assert isinstance(lm.lm, Retry)
    assert isinstance(lm.lm.lm, Limit)
    assert isinstance(lm.transport, HTTP)
    assert lm.name == "openai/gpt-4o-mini"


@pytest.mark.parametrize(
    ("name", "given", "model", "url"),
    [
        ("openai/gpt-4o-mini", {}, "gpt-4o-mini", "https://api.openai.com/v1"),
        ("hosted_vllm/Qwen/Qwen3-8B", {}, "Qwen/Qwen3-8B", "http://127.0.0.1:8000/v1"),
        ("ollama/llama3", {}, "llama3", "http://127.0.0.1:11434/v1"),
        ("ollama_chat/llama3", {}, "llama3", "http://127.0.0.1:11434/v1"),
        ("openai/mine", {"base_url": "http://h:1/v1"}, "mine", "http://h:1/v1"),
        ("Qwen/Qwen3-8B", {"base_url": "http://h:1/v1"}, "Qwen/Qwen3-8B", "http://h:1/v1"),
        ("pocket", {"base_url": "http://h:1/v1"}, "pocket", "http://h:1/v1"),
    ],
)
def test_names_that_go_over_http(name, given, model, url):
    transport = resolve(name, **given).transport
    assert isinstance(transport, HTTP)
    assert (transport.model, transport.base_url) == (model, url)


def test_addresses_come_from_the_environment(monkeypatch):
    monkeypatch.setenv("OPENAI_BASE_URL", "http://a/v1")
    monkeypatch.setenv("HOSTED_VLLM_API_BASE", "http://b/v1")
    monkeypatch.setenv("OLLAMA_API_BASE", "http://c:1/")
    names = ("openai/env-1", "hosted_vllm/env-1", "ollama/env-1")
    assert [resolve(n).transport.base_url for n in names] == ["http://a/v1", "http://b/v1", "http://c:1/v1"]


def test_other_names_are_litellms():
    transport = resolve("anthropic/claude-sonnet-4-5", temperature=0).transport
    assert isinstance(transport, LiteLLM)
    assert transport.model == "anthropic/claude-sonnet-4-5"


def test_pocket():
    lm = resolve("pocket")
    assert isinstance(lm.transport, Local)
    assert (lm.name, lm.adapter) == ("pocket", "pocket")
    assert resolve("pocket", temperature=0.7).transport.options == {"temperature": 0.7}


def test_one_name_is_one_object():
    assert resolve("openai/x", temperature=0) is resolve("openai/x", temperature=0)
    assert resolve("openai/x", temperature=0) is not resolve("openai/x", temperature=1)
    assert resolve("openai/x", attempts=2) is not resolve("openai/x")
    assert resolve("openai/x", stop=["a"]) is resolve("openai/x", stop=["a"])


def test_layers_can_be_set(tmp_path):
    lm = resolve("openai/x", cache=None, attempts=2, concurrency=3, prices=(1.0, 2.0), adapter="json", timeout=5)
    assert isinstance(lm, Retry)
    assert (lm.attempts, lm.lm.concurrency, lm.adapter) == (2, 3, "json")
    assert (lm.transport.prices, lm.transport.timeout) == ((1.0, 2.0), 5)
    on_disk = resolve("openai/x", cache=tmp_path)
    assert (tmp_path / "lm.db").exists()
    on_disk.close()


def test_lms_and_functions():
    lm = FunctionLM(str)
    assert resolve(lm) is lm
    made = resolve(lambda messages: "x", temperature=0)
    assert isinstance(made, FunctionLM)
    assert made.options == {"temperature": 0.0}
    with pytest.raises(TypeError, match="made already: give it temperature"):
        resolve(lm, temperature=0)


@pytest.mark.parametrize("bad", [3, None, FunctionLM, {"model": "x"}])
def test_nothing_else(bad):
    with pytest.raises(TypeError, match="an LM, a name or a function"):
        resolve(bad)


def test_an_empty_name():
    with pytest.raises(ValueError, match="is empty"):
        resolve(" ")


def test_the_class_itself_makes_one_of_a_name():
    lm = LM("openai/x", temperature=0)
    assert lm is resolve("openai/x", temperature=0)
    assert isinstance(lm, LM)


def test_an_lm_that_completes_nothing_says_so():
    class Mine(LM):
        name = "mine"

    with pytest.raises(NotImplementedError, match="Mine does not define complete"):
        Mine()("q")
    assert repr(Mine()) == "Mine('mine')"
    assert Mine().identity() == "mine"
    Mine().close()
