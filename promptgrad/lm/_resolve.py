"""`resolve`: from a name to a language model with all layers on."""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Iterable, Mapping
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

from promptgrad.lm._base import LM, configured, register_maker
from promptgrad.lm._function import FunctionLM
from promptgrad.lm._options import LM_SETTINGS, check_headers, hear, take
from promptgrad.lm._settings import default
from promptgrad.lm._silence import SILENCE

if TYPE_CHECKING:
    from promptgrad.lm._prices import Prices


LMLike = LM | str | Callable[..., Any]
"""The argument from which `resolve` makes an LM."""

CONCURRENCY = 256
"""Default for the most calls in flight to an LM made from a name."""

ATTEMPTS = 5
"""Default for the most times a request is sent while its failure may pass."""

_made: dict[Hashable, LM] = {}  # so that one name is one LM, with one set of connections and one memory
_lock = Lock()


def resolve(
    model: LMLike,
    *,
    base_url: str | None = None,
    api_key: str | None = None,
    adapter: str | None = None,
    timeout: float = SILENCE,
    prices: Prices | None = None,
    cache: str | os.PathLike[str] | bool | None = True,
    attempts: int = ATTEMPTS,
    concurrency: int = CONCURRENCY,
    requests_per_minute: int | None = None,
    tokens_per_minute: int | None = None,
    dialect: str | None = None,
    headers: Mapping[str, str] | None = None,
    without: Iterable[str] = (),
    api_version: str | None = None,
    samples_in_one: bool = False,
    **options: Any,
) -> LM:
    """Make a language model from a name, with cache, retry and a concurrency cap around it.

    Names: `pocket` is the model that comes with promptgrad. `openai/...`, `hosted_vllm/...`, `ollama/...`, and
    every bare name with a `base_url`, go over our own HTTP; their keys come from OPENAI_API_KEY and
    HOSTED_VLLM_API_KEY, their addresses from OPENAI_BASE_URL, HOSTED_VLLM_API_BASE and OLLAMA_API_BASE. Every other
    name is litellm's, and a provider with a dialect of its own (`anthropic/...`, `gemini/...`, `bedrock/...`) keeps it
    at a `base_url`. The same name with the same arguments is the same object. An `LM` is returned as it is; a function
    becomes a `FunctionLM`.

    The words of litellm and DSPy are understood: `api_base`, `num_retries`, `max_retries`, `organization`, `rpm`,
    `tpm`, `extra_headers`, `max_completion_tokens`; and for names of litellm its own arguments, such as
    `aws_region_name`.

    Args:
        model: A name, an `LM`, or a function of the messages.
        base_url: Address of the server.
        api_key: The key; by default the environment's, read at each call. A bare name has no key of the environment.
        adapter: Name of the adapter that writes prompts for it; by default the model's own.
        timeout: The longest silence of the server, in seconds.
        prices: US dollars for a million input and a million output tokens; by default those in litellm's table.
        cache: True for a cache in memory and, if `configure(cache=...)` names a folder, on disk; a folder for a cache
            on disk there; False or None for no cache.
        attempts: Most times a request is sent while its failure may pass; `num_retries` is one less. Being turned away
            (429, overload) is no failed attempt; a request comes back nearly twice as often then.
        concurrency: The most calls in flight. What the server takes at once is found out below it.
        requests_per_minute: The most requests in any minute.
        tokens_per_minute: The most tokens in any minute.
        dialect: `"openai"` sends to `base_url` over our own HTTP whatever the name is, and the name as it stands.
        headers: Further headers, shown nowhere.
        without: What the model is known not to take, as for `HTTP`.
        api_version: Version of the service, as Azure wants it.
        samples_in_one: Ask for the rollouts of one call in one request (`n`), where they are known: `lm.SamplesInOne`.
        options: Sampling options for requests that leave them open. What only the provider knows goes through
            `extra_body={...}`. `mark_prefix=True` marks prompts for Anthropic's cache, as in `lm.LiteLLM`.

    Raises:
        TypeError: `model` is none of these, or is an `LM` and there are further arguments; or an option is not known.
        ValueError: The name is empty, or an argument is out of its range.
    """
    local: dict[str, Any] = {name: value for name, value in locals().items() if name in LM_SETTINGS}
    litellm = isinstance(model, str) and _is_litellms(model, base_url or options.get("api_base"), dialect)
    options = hear("pg.LM", options, LM_SETTINGS | {"mark_prefix"} if litellm else LM_SETTINGS, litellm=litellm)
    given = {name: take(options, name, value, _DEFAULTS.get(name)) for name, value in local.items()}
    if not isinstance(model, str):
        return _other(model, given, options)
    from promptgrad.lm._cache import Cache
    from promptgrad.lm._limit import Limit
    from promptgrad.lm._providers import provider_of
    from promptgrad.lm._retry import Retry
    from promptgrad.lm._samples import SamplesInOne

    model = model.strip()
    if not model:
        raise ValueError('the name of a language model is empty; it looks like "openai/gpt-4o-mini" or "pocket"')
    if given["dialect"] not in (None, "openai"):
        raise ValueError(f'dialect is "openai" or None for the provider\'s own, not {given["dialect"]!r}')
    if given["dialect"] is not None and given["base_url"] is None:
        raise ValueError('dialect="openai" needs the base_url of a server that speaks it')
    folder = given["cache"]
    caching = folder is not None and folder is not False
    folder = default().cache if isinstance(folder, bool) else folder
    place = str(Path(folder).absolute()) if caching and folder is not None else None
    rest = {**given, "without": sorted({given["without"]} if isinstance(given["without"], str) else given["without"])}
    rest["headers"] = sorted(check_headers(given["headers"]).items())
    provider = provider_of(model, given["base_url"])
    address = None if provider is None else provider.address(given["base_url"])  # the environment's may have changed
    key: Hashable = (model, address, caching, place, repr(sorted(rest.items())), repr(sorted(options.items())))
    with _lock:
        lm = _made.get(key)
        if lm is None:
            lm = _transport(model, given, options)
            if model != "pocket":
                minute = {name: given[name] for name in ("requests_per_minute", "tokens_per_minute")}
                attempts = given["attempts"]
                lm = Retry(Limit(lm, given["concurrency"], **minute), attempts, turns=max(1, 2 * attempts - 1))
            if caching:
                lm = Cache(lm, place)
            if given["samples_in_one"]:
                lm = SamplesInOne(lm)
            changed = {name: value for name, value in given.items() if value != _DEFAULTS.get(name)}
            passed = {name: value for name, value in options.items() if name != "settings"}
            passed |= options.get("settings") or {}  # arguments of litellm
            configured(lm, resolve, model, **{**passed, **changed, "cache": place or caching})
            _made[key] = lm
    return lm


_DEFAULTS: dict[str, Any] = {
    "timeout": SILENCE,
    "cache": True,
    "attempts": ATTEMPTS,
    "concurrency": CONCURRENCY,
    "without": (),
    "samples_in_one": False,
}


def _other(model: Any, given: dict[str, Any], options: dict[str, Any]) -> LM:
    """An LM as it is, or one made of a function."""
    extra = [name for name, value in given.items() if value != _DEFAULTS.get(name)] + [*options]
    if isinstance(model, LM):
        if extra:
            raise TypeError(f"{model!r} is made already: give it {', '.join(extra)} where it is made")
        return model
    if not callable(model) or isinstance(model, type):
        raise TypeError(f"a language model is an LM, a name or a function, not {model!r}")
    extra = [name for name in extra if name not in options and name != "adapter"]
    if extra:
        raise TypeError(f"a function has no {', '.join(extra)}: these are of an LM that is made from a name")
    return FunctionLM(model, adapter=given["adapter"] or "chat", **options)


def _is_litellms(model: str, base_url: str | None, dialect: str | None) -> bool:
    from promptgrad.lm._providers import provider_of

    provider = provider_of(model, base_url)
    return provider is None and model != "pocket" and dialect is None and (base_url is None or _has_own(model))


def _has_own(model: str) -> bool:
    from promptgrad.lm._providers import OWN_DIALECT

    prefix, slash, _ = model.partition("/")
    return bool(slash) and prefix in OWN_DIALECT


def _transport(model: str, given: dict[str, Any], options: dict[str, Any]) -> LM:
    from promptgrad.lm._http import HTTP
    from promptgrad.lm._providers import provider_of

    base_url, api_key = given["base_url"], given["api_key"]
    if model == "pocket" and base_url is None:
        from promptgrad.lm._pocket import pocket

        remote = (
            "api_key",
            "headers",
            "api_version",
            "timeout",
            "requests_per_minute",
            "tokens_per_minute",
            "without",
            "samples_in_one",
        )
        foreign = [name for name in remote if given[name] != _DEFAULTS.get(name)]
        if foreign:
            raise TypeError(f'pg.LM("pocket") runs in this process and has no {", ".join(foreign)}')
        return pocket(**hear('pg.LM("pocket")', options, ()))
    settings: dict[str, Any] = {
        "name": model,
        "timeout": given["timeout"],
        "prices": given["prices"],
        "adapter": given["adapter"] or "chat",
        "without": given["without"],
        **options,
    }
    if _is_litellms(model, base_url, given["dialect"]):
        from promptgrad.lm._litellm import LiteLLM

        passed = dict(settings.pop("settings", None) or {})
        if given["headers"]:
            passed["extra_headers"] = dict(given["headers"])
        if given["api_version"] is not None:
            passed["api_version"] = given["api_version"]
        return LiteLLM(model, api_key=api_key, api_base=base_url, settings=passed, **settings)
    settings |= {"headers": given["headers"], "api_version": given["api_version"]}
    provider = None if given["dialect"] == "openai" and _has_own(model) else provider_of(model, base_url)
    if provider is None:  # a bare name: its key is the one that is given
        return HTTP(model, base_url, api_key, api_key_env=None, **settings)
    if provider.free:
        settings = {**settings, "prices": given["prices"] or (0.0, 0.0)}
    address = provider.address(base_url)
    return HTTP(provider.bare(model), address, api_key, api_key_env=provider.key, **settings)


register_maker("LM", resolve)
