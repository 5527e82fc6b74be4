"""`usage` and `track_usage`: the cost of the calls inside a block, in all or by module, phase and language model."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Protocol

from promptgrad import aio, run
from promptgrad.lm._channel import Channel, channel
from promptgrad.lm._completion import CACHE_HIT, NO_USAGE, Usage

ELSEWHERE = "(elsewhere)"
"""The module of calls that no module made, such as those of an `Embedder`, and an LM that is called by itself."""


class UsageTracker:
    """A running total of usage, filled by every LM call below the block that opened it, in any thread or task.

    A request that brought no reply is no call, and its tokens and its price count as far as its server says them.

    Args:
        details: Also keep the sums by module, phase and language model, as `usage` does.
    """

    __slots__ = ("_hits", "_outer", "_parts", "_spared", "_total")

    def __init__(self, *, details: bool = False) -> None:
        self._parts = _Parts() if details else None
        self._total = NO_USAGE
        self._spared = NO_USAGE
        self._hits = 0

    def add(self, usage: Usage, lm: str = "") -> None:
        """Add the usage of one call of a language model of this name."""
        with aio.brief:
            self._total = usage if self._total is NO_USAGE else self._total + usage
            if self._parts is not None:
                self._parts.add(usage, lm)

    def hit(self, paid: Usage | None = None, lm: str = "") -> None:
        """Add a reply from a cache.

        Args:
            paid: What it cost when the active run paid for it; None if that is not known.
            lm: Name of the language model.
        """
        with aio.brief:
            self._hits += 1
            self._spared += CACHE_HIT if paid is None else paid
            if self._parts is not None:
                self._parts.add(CACHE_HIT, lm)

    @property
    def details(self) -> bool:
        """Whether it keeps the sums by module, phase and language model."""
        return self._parts is not None

    def attribute(self, usage: Usage, module: str) -> None:
        """Say that usage, which was added as that of calls, is that of a module."""
        if self._parts is not None:
            with aio.brief:
                _add(self._parts.modules, module, usage)

    @property
    def by_lm(self) -> dict[str, Usage]:
        """The sum for each language model, by its name; empty without details, as are the next two."""
        return self._sorted("lms")

    @property
    def by_phase(self) -> dict[str, Usage]:
        """The sum for each phase of a run, as `run.phase` and the Trainer name them; "" outside of them."""
        return self._sorted("phases")

    @property
    def by_module(self) -> dict[str, Usage]:
        """The sum for each module, by its path in the program that was called; its class in brackets for that itself.

        Calls that no module made are "(elsewhere)", and so is what failed requests cost.
        """
        modules = self._sorted("modules")
        left = _difference(self.total, modules)
        if self.details and (left.calls or left.cached or left.tokens):
            modules[ELSEWHERE] = left
        return modules

    def _sorted(self, sums: str) -> dict[str, Usage]:
        if self._parts is None:
            return {}
        with aio.brief:
            return dict(sorted(getattr(self._parts, sums).items()))

    @property
    def total(self) -> Usage:
        """The sum so far."""
        return self._total + Usage(cached=self._hits) if self._hits else self._total

    @property
    def uncached(self) -> Usage:
        """The sum as it would be without a cache: a reply that the active run paid for before counts with its cost.

        Replies from a cache whose cost is not known count as `cached`.
        """
        return self._total + self._spared if self._hits else self._total

    @property
    def calls(self) -> int:
        """Requests that an LM answered, without those from a cache."""
        return self.total.calls

    @property
    def cached(self) -> int:
        """Requests that a cache answered."""
        return self.total.cached

    @property
    def input_tokens(self) -> int:
        """Tokens sent."""
        return self.total.input_tokens

    @property
    def output_tokens(self) -> int:
        """Tokens received."""
        return self.total.output_tokens

    @property
    def tokens(self) -> int:
        """Tokens sent and received."""
        return self.total.tokens

    @property
    def usd(self) -> float | None:
        """Money in US dollars; None where some price is unknown."""
        return self.total.usd

    @property
    def seconds(self) -> float:
        """Time spent waiting for LMs, summed over calls."""
        return self.total.seconds

    def __repr__(self) -> str:
        return f"UsageTracker({self.total!r})"

    def __str__(self) -> str:
        rows: list[tuple[str, Usage | None]] = [("total", self.total)]
        for title, sums in (("module", self.by_module), ("phase", self.by_phase), ("lm", self.by_lm)):
            if sums and list(sums) != [""]:
                rows += [(title, None), *((f"  {name or '(none)'}", usage) for name, usage in sums.items())]
        return _table(rows)

    def __enter__(self) -> UsageTracker:  # not a generator of `track_usage`, because every row of a batch opens one
        self._outer: Channel = channel.get()
        first, trackers = self._outer
        channel.set((first, (*trackers, self)))
        return self

    def __exit__(self, *_: object) -> None:
        channel.set(self._outer)


class _Parts:
    """Sums by language model, by phase and by module."""

    def __init__(self) -> None:
        self.lms: dict[str, Usage] = {}
        self.phases: dict[str, Usage] = {}
        self.modules: dict[str, Usage] = {}

    def add(self, usage: Usage, lm: str) -> None:
        """Add the usage of one call."""
        _add(self.lms, lm, usage)
        _add(self.phases, run.current_phase(), usage)


def _add(sums: dict[str, Usage], name: str, usage: Usage) -> None:
    sums[name] = sums.get(name, NO_USAGE) + usage


def _difference(total: Usage, parts: Mapping[str, Usage]) -> Usage:
    """What is left of a total."""
    given = sum(parts.values(), NO_USAGE)
    usd = None if total.usd is None or given.usd is None else max(0.0, total.usd - given.usd)
    return Usage(
        max(0, total.calls - given.calls),
        max(0, total.input_tokens - given.input_tokens),
        max(0, total.output_tokens - given.output_tokens),
        usd,
        max(0, total.cached - given.cached),
        max(0.0, total.seconds - given.seconds),
    )


_HEAD = ("calls", "cached", "input", "output", "usd", "seconds")


def _table(rows: list[tuple[str, Usage | None]]) -> str:
    """Usages as a table with a line for each."""
    lines: list[tuple[str, ...]] = [("", *_HEAD)]
    for name, usage in rows:
        if usage is None:
            lines.append((name, *("" for _ in _HEAD)))
            continue
        usd = "?" if usage.usd is None else f"{usage.usd:.4f}"
        tokens = f"{usage.input_tokens:,}", f"{usage.output_tokens:,}"
        lines.append((name, f"{usage.calls:,}", f"{usage.cached:,}", *tokens, usd, f"{usage.seconds:.1f}"))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            [line[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True))]
        ).rstrip()
        for line in lines
    )


class HasUsage(Protocol):
    """What knows what it cost, and which module it is a call of."""

    @property
    def module(self) -> str: ...

    @property
    def usage(self) -> Usage: ...


def attribute(call: HasUsage, kind: type) -> None:
    """Say which module made calls that are counted here, for `usage().by_module`. Nothing where nobody asks.

    Args:
        call: What the calls belong to; what they cost is looked up only where somebody asks.
        kind: The class of the module, which is named where it has no path.
    """
    for tracker in channel.get()[1]:
        if tracker._parts is not None:
            tracker.attribute(call.usage, call.module or f"({kind.__name__})")


def usage() -> AbstractContextManager[UsageTracker]:
    """Add up the usage of every LM call inside the block, and for each module, phase and language model apart.

    As `track_usage`, which keeps the total alone and so costs less. `print(used)` shows a table.

    Example:
        ```python
        with pg.usage() as used:
            model.map(questions)
        print(used)
        print(used.by_module["query"].usd, used.by_lm, used.by_phase)
        ```
    """
    return UsageTracker(details=True)


def track_usage() -> AbstractContextManager[UsageTracker]:
    """Add up the usage of every LM call made inside the block, in any thread or task that carries its context.

    Blocks nest: an inner call counts in all of them. A reply from a cache counts as `cached`, at no cost.

    Example:
        ```python
        with track_usage() as usage:
            model(question="...")
        print(usage.calls, usage.tokens, usage.usd)
        ```
    """
    return UsageTracker()
