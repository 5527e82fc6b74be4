"""`Blame`: what a backward pass said of one part of one call."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Blame:
    """What a backward pass said of one part of one call.

    Attributes:
        row: The sample, by its place in the loss.
        example_id: Its example.
        path: The module that was called.
        index: Which of its calls, in the order of the forward.
        target: The parameter or input that is to blame.
        kind: The parameter's kind, or "input" for what an earlier call wrote.
        text: What is wrong with it.
        parameter: The full name of the parameter; empty for an input.
    """

    row: int
    example_id: str
    path: str
    index: int
    target: str
    kind: str
    text: str
    parameter: str = ""
