"""`resolve`: from a name to a language model with all layers on."""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable
from pathlib import Path
from threading import Lock
from typing import Any

from promptgrad.lm._base import LM, register_maker
from promptgrad.lm._cache import Cache
from promptgrad.lm._function import FunctionLM
from promptgrad.lm._http import HTTP, OPENAI_URL
from promptgrad.lm._limit import Limit
from promptgrad.lm._prices import Prices
from promptgrad.lm._retry import Retry
from promptgrad.lm._settings import default

LMLike = LM | str | Callable[..., Any]
"""The argument from which `resolve` makes an LM."""

CONCURRENCY = 256
"""Default for the most calls in flight to an LM made from a name."""

_made: dict[Hashable, LM] = {}  # so that one name is one LM, with one set of connections and one memory
_lock = Lock()


def resolve(
    model: LMLike,
    *,
    base_url: str | None = None,
    api_key: str | None = None,
    adapter: str | None = None,
    timeout: float = 60.0,
    prices: Prices | None = None,
    cache: str | os.PathLike[str] | bool | None = True,
    attempts: int = 5,
    concurrency: int = CONCURRENCY,
    **options: Any,
) -> LM:
    """Make a language model from a name, with cache, retry and a concurrency cap around it.

    Names: `pocket` is the model that comes with promptgrad. `openai/...`, `hosted_vllm/...`, `ollama/...`, and
    every name with a `base_url`, go over our own HTTP; their keys come from OPENAI_API_KEY and HOSTED_VLLM_API_KEY,
    their addresses from OPENAI_BASE_URL, HOSTED_VLLM_API_BASE and OLLAMA_API_BASE. Every other name is litellm's.
    The same name with the same arguments is the same object. An `LM` is returned as it is; a function becomes
    a `FunctionLM`.

    Args:
        model: A name, an `LM`, or a function of the messages.
        base_url: Address of an OpenAI-compatible server.
        api_key: The key; by default the environment's, read at each call.
        adapter: Name of the adapter that writes prompts for it; by default the model's own.
        timeout: Seconds for a whole reply.
        prices: US dollars for a million input and a million output tokens; by default those in litellm's table.
        cache: True for a cache in memory and, if `configure(cache=...)` names a folder, on disk; a folder for a cache
            on disk there; False or None for no cache.
        attempts: Most times a request is sent while its failure may pass.
        concurrency: The most calls in flight.
        options: Sampling options for requests that leave them open.

    Raises:
        TypeError: `model` is none of these, or is an `LM` and there are further arguments.
        ValueError: The name is empty, or an argument is out of its range.
    """
    if not isinstance(model, str):
        given = {"base_url": base_url, "api_key": api_key, "adapter": adapter, "prices": prices}
        extra = [name for name, value in {**given, **options}.items() if value is not None]
        if isinstance(model, LM):
            if extra:
                raise TypeError(f"{model!r} is made already: give it {', '.join(extra)} where it is made")
            return model
        if not callable(model) or isinstance(model, type):
            raise TypeError(f"a language model is an LM, a name or a function, not {model!r}")
        return FunctionLM(model, adapter=adapter or "chat", **options)
    if not model.strip():
        raise ValueError('the name of a language model is empty; it looks like "openai/gpt-4o-mini" or "pocket"')
    caching = cache is not None and cache is not False
    folder = default().cache if isinstance(cache, bool) else cache
    place = str(Path(folder).absolute()) if caching and folder is not None else None
    given_options = repr(sorted(options.items()))
    key: Hashable = (
        model, base_url, api_key, adapter, timeout, prices, caching, place, attempts, concurrency, given_options
    )  # fmt: skip
    with _lock:
        lm = _made.get(key)
        if lm is None:
            lm = _transport(model, base_url, api_key, adapter, timeout, prices, options)
            if model != "pocket":
                lm = Retry(Limit(lm, concurrency), attempts)
            if caching:
                lm = Cache(lm, place)
            _made[key] = lm
    return lm


def _transport(
    model: str,
    base_url: str | None,
    api_key: str | None,
    adapter: str | None,
    timeout: float,
    prices: Prices | None,
    options: dict[str, Any],
) -> LM:
    if model == "pocket" and base_url is None:
        from promptgrad.lm._pocket import pocket

        return pocket(**options)
    settings: dict[str, Any] = {
        "name": model,
        "timeout": timeout,
        "prices": prices,
        "adapter": adapter or "chat",
        **options,
    }
    provider, slash, bare = model.partition("/")
    environ = os.environ.get
    if base_url is not None:
        known = {"openai", "hosted_vllm", "ollama", "ollama_chat"}
        return HTTP(bare if slash and provider in known else model, base_url, api_key, **settings)
    if slash and provider == "openai":
        return HTTP(bare, environ("OPENAI_BASE_URL") or OPENAI_URL, api_key, **settings)
    if slash and provider == "hosted_vllm":
        address = environ("HOSTED_VLLM_API_BASE") or "http://127.0.0.1:8000/v1"
        return HTTP(bare, address, api_key, api_key_env="HOSTED_VLLM_API_KEY", **settings)
    if slash and provider in {"ollama", "ollama_chat"}:
        address = (environ("OLLAMA_API_BASE") or "http://127.0.0.1:11434").rstrip("/")
        if not address.endswith("/v1"):
            address += "/v1"
        return HTTP(bare, address, api_key, api_key_env=None, **{"prices": (0.0, 0.0), **settings})
    from promptgrad.lm._litellm import LiteLLM

    return LiteLLM(model, api_key=api_key, **settings)


register_maker(resolve)
