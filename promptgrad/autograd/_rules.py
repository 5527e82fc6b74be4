"""Backward rules of the vertices that are not LM calls: one for each kind, replaceable.

A rule is a critic without a language model: it gets a `Passing`, and returns what is wrong with each target, by name. A
target that it does not mention is not to blame.
"""

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from promptgrad._error_text import error_text
from promptgrad._patterns import late_pattern
from promptgrad.autograd._critic import Target
from promptgrad.autograd._handle import RemovableHandle
from promptgrad.autograd._node import Join, Node

if TYPE_CHECKING:
    from promptgrad.autograd._node import GradFn


@dataclass(frozen=True)
class Passing:
    """A vertex without an LM, the critiques of its value, and the targets that they may concern.

    Attributes:
        fn: The vertex: a `Node` of a function, with its inputs, outputs and error, or a `Join`.
        feedback: The critiques of its value, one text from each user of the value.
        targets: What may be blamed. Of a function: the text parameters it read, and its inputs that others produced, by
            name. Of a join: its parts, "0", "1", ..., each with the texts of its producer as `value`, or None.
        by_output: For a function with several outputs, the critiques of each; None if that is not known.
    """

    fn: "GradFn"
    feedback: tuple[str, ...]
    targets: tuple[Target, ...]
    by_output: tuple[tuple[str, ...], ...] | None = None


_HEAD = 80  # characters of a text that a retriever found
_HEADS = 5

Answer = Mapping[str, str | Sequence[str] | None]
Rule = Callable[[Passing], Answer | Awaitable[Answer]]


def pass_through(passing: Passing) -> Answer:
    """Pass every critique of a value to everything it was made of: the rule of "function"."""
    return dict.fromkeys((target.name for target in passing.targets), passing.feedback)


def split(passing: Passing) -> Answer:
    """Pass a critique that quotes one part of a joined text to that part, and any other to all: the rule of "join".

    A quotation stands in quotes or backticks and has four characters or more; case and white space do not count.
    """
    shares: dict[str, list[str]] = {target.name: [] for target in passing.targets}
    said = {
        target.name: None if target.value is None else _flat("\n".join(map(str, target.value)))
        for target in passing.targets
    }
    for text in passing.feedback:
        quotes = quoted(text)
        holders = [name for name, value in said.items() if value is not None and any(q in value for q in quotes)]
        for name in holders or shares:
            shares[name].append(text)
    return shares


def blame_query(passing: Passing) -> Answer:
    """Criticise a retriever's query: what it was, what it found, and that this did not help: the rule of "retriever".

    What is found depends on the query alone, as far as the program can change it, so a critique of the documents is
    one of the query.
    """
    found = _found(passing.fn)
    return {
        target.name: tuple(
            f"the search for {_short(target.value)} did not find what was needed: {text}{found}"
            if target.kind == "input"
            else text
            for text in passing.feedback
        )
        for target in passing.targets
    }


def _found(fn: "GradFn") -> str:
    """How the texts begin that a retriever found; empty where it found something else than a list of texts."""
    out = fn.outputs.get("out") if isinstance(fn, Node) else None
    if not isinstance(out, (list, tuple)) or not all(isinstance(item, str) for item in out):
        return ""
    if not out:
        return " (it found nothing)"
    heads = [" ".join(str(item)[: 2 * _HEAD].split()) for item in out[:_HEADS]]
    shown = "; ".join(repr(head if len(head) <= _HEAD else f"{head[: _HEAD - 3]}...") for head in heads)
    return f" (it found {shown}{'' if len(out) <= _HEADS else f' and {len(out) - _HEADS} more'})"


def explain_error(passing: Passing) -> Answer:
    """Criticise the inputs of a function that raised: what they were, and what it raised: the rule of "error"."""
    node = passing.fn
    error = node.error if isinstance(node, Node) else None
    name = node.path if isinstance(node, Node) else "the call"
    said = "no error" if error is None else error_text(error)
    return {
        target.name: tuple(
            f"{name} failed with {said}, given {target.name}={_short(target.value)}. {text}"
            if target.kind == "input"
            else text
            for text in passing.feedback
        )
        for target in passing.targets
    }


DEFAULTS: Mapping[str, Rule] = {
    "function": pass_through,
    "join": split,
    "retriever": blame_query,
    "error": explain_error,
}

_registered: dict[int, tuple[str, Rule]] = {}


def register_rule(kind: str, rule: Rule) -> RemovableHandle:
    """Replace the rule for one kind of vertex, in this process, until the handle is removed.

    The latest registered counts. An op with a backward of its own, and a `Function`, do not ask the registry. A rule
    may be an async function; a plain one runs in a thread. What it raises is noted in the report as a skipped call.

    Args:
        kind: "function", "join", "retriever", "error" (any of these, but it raised), a kind of your own given to
            `promptgrad.op(kind=...)`, or "lm", which makes calls of language models do without a critic.
        rule: A function of a `Passing` that returns what is wrong with each target by name: a text, several, or None.

    Raises:
        TypeError: `rule` is no function.

    >>> with register_rule("retriever", lambda passing: {"query": "ask for one thing at a time"}):
    ...     pass  # backward passes in here use it
    """
    if not callable(rule):
        raise TypeError(f"a rule is a function of a Passing, not {type(rule).__name__}")
    return RemovableHandle(_registered, (kind, rule))


def rule_for(kind: str) -> Rule | None:
    """The rule for a kind of vertex; None for LM calls, which are the critic's."""
    for known, rule in reversed(list(_registered.values())):
        if known == kind:
            return rule
    return None if kind == "lm" else DEFAULTS.get(kind, pass_through)


def rule_of(fn: "GradFn") -> Rule | None:
    """The rule of a vertex: its own, else that for its kind."""
    if isinstance(fn, Node):
        if fn.rule is not None:
            return fn.rule
        return rule_for("error" if fn.error is not None and fn.kind != "lm" else fn.kind)
    return rule_for(fn.kind)


def is_built_in(rule: Rule | None) -> bool:
    """Whether a rule is one of ours, which cost nothing and need no thread."""
    return rule is pass_through or rule is split or rule is blame_query or rule is explain_error


_QUOTE = late_pattern(r"\"([^\"\n]{4,})\"|“([^“”\n]{4,})”|`([^`\n]{4,})`|(?<!\w)'([^'\n]{4,})'(?!\w)")


def quoted(text: str) -> list[str]:
    """The passages that a text quotes, case-folded, with single spaces."""
    return [passage for match in _QUOTE.finditer(text) if (passage := _flat(next(filter(None, match.groups()))))]


def _flat(text: str) -> str:
    return " ".join(text.casefold().split())


def _short(value: Any) -> str:
    value = sorted(value, key=repr) if isinstance(value, (set, frozenset)) else value  # the same in every process
    shown = repr(str(value) if isinstance(value, str) else value)
    return shown if len(shown) <= 300 else shown[:297] + "..."


def targets_of_join(fn: Join, texts: Callable[["GradFn"], Iterator[str]]) -> tuple[Target, ...]:
    """The parts of a join as targets."""
    return tuple(
        Target(str(number), "input", None if isinstance(source, Join) else tuple(texts(source)))
        for number, source in enumerate(fn.sources)
    )
