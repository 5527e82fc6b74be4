"""What words of a text a loss hangs on, as a trace of a local model finds it: the protocol, and the data that cross."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable


@dataclass(frozen=True)
class TokenSaliency:
    """One token of a text, as the model reads it in its prompts.

    Attributes:
        word: Number of the word that it is in, from 0.
        start: Where it begins in the word.
        text: Its part of the word.
        attribution: Gradient of the loss times the token's embedding, summed over prompts, in nats.
        norm: Norm of the gradient.
    """

    word: int
    start: int
    text: str
    attribution: float
    norm: float


@dataclass(frozen=True)
class Swap:
    """One token of a text replaced by another one.

    Attributes:
        word: Number of the word that it is in, from 0.
        old: The word as it was.
        new: The word as it would be.
        text: The whole text with it.
        gain: By how much the loss would fall in first order, in nats. Only the loss itself says whether it does.
    """

    word: int
    old: str
    new: str
    text: str
    gain: float


@runtime_checkable
class SalientTrace(Protocol):
    """A weight trace that also has gradients with respect to the words of its prompt."""

    @staticmethod
    def saliencies(pairs: "Sequence[tuple[Any, float]]", text: str) -> tuple[int, Sequence[TokenSaliency]]:
        """In how many of the prompts a text stands, and its tokens, for the loss that `backward_all` differentiates."""
        ...

    @staticmethod
    def swaps(pairs: "Sequence[tuple[Any, float]]", text: str, count: int) -> tuple[int, Sequence[Swap]]:
        """In how many of the prompts a text stands, and the replacements that promise most for the same loss."""
        ...
