"""The options of language models: those that are known, the words of others for them, and a hint for all else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from promptgrad._patterns import late_pattern

SAMPLING = frozenset(
    {"temperature", "max_tokens", "top_p", "stop", "seed", "response_format", "replicate", "extra", "grammar"}
)
"""Options of a request that are fields of `Request`."""

CHAT = frozenset(
    [
        "audio",
        "chat_template_kwargs",
        "enable_thinking",
        "frequency_penalty",
        "include_reasoning",
        "functions",
        "function_call",
        "logit_bias",
        "logprobs",
        "metadata",
        "min_p",
        "modalities",
        "parallel_tool_calls",
        "prediction",
        "presence_penalty",
        "prompt_cache_key",
        "reasoning",
        "reasoning_effort",
        "reasoning_format",
        "repetition_penalty",
        "safety_identifier",
        "service_tier",
        "store",
        "stream_options",
        "thinking",
        "thinking_budget",
        "tool_choice",
        "tools",
        "top_k",
        "top_logprobs",
        "user",
        "verbosity",
        "web_search_options",
        "stream",
        "n",
        "model",
        "messages",
    ]  # the last four are refused with a reason of their own where they are sent
)
"""Fields of a chat request beside them that many servers read; any other goes through `extra_body`. `stream`, `n`,
`model` and `messages` are refused with a reason of their own where they are sent."""

_SAME = {
    "api_base": "base_url",
    "azure_endpoint": "base_url",
    "openai_api_base": "base_url",
    "openai_api_key": "api_key",
    "request_timeout": "timeout",
    "default_headers": "headers",
    "extra_headers": "headers",
    "max_parallel_requests": "concurrency",
    "rpm": "requests_per_minute",
    "tpm": "tokens_per_minute",
    "max_completion_tokens": "max_tokens",
    "max_new_tokens": "max_tokens",
    "max_output_tokens": "max_tokens",
    "rollout_id": "replicate",
    "torch_dtype": "dtype",
    "device_map": "device",
}
_MEANT = {
    **dict.fromkeys(("url", "host", "server", "endpoint", "address", "api_url"), "base_url"),
    **dict.fromkeys(("key", "token", "api_token"), "api_key"),
    **dict.fromkeys(("read_timeout", "connect_timeout", "stream_timeout"), "timeout"),
    **dict.fromkeys(("max_length", "max_len", "num_predict", "n_predict"), "max_tokens"),
    **dict.fromkeys(("stop_token", "stop_tokens", "stop_words", "eos"), "stop"),
    **dict.fromkeys(("guided_json", "json_schema", "schema", "json_mode"), "response_format"),
    **dict.fromkeys(("input_cost_per_token", "output_cost_per_token", "price", "cost"), "prices"),
    "provider": "dialect",
    "temp": "temperature",
    "stop_sequences": "stop",
    "random_seed": "seed",
    "caching": "cache",
    "num_threads": "concurrency",
}
"""Words that are too far from a name to be near it, and say which is meant all the same."""
_RETRIES = ("num_retries", "max_retries")
_HEADERS = {"organization": "OpenAI-Organization", "project": "OpenAI-Project"}
_LITELLM = frozenset(
    {
        "additional_drop_params",
        "allowed_openai_params",
        "api_type",
        "api_version",
        "client_id",
        "custom_llm_provider",
        "deployment_id",
        "drop_params",
        "mock_response",
        "mock_timeout",
        "model_info",
        "organization",
        "project",
        "project_id",
        "region_name",
        "space_id",
        "ssl_verify",
        "tenant_id",
    }
)
_ITS_PROVIDERS = late_pattern(r"(?:aws|azure|vertex|watsonx|oci|snowflake|databricks|litellm)_\w+")


LM_SETTINGS = frozenset(
    {
        "base_url",
        "api_key",
        "adapter",
        "timeout",
        "prices",
        "cache",
        "attempts",
        "concurrency",
        "dialect",
        "headers",
        "without",
        "api_version",
        "requests_per_minute",
        "tokens_per_minute",
        "samples_in_one",
    }
)
"""The settings of an LM that is made from a name."""


def is_litellms(name: str) -> bool:
    """True if an argument is one that litellm passes to a provider."""
    return name in _LITELLM or _ITS_PROVIDERS.fullmatch(name) is not None


def hear(what: str, given: Mapping[str, Any], settings: Iterable[str], *, litellm: bool = False) -> dict[str, Any]:
    """Return options under their own names: those of litellm, DSPy and the servers' clients are translated.

    Args:
        what: What they are given to, for messages.
        given: The options.
        settings: Names of its settings, beside the options of a request.
        litellm: Whether it takes arguments of litellm, which are returned under `settings`.

    Raises:
        TypeError: A name is not known, or two names of one setting have different values.
    """
    known = frozenset(settings)
    heard: dict[str, Any] = {}
    passed: dict[str, Any] = {}

    def put(name: str, value: Any, by: str) -> None:
        if name == "headers":
            heard[name] = {**heard.get(name, {}), **check_headers(value, by)}
            return
        if name in heard and heard[name] != value:
            raise TypeError(f"{what}: {by} is {name} by another name, and both are given")
        heard[name] = value

    for name, value in given.items():
        if name in ("n", "stream"):
            _check_one(what, name, value)
            continue
        same = _SAME.get(name, name)
        if value is None and (name in _SAME or name in _RETRIES or name == "extra_body"):
            continue  # as if it were not there, as in litellm
        if name in known or name in SAMPLING or name in CHAT or name == "extra_body":
            put(name, value, name)
        elif name in _RETRIES and "attempts" in known:
            put("attempts", _attempts(what, name, value), name)
        elif name in _HEADERS and "headers" in known and not litellm:
            put("headers", {} if value is None else {_HEADERS[name]: value}, name)
        elif name == "model_type":
            if value not in (None, "chat"):
                raise TypeError(f"{what} speaks the chat dialect alone: model_type={value!r} is not possible")
        elif same != name and (same in known or same in SAMPLING):
            put(same, value, name)
        elif litellm and is_litellms(name):
            passed[name] = value
        else:
            raise TypeError(_unknown(what, name, known))
    if passed:
        heard["settings"] = {**(heard.get("settings") or {}), **passed}
    return heard


def _check_one(what: str, name: str, value: object) -> None:
    """Take `n=1` and `stream=False` for what they are, which is nothing."""
    if name == "n" and value not in (None, 1):
        raise ValueError(
            f"{what} takes no n, as a call gives one reply: model.map(batch, n={value!r}) asks for several"
        )
    if name == "stream" and value not in (None, False):
        raise ValueError(f"{what}: stream is not an option: write lm.stream(prompt) or model.stream(...)")


def check_headers(value: Any, name: str = "headers") -> Mapping[str, str]:
    """Headers that were given, of which there may be none.

    Raises:
        TypeError: They are no mapping.
    """
    if value is not None and not isinstance(value, Mapping):
        raise TypeError(f'{name} is a mapping of names to texts, {{"X-Team": "..."}}, not {type(value).__name__}')
    return value or {}


def _attempts(what: str, name: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise TypeError(f"{what}: {name} is a number of retries, not {value!r}")
    return value + 1


def _unknown(what: str, name: str, known: frozenset[str]) -> str:
    if name in _RETRIES:
        return f"{what} sends a request once: wrap it in lm.Retry(..., attempts=), or write pg.LM(..., attempts=)"
    if name in LM_SETTINGS or _SAME.get(name) in LM_SETTINGS:
        return f"{what} has no setting {name!r}, as pg.LM(...) has"
    if is_litellms(name):
        return f"{what} has no {name!r}, which is litellm's: names such as 'bedrock/...' and lm.LiteLLM take it"
    words = [word for word, same in _SAME.items() if same in known]
    words += _RETRIES if "attempts" in known else ()
    meant = _MEANT.get(name, "")
    near = meant if meant in known | SAMPLING else near_name(name, {*known, *SAMPLING, *CHAT, "extra_body", *words})
    hint = f": did you mean {near!r}?" if near else ""
    end = "" if near else " (what only your provider knows goes through extra_body={...})"
    return f"{what} has no option {name!r}{hint}{end}"


def near_name(name: str, known: Iterable[str]) -> str:
    """The known name that is nearest to a misspelt one; empty if none is near."""
    from difflib import get_close_matches

    return next(iter(get_close_matches(name.lower(), sorted(set(known) - {"extra", "stream", "n"}), 1, 0.7)), "")


def check_request(name: str) -> None:
    """Refuse an option of a request that is not known.

    Raises:
        TypeError: It is not.
    """
    if name in CHAT:
        return
    if name in LM_SETTINGS or name in _RETRIES or name in _SAME or is_litellms(name):
        raise TypeError(f"{name!r} is a setting of the LM and not of a request: pg.LM(..., {name}=...)")
    meant = _MEANT.get(name, "")
    near = meant if meant in SAMPLING else near_name(name, SAMPLING | CHAT)
    hint = f": did you mean {near!r}?" if near else ""
    raise TypeError(
        f"a request has no option {name!r}{hint} (what only your provider knows: extra_body={{{name!r}: ...}})"
    )


def take(options: dict[str, Any], name: str, given: Any, default: Any = None) -> Any:
    """Take a setting out of options that were heard, unless it was given by its own name.

    Raises:
        TypeError: Both are given, and they differ.
    """
    if name not in options:
        return given
    other = options.pop(name)
    if given != default and given != other:
        raise TypeError(f"{name} is given by two names, with different values")
    return other
