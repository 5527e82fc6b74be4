import inspect
import re

import pytest

from promptgrad import errors


def _classes():
    return {
        name: value
        for name, value in vars(errors).items()
        if inspect.isclass(value) and value.__module__ == errors.__name__
    }


def test_all_names_every_exception():
    assert sorted([*_classes(), "FATAL", "is_outage", "kind_of", "may_be_paid", "recall"]) == sorted(errors.__all__)


def test_every_exception_has_the_common_base_and_a_docstring():
    for name, kind in _classes().items():
        assert issubclass(kind, errors.PromptgradError), name
        assert kind.__doc__, name


def test_the_tree_in_the_docstring_is_the_tree():
    drawn = {}
    parents = {0: "PromptgradError"}
    for line in errors.__doc__.splitlines():
        match = re.match(r"^([│ ]*)[├└]── (\w+)", line)
        if match:
            depth = len(match.group(1)) // 4 + 1
            drawn[match.group(2)] = parents[depth - 1]
            parents[depth] = match.group(2)
    real = {
        name: next(base.__name__ for base in kind.__bases__ if issubclass(base, errors.PromptgradError))
        for name, kind in _classes().items()
        if kind is not errors.PromptgradError
    }
    assert drawn == real


@pytest.mark.parametrize(
    ("kind", "builtin"),
    [
        (errors.SignatureError, ValueError),
        (errors.InputError, TypeError),
        (errors.ParseError, ValueError),
        (errors.LMError, RuntimeError),
        (errors.StateDictError, KeyError),
        (errors.DataError, ValueError),
        (errors.AsyncUsageError, RuntimeError),
        (errors.GraphError, RuntimeError),
        (errors.ConstraintError, ValueError),
        (errors.MissingExtraError, ImportError),
    ],
)
def test_python_users_can_catch_what_they_expect(kind, builtin):
    with pytest.raises(builtin):
        raise kind("what happened")


def test_facts_are_attributes():
    parse = errors.ParseError("no field 'answer'", reply="hm", reason="the field answer is missing")
    assert (parse.reply, parse.reason) == ("hm", "the field answer is missing")
    assert errors.ParseError("no field").reason == "no field"
    limit = errors.RateLimitError("slow down", status=429, body="{}", retry_after=7)
    assert (limit.status, limit.body, limit.retry_after) == (429, "{}", 7)
    spent = errors.BudgetExceeded(kind="calls", limit=10, used=10)
    assert (spent.kind, spent.limit, spent.used) == ("calls", 10, 10)
    assert str(spent) == "the budget of 10 calls is used up (10 spent or reserved)"
    refusal = errors.ConstraintError("no", value=3, reason="too short")
    assert (refusal.value, refusal.reason) == (3, "too short")
    extra = errors.MissingExtraError(extra="local", package="torch")
    assert extra.extra == "local"
    assert "pip install -e '.[local]'" in str(extra)


def test_a_state_dict_error_is_readable_although_it_is_a_key_error():
    error = errors.StateDictError("does not fit:\n  missing  a", missing=["a"], unexpected=["b"], invalid=["c"])
    assert str(error) == "does not fit:\n  missing  a"
    assert (error.missing, error.unexpected, error.invalid) == (("a",), ("b",), ("c",))


@pytest.mark.parametrize(
    ("error", "out"),
    [
        (errors.LMConnectionError("refused"), True),
        (errors.BudgetExceeded(kind="calls", limit=1, used=1), True),
        (errors.JournalError("held"), True),
        (errors.MissingExtraError(extra="local"), True),
        (errors.ContextWindowError("a long prompt"), False),
        (errors.ContentFilterError("filtered", status=400), False),
        (errors.RefusalError("declined", refusal="I cannot."), False),
        (errors.BadRequestError("an unknown field", status=400), False),
        (errors.BadRequestError("an unknown model", status=404), True),
        (errors.AuthenticationError("no key", status=401), True),
        (errors.BillingError("no money", status=402), True),
        (errors.ParseError("no field"), False),
        (ValueError("a fault of the program"), False),
        (None, False),
    ],
)
def test_an_outage_is_what_no_wording_could_have_avoided(error, out):
    assert errors.is_outage(error) is out


def test_what_is_said_of_the_end_of_time_is_the_same_in_every_process():
    """A run that is resumed comes there at another second, and has the message in its notes."""
    first, second = (errors.BudgetExceeded(kind="seconds", limit=4.5, used=used) for used in (4.7, 6.1))
    assert str(first) == str(second) == "the budget of 4.5 seconds is used up"
    assert (first.used, second.used) == (4.7, 6.1)
    assert "(7 spent or reserved)" in str(errors.BudgetExceeded(kind="calls", limit=7, used=7))


def test_what_ends_a_tool_a_row_an_attempt_and_a_metric_is_one_list():
    """Other lists of the same kind would drift apart: the package has this one, named where it is caught."""
    from pathlib import Path

    package = Path(errors.__file__).parent
    assert all(issubclass(kind, errors.PromptgradError) for kind in errors.FATAL)
    lists = [
        path.relative_to(package).as_posix()
        for path in sorted(package.rglob("*.py"))
        if path.name != "errors.py" and {"BudgetExceeded", "BillingError"} <= set(re.findall(r"\w+", path.read_text()))
    ]
    assert lists == []
