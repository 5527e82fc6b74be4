"""The arguments of `Predict` beside its signature: sampling options and demos."""

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from promptgrad._habits import refuse
from promptgrad.autograd import Selector
from promptgrad.data import Example
from promptgrad.lm import Request

_SAMPLING = ("temperature", "max_tokens", "top_p", "stop", "seed", "response_format", "replicate", "extra", "grammar")
_ARGUMENTS = ("instruction", "demos", "adapter", "types", "retries", "allow_cut", *_SAMPLING)

# What a user of other libraries may write out of habit, of agents too, and what to write here.
_HABITS = {
    "model": "lm=..., or .to(lm)",
    "n": "predict.map(examples, n=5), or nn.SelfConsistency(predict, 5) for the answer of most: it returns one answer",
    "callbacks": "nothing: program.stream(...) tells of calls, and hooks of modules see them",
    **dict.fromkeys(("rationale_field", "rationale_field_type"), "nn.Predict('question -> reasoning: str, answer')"),
    **dict.fromkeys(("system_prompt", "system_message", "prompt_template"), "instruction=..."),
    "verbose": "nothing: promptgrad.inspect_history() shows each step, program.stream(...) tells of it",
}


def check_spelling(options: Mapping[str, Any]) -> None:
    """Refuse misspelt known names; any other name is an option of the provider and is sent as it is.

    Raises:
        TypeError: A name is close to that of an argument or of a sampling option, or is one of other libraries.
    """
    for name in options:
        near = difflib.get_close_matches(name, _ARGUMENTS, 1, 0.85)
        if near and near[0] != name:
            raise TypeError(f"Predict has no argument {name!r}: did you mean {near[0]!r}?")
        if name in _HABITS:
            refuse("Predict", [name], _HABITS, ())


def sampling(options: Mapping[str, Any]) -> dict[str, Any]:
    """Sampling options, checked, as `Request` takes them."""
    return Request.of("", **options).options() if options else {}


def as_demos(demos: Iterable[Any] | Selector) -> tuple[Any, ...] | Selector:
    """Demos as a parameter of `Predict` holds them.

    Raises:
        TypeError: It is one example.
    """
    if isinstance(demos, Selector):
        return demos
    if isinstance(demos, (str, Mapping, Example)):
        raise TypeError(f"demos is a list of examples, not one {type(demos).__name__}")
    return tuple(Example(demo) if isinstance(demo, Mapping) else demo for demo in demos)
