"""`configure`, `context` and `resolve_lm`: which language model a call uses."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from promptgrad._habits import refuses
from promptgrad.errors import NoLMError
from promptgrad.lm._base import LM
from promptgrad.lm._resolve import LMLike, resolve
from promptgrad.lm._settings import Settings, change_default, current, default, lay, lift, open_overlay


class _Unset:
    def __repr__(self) -> str:
        return "unchanged"


UNSET: Final = _Unset()


_HABITS = {
    **dict.fromkeys(
        ("temperature", "max_tokens", "api_key", "api_base", "base_url", "num_retries", "timeout"),
        "lm=pg.LM(name, temperature=...): it is an option of a language model",
    ),
    "rm": "a call of your retriever in forward",
    **dict.fromkeys(("num_threads", "async_max_workers", "max_workers"), "concurrency=..."),
    **dict.fromkeys(("track_usage", "usage_tracker"), "with promptgrad.track_usage() as usage"),
    **dict.fromkeys(
        ("trace", "bypass_suggest", "experimental"), "nothing: a call inside a recorded program is on its graph"
    ),
    **dict.fromkeys(("callbacks", "max_errors"), "Trainer(..., callbacks=[...]); a row that fails is an error row"),
    **dict.fromkeys(("seed", "random_seed"), "promptgrad.manual_seed(seed)"),
    **dict.fromkeys(("model", "llm", "engine"), "lm=..."),
}


@refuses(_HABITS)
def configure(
    *,
    lm: LMLike | _Unset | None = UNSET,
    critic: LMLike | _Unset | None = UNSET,
    adapter: Any = UNSET,
    concurrency: int | _Unset | None = UNSET,
    cache: str | os.PathLike[str] | _Unset | None = UNSET,
) -> None:
    """Set defaults for the whole process, at once for all threads; None removes a default, the others stay as they are.

    Args:
        lm: The language model: an `LM`, a name such as `"openai/gpt-4o-mini"` or `"pocket"`, or a function.
        critic: The language model that divides blame in `backward()`.
        adapter: Name of an adapter, or an adapter.
        concurrency: Most calls that `map` and `evaluate` have in flight.
        cache: Folder for the disk cache of LMs that are made from names from now on; earlier ones do not change.

    Raises:
        ValueError: `concurrency` is below one, or a name cannot be resolved.
    """
    if not isinstance(cache, _Unset):
        change_default({"cache": cache})
    change_default(_checked(lm=lm, critic=critic, adapter=adapter, concurrency=concurrency))


@contextmanager
@refuses(_HABITS)
def context(
    lm: LMLike | _Unset | None = UNSET,
    *,
    override: bool = False,
    critic: LMLike | _Unset | None = UNSET,
    adapter: Any = UNSET,
    concurrency: int | _Unset | None = UNSET,
    replicate: int | _Unset | None = UNSET,
) -> Iterator[Settings]:
    """Override the defaults for the code inside the block and the tasks and workers it starts.

    Args:
        lm: The language model for modules that have none of their own.
        override: Use `lm` for all modules, even those that have one of their own.
        critic: The language model that divides blame in `backward()`.
        adapter: Name of an adapter, or an adapter.
        concurrency: Most calls that `map` and `evaluate` have in flight.
        replicate: Replicate number of the calls inside; another number gives other replies to the same prompts.

    Raises:
        ValueError: `concurrency` is below one, `replicate` negative, or a name cannot be resolved.
    """
    changes = _checked(lm=lm, critic=critic, adapter=adapter, concurrency=concurrency, replicate=replicate)
    if override:
        if changes.get("lm") is None:
            raise ValueError("override=True needs an lm to override with: context(lm=..., override=True)")
        changes["override"] = changes["lm"]
    token = lay(**changes)
    try:
        yield current()
    finally:
        lift(token)


def _checked(**given: Any) -> dict[str, Any]:
    changes = {name: value for name, value in given.items() if value is not UNSET}
    for name in ("lm", "critic"):
        if changes.get(name) is not None:
            changes[name] = resolve(changes[name])
    for name, low in (("concurrency", 1), ("replicate", 0)):
        value = changes.get(name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < low):
            raise ValueError(f"{name} is an int of at least {low}, not {value!r}")
    return changes


def resolve_lm(call: LMLike | None = None, *modules: LM | None) -> LM:
    """Return the language model that a call uses.

    The order is: the call's own, `context(lm=..., override=True)`, the nearest module, `context(lm=...)`,
    `configure(lm=...)`.

    Args:
        call: The `lm` argument of the call itself.
        modules: LMs of the module and of those around it, nearest first; None for those without.

    Raises:
        NoLMError: None of them is set.
    """
    if call is not None:
        return call if isinstance(call, LM) else resolve(call)
    laid = open_overlay()
    over = None if laid is None else laid.settings
    if over is not None and over.override is not None:
        return over.override
    for lm in modules:
        if lm is not None:
            return lm
    if over is not None and over.lm is not None:
        return over.lm
    lm = default().lm
    if lm is not None:
        return lm
    if over is not None and over.fallback is not None:
        return over.fallback
    raise NoLMError(
        "no language model is set. Do one of these:\n"
        "  module(..., lm=lm)                     for one call\n"
        '  module.to("openai/gpt-4o-mini")        for a module and all below it\n'
        "  with promptgrad.context(lm=lm): ...    for a block\n"
        "  promptgrad.configure(lm=lm)            for the process\n"
        'where lm is a name ("pocket" needs neither key nor network) or a promptgrad.lm.LM'
    )
