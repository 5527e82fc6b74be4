"""`GradcheckReport`: the effects of steps from true, shuffled and blank feedback."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from promptgrad.autograd import to_json
from promptgrad.lm import Usage
from promptgrad.train._result import Gain

ARMS = ("true", "shuffled", "blank")

LEVEL = 0.95

LEAST = 6
"""Fewest repeats to pass: fewer may all agree by chance."""


@dataclass(frozen=True)
class GradcheckArm:
    """The effect of steps from one kind of feedback.

    Attributes:
        name: "true", "shuffled" or "blank".
        gain: Mean gain over the start on the fresh examples, with its interval.
        better: Repeats whose candidate scored above the start.
        worse: Repeats whose candidate scored below it.
        same: Repeats without a difference.
        idle: Steps, of all repeats, that proposed nothing.
        usage: The cost of its backward passes and proposals (and of its own forwards, from the second step on).
        values: The parameter values at the end of each repeat, by path; empty if nothing was proposed.
        gains: Gain of each repeat on each example.
    """

    name: str
    gain: Gain
    better: int
    worse: int
    same: int
    idle: int
    usage: Usage
    values: tuple[Mapping[str, Any], ...]
    gains: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class GradcheckReport:
    """The result of `gradcheck`; print it, or show it in a notebook.

    Attributes:
        start: Mean score of the start on the fresh examples.
        arms: The three arms by name: "true", "shuffled", "blank".
        differences: How much more the true arm gained than each other arm, by the name of the other.
        repeats: Number of repeats, each with batches of its own.
        steps: Steps of each repeat.
        batch_size: Examples of a batch.
        examples: Fresh examples on which all candidates were measured.
        left_out: Fresh examples left out, because a language model gave no answer.
        failed: Failed samples in the batches of the first steps.
        shuffled: How many of them got the text of another sample that differs from their own.
        usage: The cost of everything: forwards, arms and evaluation.
        evaluation: The part of the cost that measured the candidates.
        seconds: Wall time.
    """

    start: float
    arms: Mapping[str, GradcheckArm]
    differences: Mapping[str, Gain]
    repeats: int
    steps: int
    batch_size: int
    examples: int
    left_out: int
    failed: int
    shuffled: int
    usage: Usage
    evaluation: Usage
    seconds: float

    @property
    def downhill(self) -> bool:
        """Whether the interval of the true arm's gain lies above zero."""
        return self.arms["true"].gain.low > 0

    @property
    def passed(self) -> bool:
        """Whether true feedback gains, and gains more than shuffled and blank feedback, in six repeats or more.

        All three intervals have to lie above zero, so no correction for their number is needed.
        """
        return self.repeats >= LEAST and self.downhill and all(gain.low > 0 for gain in self.differences.values())

    @property
    def verdict(self) -> str:
        """The finding in words."""
        gain = self.arms["true"].gain
        if gain.high < 0:
            parts = [f"true feedback goes uphill ({_brief(gain)})"]
        elif self.downhill:
            parts = [f"true feedback goes downhill ({_brief(gain)})"]
        else:
            parts = [f"no evidence that true feedback goes downhill ({_brief(gain)})"]
        for name, lead in self.differences.items():
            if lead.low > 0:
                parts.append(f"it beats {name} feedback ({_brief(lead)})")
            elif name == "shuffled" and not self.shuffled:
                parts.append("shuffling changed no text, so it says nothing")
            else:
                parts.append(f"no evidence that it beats {name} feedback ({_brief(lead)})")
        if self.repeats < LEAST:
            parts.append(f"{self.repeats} repeats are too few to pass: it takes {LEAST}")
        return "; ".join(parts)

    def to_dict(self) -> dict[str, Any]:
        """Everything in JSON types."""
        return {
            "passed": self.passed,
            "verdict": self.verdict,
            "start": self.start,
            "arms": {
                name: {
                    "gain": _gain_dict(arm.gain),
                    "better": arm.better,
                    "worse": arm.worse,
                    "same": arm.same,
                    "idle": arm.idle,
                    "usage": arm.usage.to_dict(),
                    "values": [to_json(values) for values in arm.values],
                    "gains": [list(gains) for gains in arm.gains],
                }
                for name, arm in self.arms.items()
            },
            "differences": {name: _gain_dict(gain) for name, gain in self.differences.items()},
            "repeats": self.repeats,
            "steps": self.steps,
            "batch_size": self.batch_size,
            "examples": self.examples,
            "left_out": self.left_out,
            "failed": self.failed,
            "shuffled": self.shuffled,
            "usage": self.usage.to_dict(),
            "evaluation": self.evaluation.to_dict(),
            "seconds": self.seconds,
        }

    def _lines(self) -> list[str]:
        return [
            f"gradcheck: {'passed' if self.passed else 'not passed'}. {self.verdict}",
            f"{_count(self.repeats, 'repeat')} of {_count(self.steps, 'step')} from batches of {self.batch_size} "
            f"({self.failed} samples failed, {self.shuffled} got another's text), measured on "
            f"{_count(self.examples, 'fresh example')}"
            + (f" ({self.left_out} left out: no answer)" if self.left_out else "")
            + f"; the start scores {self.start:.3f}",
        ]

    def _rows(self) -> list[tuple[str, ...]]:
        rows: list[tuple[str, ...]] = [
            ("feedback", "gain", "95 % interval", "better/worse/same", "no proposal", "calls", "tokens")
        ]
        for arm in self.arms.values():
            signs = f"{arm.better}/{arm.worse}/{arm.same}"
            rows.append(
                (arm.name, *_cells(arm.gain), signs, f"{arm.idle}", f"{arm.usage.calls}", f"{arm.usage.tokens}")
            )
        for name, gain in self.differences.items():
            rows.append((f"true - {name}", *_cells(gain), "", "", "", ""))
        return rows

    def __repr__(self) -> str:
        rows = self._rows()
        widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
        table = ["  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
        cost = (
            f"cost: {self.usage.calls} calls ({self.evaluation.calls} of them to measure), {self.usage.tokens} tokens, "
            f"{self.seconds:.1f} s"
        )
        return "\n".join([*self._lines(), *(line.rstrip() for line in table), cost])

    def _repr_html_(self) -> str:
        from html import escape

        head, *body = self._rows()
        cells = "".join(f"<th>{escape(cell)}</th>" for cell in head)
        lines = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in body)
        said = "".join(f"<p>{escape(line)}</p>" for line in self._lines())
        return f"{said}<table><thead><tr>{cells}</tr></thead><tbody>{lines}</tbody></table>"


def _brief(gain: Gain) -> str:
    return f"{gain.mean:+.2f} [{gain.low:+.2f}, {gain.high:+.2f}]"


def _cells(gain: Gain) -> tuple[str, str]:
    return f"{gain.mean:+.3f}", f"[{gain.low:+.3f}, {gain.high:+.3f}]"


def _gain_dict(gain: Gain) -> dict[str, Any]:
    return {"mean": gain.mean, "interval": [gain.low, gain.high], "p": gain.p}


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"
