"""The pocket world: a closed world of small text tasks, and a language model of 1.1 million weights that lives in it.

It is to prompt optimization what MNIST is to image classification: real, small and seeded. The model (`model_path()`,
an ordinary Hugging Face folder) obeys precise instructions, learns from demos where the instruction is vague, computes
better with a reasoning field, writes critiques and instructions, and is fine-tuned in seconds; but it knows the words
of this world and nothing else. `inside(prompt)` shows whether a prompt keeps to them.

    from promptgrad.data import pocket

    task = pocket.task("color-of-last")
    train, val, test = task.split()
    task.instruction("vague"), task.metric(test[0], "grey")

Importing the room loads no third-party module and reads no file.
"""

from promptgrad.data.pocket._episodes import MARKERS
from promptgrad.data.pocket._phrases import CRITIQUE, CRITIQUE_WITH_INPUT, IMPROVE, INDUCT, IT_IS_RIGHT, names_op
from promptgrad.data.pocket._tasks import (
    LEVELS,
    Task,
    families,
    held_out_families,
    inside,
    label_map,
    metric,
    model_path,
    say_unknown,
    task,
    tasks,
    unknown_words,
    vocabulary,
    words,
)

CRITIQUE_INSTRUCTION = CRITIQUE[0]
"""The instruction of a critic of one call."""
CRITIQUE_WITH_INPUT_INSTRUCTION = CRITIQUE_WITH_INPUT[0]
"""The instruction of a critic where the input came from an earlier call."""
IMPROVE_INSTRUCTION = IMPROVE[0]
"""The instruction of an optimizer that has critiques."""
INDUCT_INSTRUCTION = INDUCT[0]
"""The instruction of an optimizer that has examples."""

__all__ = [
    "CRITIQUE_INSTRUCTION",
    "CRITIQUE_WITH_INPUT_INSTRUCTION",
    "IMPROVE_INSTRUCTION",
    "INDUCT_INSTRUCTION",
    "IT_IS_RIGHT",
    "LEVELS",
    "MARKERS",
    "Task",
    "families",
    "held_out_families",
    "inside",
    "label_map",
    "metric",
    "model_path",
    "names_op",
    "say_unknown",
    "task",
    "tasks",
    "unknown_words",
    "vocabulary",
    "words",
]
