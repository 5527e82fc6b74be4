"""The metric protocol: `metric(example, output)` gives a score, whatever the arguments of the function behind it."""

from collections.abc import Callable, Collection, KeysView, Mapping
from copy import copy
from typing import Any, TypeVar

from promptgrad import aio
from promptgrad.data import Example, Score
from promptgrad.errors import FATAL, MetricError

F = TypeVar("F", bound="FieldMetric")

_MANY = (list, tuple, set, frozenset)
_RIGHT = Score(1.0)


class Metric:
    """A function that scores an output against an example. Higher is better.

    Attributes:
        name: Its name in reports.
        best: The highest score; scores lie in [0, best].
    """

    name: str = "metric"
    best: float = 1.0

    def __call__(self, example: Any, output: Any) -> Any:
        """Score one output: a bool, a number or a `Score`, or an awaitable of one."""
        raise NotImplementedError

    @property
    def __name__(self) -> str:
        return self.name

    def __repr__(self) -> str:
        return self.name


class FunctionMetric(Metric):
    """A user's function as a metric; `as_metric` makes it.

    Raises:
        MetricError: The function's `best` is not a number above zero.

    Attributes:
        fn: The function.
        waits: Whether its result is awaited.
        takes_trace: Whether it has DSPy's third argument, `trace`; see `is_right`.
        takes_module: Whether it has the arguments `pred_name` and `pred_trace` besides, as GEPA's metrics in DSPy;
            see `feedback_for`.
    """

    def __init__(self, fn: Callable[..., Any]) -> None:
        self.fn = fn
        self.name = getattr(fn, "__name__", None) or type(fn).__name__
        best = getattr(fn, "best", 1.0)
        if isinstance(best, bool) or not isinstance(best, (int, float)) or not 0 < best < float("inf"):
            raise MetricError(f"the best score of {self.name} must be a number above zero, not {best!r}")
        self.best = float(best)
        self.waits = hasattr(fn, "acall") or _is_async(fn)
        more = _more_arguments(fn, self.name)
        self._nones = (None,) * sum(required for _, required in more)
        self.takes_trace = bool(more) and (more[0][0] == "trace" or more[0][1])
        self.takes_module = self.takes_trace and len(more) >= 3 and (more[1][0] == "pred_name" or more[2][1])

    def __call__(self, example: Any, output: Any, *more: Any) -> Any:
        """Call the function with the example and the output, and with None for each argument that DSPy would add.

        Args:
            example: The example.
            output: What the program returned.
            more: What DSPy would add: the trace, or trace, name and trace of one module.
        """
        call = getattr(self.fn, "acall", self.fn)
        return call(example, output, *(more + self._nones[len(more) :]))


def _more_arguments(fn: Callable[..., Any], name: str) -> list[tuple[str, bool]]:
    """The arguments after example and output, each with its name and whether it is required."""
    import inspect

    try:
        parameters = inspect.signature(fn).parameters.values()
    except (TypeError, ValueError):  # written in C, without a signature
        return []
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    more = any(p.kind is p.VAR_POSITIONAL for p in parameters)
    keywords = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is p.empty]
    if keywords or (len(positional) < 2 and not more):
        raise MetricError(
            f"a metric is called as metric(example, output); {name} takes ({', '.join(p.name for p in parameters)})"
        )
    return [(p.name, p.default is p.empty) for p in positional[2:]]


class FieldMetric(Metric):
    """Compares one field of the output with the same field of the example.

    An instance is a metric; a call with options alone gives another one: `exact_match(field="answer")`.

    The default field is the example's only label, or the only one of several that the output has too. It is read
    from the output's attribute or key of that name, or is the output itself where that is a plain value. Where the
    example holds a list and the output a single value, any item of the list is right.

    Feedback of a score below the best: `the {field} should be {gold}`.

    Attributes:
        field: Name of the field; None for the default.
        takes_many: Whether an output may be a tuple of answers where the example has one.
    """

    takes_many = False

    def __init__(self, *, field: str | None = None) -> None:
        self.field = field

    def score(self, gold: Any, answer: Any) -> float:
        """Score one answer against one right answer."""
        raise NotImplementedError

    def __call__(self: F, *args: Any, **options: Any) -> Any:
        """`metric(example, output)` scores; `metric(**options)` gives the metric with other options.

        Raises:
            MetricError: It is not clear which field to compare, example or output lack it, or the output is not an
                answer: None where the example has one, or a tuple where it has a single value.
        """
        if not args:
            return self.replace(**options)
        if len(args) < 2 or options:
            raise MetricError(
                f"write {self.name}(example, output) to score, or {self.name}(field=...) to choose the field"
            )
        example, output = args[0], args[1]  # a third is DSPy's trace
        field = self.field or _default_field(example, output, self.name)
        if isinstance(example, (Example, Mapping)) and field not in example:
            raise MetricError(
                f"{self.name}: the example has no field {field!r}, only {', '.join(example.keys()) or 'none'}"
            )
        gold, answer = example[field], read_field(output, field, self.name)
        if answer is output:
            self._check_output(field, gold, output)
        return self.verdict(field, gold, answer)

    def verdict(self, field: str, gold: Any, answer: Any) -> Score:
        """Score an answer against the value of the example, with feedback."""
        golds = _right_answers(gold, answer)
        self._wants(golds, field)
        value = self.score(golds[0], answer) if len(golds) == 1 else max([self.score(gold, answer) for gold in golds])
        if value >= self.best:
            return _RIGHT if value == 1.0 else Score(value)
        return Score(value, feedback=f"the {field} should be {' or '.join(map(str, golds))}")

    def _check_output(self, field: str, gold: Any, output: Any) -> None:
        """Check that an output that is not a record can be an answer itself."""
        if output is None and gold is not None:
            raise MetricError(f"{self.name}: the output is None; does forward end in a return?")
        if isinstance(output, tuple) and not self.takes_many and not isinstance(gold, _MANY):
            raise MetricError(
                f"{self.name}: the output is a tuple of {len(output)}, and {field!r} of the example is "
                f"{type(gold).__name__} {gold!r:.80}: return the answer, or a record that has it as {field!r}"
            )

    def _wants(self, golds: list[Any], field: str) -> None:
        if not golds:
            raise MetricError(f"{self.name}: the example has no right answer, its {field!r} is empty")

    def replace(self: F, **options: Any) -> F:
        """The metric with other options.

        Raises:
            TypeError: There is no such option.
        """
        known = vars(self)
        for option in options:
            if option not in known:
                raise TypeError(f"{self.name} has the options {', '.join(known)}, not {option!r}")
        new = copy(self)
        vars(new).update(options)
        return new

    def __repr__(self) -> str:
        defaults = vars(type(self)())
        shown = [f"{key}={value!r}" for key, value in vars(self).items() if value != defaults[key]]
        return f"{self.name}({', '.join(shown)})" if shown else self.name


def _right_answers(gold: Any, answer: Any) -> list[Any]:
    return list(gold) if isinstance(gold, _MANY) and not isinstance(answer, _MANY) else [gold]


def _keys(output: Any) -> Collection[str] | None:
    """Names of the fields of a record, None for a plain value."""
    keys = getattr(output, "keys", None)
    if callable(keys) and hasattr(output, "__getitem__"):
        found = keys()
        return found if isinstance(found, KeysView) else list(found)
    fields = getattr(type(output), "model_fields", None) or getattr(output, "__dataclass_fields__", None)
    return None if fields is None else list(fields)


def _default_field(example: Any, output: Any, name: str) -> str:
    if not isinstance(example, (Example, Mapping)):
        raise MetricError(
            f"{name} needs an Example to compare with, not {type(example).__name__}: it is called as "
            f"{name}(example, output)"
        )
    inputs = example.input_keys if isinstance(example, Example) else None
    marked = inputs is not None
    labels = [key for key in example.keys() if inputs is None or key not in inputs]  # noqa: SIM118 - an Example too
    if marked and len(labels) == 1:
        return str(labels[0])
    has = _keys(output)
    shared = labels if has is None else [label for label in labels if label in has]
    if len(shared) == 1:
        return str(shared[0])
    what = "labels" if marked else "fields"
    marking = "" if marked else ", or mark the inputs with example.with_inputs(...)"
    ways = [f"{name}(field={label!r})" for label in shared or labels or ["answer"]]
    raise MetricError(
        f"{name} cannot tell which field to compare: the example has the {what} {', '.join(labels) or 'none'}"
        f"{'' if has is None else f', the output has {chr(44).join(has)}'}. "
        f"Write {' or '.join(ways)}{marking}"
    )


def read_field(output: Any, field: str, name: str) -> Any:
    """A field of an output, or the output itself where that is a plain value."""
    keys = _keys(output)
    if keys is None:
        value = getattr(output, field, None) if hasattr(output, "__dict__") else None
        return output if value is None or callable(value) else value
    if field not in keys:
        raise MetricError(f"{name}: the output has no field {field!r}, only {', '.join(keys) or 'none'}")
    return output[field] if hasattr(output, "keys") else getattr(output, field)


def as_metric(fn: Callable[..., Any]) -> Metric:
    """Make a metric of a function.

    Args:
        fn: `(example, output)`, DSPy's `(gold, pred, trace)`, or `(gold, pred, trace, pred_name, pred_trace)` as its
            GEPA has it; plain or async, or a module that is called so. It returns a bool, a number, a `Score`, or a
            record with `score` and `feedback`; its attribute `best` is the highest score, if that is not 1.

    Raises:
        MetricError: It is not callable with an example and an output, or is a criterion, such as `nn.MetricLoss`.
    """
    if isinstance(fn, Metric):
        return fn
    if not callable(fn):
        raise MetricError(f"a metric is a function (example, output) -> score, not {type(fn).__name__}")
    if isinstance(fn, type):
        raise MetricError(f"{fn.__name__} is a class: pass an instance, {fn.__name__}(...)")
    if getattr(fn, "_makes_loss", False) is True:
        raise MetricError(
            f"{type(fn).__name__} is a criterion, which makes a loss of outputs and examples, not a metric: pass the "
            "metric itself, as criterion.metric or nn.Judge(rubric)"
        )
    return FunctionMetric(fn)


async def call_metric(metric: Callable[..., Any], example: Any, output: Any, *more: Any) -> Score:
    """Score one output.

    On an event loop, a user's plain function runs in a thread: it may call modules, and wait.

    Args:
        metric: The metric.
        example: The example.
        output: What the program returned.
        more: What DSPy would pass besides to a function that takes it: the trace; or the trace, and the name and the
            trace of one module.

    Raises:
        MetricError: The metric raised (the cause is attached), or its result is not a score in [0, best].
        BudgetExceeded: A language-model call of the metric did not fit the budget.
        LMError: The metric calls a language model, and every call would fail: no model is configured, the key is
            wrong, or the price is unknown.
        ImportError: A package that the metric needs is not installed.
    """
    known = metric if isinstance(metric, Metric) else as_metric(metric)
    return score_of(known, await result_of(known, example, output, *more))


def score_of(known: Metric, result: Any) -> Score:
    """The score in what a metric returned.

    Raises:
        MetricError: It is not a score in [0, best].
    """
    try:
        return (result if type(result) is Score else Score.of(result)).checked(known.best)
    except MetricError as error:
        raise MetricError(f"the metric {known.name} gave no score: {error}") from None


async def result_of(known: Metric, example: Any, output: Any, *more: Any) -> Any:
    """What a metric returns, as it is; raises as `call_metric` where the metric does."""
    try:
        if isinstance(known, FunctionMetric) and not known.waits and not aio.is_driven():
            result = await aio.in_thread(known, example, output, *more)
        else:
            result = known(example, output, *more)
        return await aio.awaited(result) if type(result) is not Score and hasattr(result, "__await__") else result
    except (*FATAL, MetricError, ImportError):
        raise
    except Exception as error:
        text = f": {error}" if str(error) else ""
        if "NoneType" in text and not more and isinstance(known, FunctionMetric) and known.takes_trace:
            text += "; trace is None where a program is scored, as in DSPy: it is given where demos are collected"
        raise MetricError(f"the metric {known.name} raised {type(error).__name__}{text}") from error


def _is_async(fn: Any) -> bool:
    """Whether the function is an `async def`, or an object whose call is one."""
    import inspect

    return inspect.iscoroutinefunction(fn) or inspect.iscoroutinefunction(getattr(fn, "__call__", None))  # noqa: B004
