"""The verdict of a metric on one output: a number, and in words why it is not higher."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from promptgrad.errors import MetricError


@dataclass(frozen=True, eq=False)
class Score:
    """A metric's verdict. It compares as its value does.

    Attributes:
        value: The score; a metric's scores lie in [0, best], where `best` is 1 unless the metric sets another.
        feedback: What would have made it higher; `backward` hands it to the critic. Empty if there is none.
        parts: Scores of named aspects, for reports and objectives; they do not change the value.
        module_feedback: Feedback on single modules of the program, by path, where the metric knows which went wrong;
            `backward` takes it to them. A text is about the latest call of the module; a list has one text for each of
            its calls, empty where there is none.

    Raises:
        MetricError: The value or a part is not a finite number, or feedback is not text.

    >>> Score(0.5, feedback="the unit is missing") > 0.25
    True
    """

    value: float
    feedback: str = ""
    parts: Mapping[str, float] | None = None
    module_feedback: Mapping[str, str | Sequence[str]] | None = None

    def __post_init__(self) -> None:
        given: Any = self.value
        try:
            value = float(None if isinstance(given, (str, bytes)) else given)  # type: ignore[arg-type]  # "1_0" is 10 to it
        except (TypeError, ValueError):
            raise MetricError(f"a score must be a number, got {_show(given)}: convert it in the metric") from None
        if math.isnan(value):
            raise MetricError("the score is NaN; raise an error for an output that cannot be scored")
        if math.isinf(value):
            raise MetricError("the score is infinite; scores lie between 0 and the metric's best")
        if not isinstance(self.feedback, str):
            raise MetricError(f"feedback must be text, got {_show(self.feedback)}")
        object.__setattr__(self, "value", value)
        if self.parts is not None:
            object.__setattr__(self, "parts", _by_name(self.parts))
        if self.module_feedback is not None:
            object.__setattr__(self, "module_feedback", _by_module(self.module_feedback))

    @classmethod
    def of(cls, result: Any) -> "Score":
        """Make a `Score` of what a metric returned.

        Accepted are a `Score`, a bool, a number (numpy's and torch's scalars too), and a mapping or record with
        a `score` and perhaps a `feedback`, as DSPy's feedback metrics return, and perhaps `parts` and
        `module_feedback`.

        Raises:
            MetricError: The result is of another type, or it is not finite.
        """
        if isinstance(result, Score):
            return result
        if isinstance(result, (bool, int, float)):
            return cls(float(result))
        if result is None:
            raise MetricError("the metric returned None; does every branch end in a return?")
        if isinstance(result, str):
            raise MetricError(f"the metric returned {_show(result)}; return a number or Score(value, feedback=...)")
        if isinstance(result, tuple) and len(result) == 2 and isinstance(result[1], str):
            raise MetricError(f"the metric returned {_show(result)}; return Score(value, feedback), not a pair")
        if isinstance(result, Mapping):
            read: Callable[[str], Any] = result.get
        else:
            read = partial(_attribute, result)
        value, feedback = read("score"), read("feedback")
        if value is not None and not callable(value):
            text = "" if feedback is None else str(feedback)
            parts = read("parts")
            named = parts if isinstance(parts, Mapping) else None
            return cls(value, feedback=text, parts=named, module_feedback=read("module_feedback"))
        if callable(getattr(result, "abackward", None)):
            raise MetricError("the metric returned a Loss, so it is a criterion: return a number or Score(value)")
        if hasattr(result, "__float__") or hasattr(result, "__index__"):
            return cls(result)
        raise MetricError(f"the metric returned {_show(result)}; return a bool, a number or Score(value, feedback=...)")

    def checked(self, best: float = 1.0) -> "Score":
        """This score, if it lies in [0, best].

        Raises:
            MetricError: It does not.
        """
        if 0.0 <= self.value <= best:
            return self
        raise MetricError(
            f"the score {self.value:g} lies outside [0, {best:g}]; scale it, or give the metric function "
            "an attribute `best` with its highest score"
        )

    def __float__(self) -> float:
        return self.value

    def __bool__(self) -> bool:
        return self.value > 0

    def __eq__(self, other: object) -> bool:
        other_value = _number(other)
        return NotImplemented if other_value is None else self.value == other_value

    def __lt__(self, other: object) -> bool:
        other_value = _number(other)
        return NotImplemented if other_value is None else self.value < other_value

    def __le__(self, other: object) -> bool:
        other_value = _number(other)
        return NotImplemented if other_value is None else self.value <= other_value

    def __gt__(self, other: object) -> bool:
        other_value = _number(other)
        return NotImplemented if other_value is None else self.value > other_value

    def __ge__(self, other: object) -> bool:
        other_value = _number(other)
        return NotImplemented if other_value is None else self.value >= other_value

    def __hash__(self) -> int:
        return hash(self.value)


def _by_name(parts: Any) -> dict[str, float]:
    if not isinstance(parts, Mapping):
        raise MetricError(f"parts maps the names of aspects to numbers, got {_show(parts)}")
    kept: dict[str, float] = {}
    for name, part in parts.items():
        try:
            number = math.nan if isinstance(part, (str, bytes)) else float(part)
        except (TypeError, ValueError):
            number = math.nan
        if not math.isfinite(number):
            raise MetricError(f"the part {name!r} must be a finite number, got {_show(part)}: leave it out if unknown")
        kept[str(name)] = number
    return kept


def _by_module(feedback: Any) -> dict[str, str | tuple[str, ...]]:
    if not isinstance(feedback, Mapping):
        raise MetricError(f"module_feedback maps a module's path to text, got {_show(feedback)}")
    kept: dict[str, str | tuple[str, ...]] = {}
    for path, text in feedback.items():
        texts = (text,) if isinstance(text, str) else tuple(text) if isinstance(text, (list, tuple)) else (None,)
        if not isinstance(path, str) or not all(isinstance(item, str) for item in texts):
            raise MetricError(f"feedback for the module {path!r} must be text or a list of texts, got {_show(text)}")
        kept[path] = text if isinstance(text, str) else texts
    return kept


def _attribute(record: Any, name: str) -> Any:
    return getattr(record, name, None)


def _number(other: object) -> float | None:
    if isinstance(other, Score):
        return other.value
    return float(other) if isinstance(other, (bool, int, float)) else None


def _show(value: Any) -> str:
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) <= 80 else text[:77] + '...'}"
