"""`Critique`: what is wrong with one value; the one record of a backward pass, from the loss to the gradient."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from promptgrad.autograd._values import to_json


@dataclass(frozen=True)
class Critique:
    """What is wrong with one text, according to one failed example.

    Attributes:
        example_id: The example that failed.
        path: The module that was blamed.
        index: Which of its calls, in the order of the forward.
        target: What was blamed there: a parameter's or an input's name; empty if the loss criticises an output.
        text: What is wrong, and how to change it.
        evidence: Inputs and outputs of the call, and the feedback that reached it.
        support: How many examples are behind this.
        verdict: "wrong", or "error" when the call failed.
        lm: The language model that answered the call, if one did; no part of the critique's identity.
        agreement: Share of repeated critiques of the same call that agree with it.
        examples: The ids of all examples behind this, if the critique represents several.
        target_kind: The kind of the parameter that was blamed, or "input" for what an earlier call wrote.
        parameter: The path of the parameter in the program that was called, or its name; empty for an input.
        order: Its place among the critiques of a forward: by the call that it comes from, then as it was written there,
            whatever the order of the replies; no part of the critique's identity.
    """

    example_id: str
    path: str
    index: int
    target: str
    text: str
    evidence: Mapping[str, Any] = field(default_factory=dict)
    support: int = 1
    verdict: str = "wrong"
    lm: Any = field(default=None, repr=False, compare=False)
    agreement: float = 1.0
    examples: tuple[str, ...] = ()
    target_kind: str = ""
    parameter: str = ""
    order: tuple[int, ...] = field(default=(), repr=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """In JSON types, without the language model and the order."""
        return {
            "kind": "critique",
            "example_id": self.example_id,
            "path": self.path,
            "index": self.index,
            "target": self.target,
            "text": str.__str__(self.text),
            "evidence": to_json(self.evidence),
            "support": self.support,
            "verdict": self.verdict,
            "agreement": self.agreement,
            "examples": list(self.examples),
            "target_kind": self.target_kind,
            "parameter": self.parameter,
        }
