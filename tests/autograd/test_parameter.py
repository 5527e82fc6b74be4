import asyncio
import copy
import pickle
import threading

import pytest

from promptgrad.autograd import AccumulateGrad, Critique, Gradient, Parameter, Text, candidate, no_grad, record_reads
from promptgrad.data import Example
from promptgrad.errors import ConstraintError


def test_an_instruction_is_a_plain_string_with_a_version():
    p = Parameter("Answer.")
    assert (p.data, type(p.data), p.kind, p.shape, p.version) == ("Answer.", str, "instruction", (), 0)
    p.data = Text("Answer in one word.")
    assert (p.data, type(p.data), p.version) == ("Answer in one word.", str, 1)
    assert p.numel() == 5


def test_a_solution_is_text_that_is_trained_and_may_have_a_role():
    p = Parameter("c..", "solution", role="a pattern")
    assert (p.data, p.shape, p.requires_grad, p.role) == ("c..", (), True, "a pattern")
    assert copy.deepcopy(p).role == "a pattern"
    assert Parameter("x").role == ""
    with no_grad():
        assert str(p) == "c.."
        assert str(p).grad_fn is None


def test_demos_are_a_tuple_of_records():
    demos = [Example(q="1", a="2"), {"q": "3", "a": "4"}]
    p = Parameter(demos, "demos")
    assert p.data == tuple(demos)
    assert (p.shape, p.numel()) == ((2,), 2)
    p.data = ()
    assert (p.shape, p.version) == ((0,), 1)


def test_a_choice_is_one_of_its_options():
    p = Parameter(2, "choice", options=[1, 2, True])
    assert (p.data, p.index, p.numel(), p.shape) == (2, 1, 1, ())
    p.data = True
    assert p.data is True
    with pytest.raises(ConstraintError, match="is not one of"):
        p.data = 3
    with pytest.raises(ConstraintError):
        p.data = 1.0
    assert p.data is True
    assert p.version == 1
    with pytest.raises(AttributeError, match="only a choice"):
        _ = Parameter("x").index


@pytest.mark.parametrize(
    ("kind", "value"),
    [("instruction", 3), ("instruction", None), ("description", ["x"]), ("demos", "text"), ("demos", 3), ("demos", [1]),
     ("demos", {"q": "a"}), ("demos", ["text"])],
)  # fmt: skip
def test_a_value_of_the_wrong_type_is_refused_and_the_old_one_stays(kind, value):
    p = Parameter(() if kind == "demos" else "fine", kind)
    old = p.data
    with pytest.raises(ConstraintError) as caught:
        p.data = value
    assert caught.value.value is value
    assert (p.data, p.version) == (old, 0)


def test_constraints_refuse_with_their_reason():
    def short(value):
        return None if len(value) < 10 else "it is too long"

    def no_braces(value):
        return "{" not in value

    def strict(value):
        if value == "bad":
            raise ValueError("never say bad")

    p = Parameter("ok", constraints=[short, no_braces, strict])
    p.name = "solve.instruction"
    for value, reason in (("x" * 20, "too long"), ("{a}", "no_braces does not hold"), ("bad", "never say bad")):
        with pytest.raises(ConstraintError, match=reason) as caught:
            p.data = value
        assert "solve.instruction cannot be" in str(caught.value)
    assert (p.data, p.version) == ("ok", 0)
    with pytest.raises(ConstraintError):
        Parameter("x" * 20, constraints=[short])


def test_a_verdict_of_numpy_and_a_refusal_by_another_parameter_are_read_as_such():
    numpy = pytest.importorskip("numpy")
    p = Parameter("short", constraints=[lambda text: numpy.bool_(len(text) < 10)])
    with pytest.raises(ConstraintError, match="does not hold"):
        p.data = "much longer than ten"
    assert p.data == "short"
    other = Parameter("yes", "choice", options=["yes", "no"])
    with pytest.raises(ConstraintError) as caught:
        Parameter("maybe", constraints=[other.validate])
    assert caught.value.reason == "it is not one of ['yes', 'no']"
    assert isinstance(caught.value.__cause__, ConstraintError)


def test_kinds_and_options_must_fit():
    with pytest.raises(ValueError, match="unknown kind 'weights'"):
        Parameter("x", "weights")
    with pytest.raises(ValueError, match="needs options"):
        Parameter("x", "choice")
    with pytest.raises(ValueError, match="has no options"):
        Parameter("x", options=["x"])


def test_instructions_and_demos_require_grad_by_default():
    made = [
        Parameter("x"),
        Parameter((), "demos"),
        Parameter("x", "description"),
        Parameter("x", "choice", options=["x"]),
    ]
    assert [p.requires_grad for p in made] == [True, True, False, False]
    assert Parameter("x", requires_grad=False).requires_grad_().requires_grad
    assert not Parameter("x").requires_grad_(False).requires_grad


def test_as_text_it_is_rooted_at_the_parameter():
    p = Parameter("You are kind.", "description")
    p.name = "persona"
    for text in (str(p), f"{p}", format(p)):
        assert type(text) is Text
        assert text == "You are kind."
        assert isinstance(text.grad_fn, AccumulateGrad)
        assert text.grad_fn.parameter is p
    assert repr(str(p).grad_fn) == "<AccumulateGrad persona>"


def test_its_repr_is_worth_reading():
    p = Parameter("Answer.")
    assert repr(p) == "Parameter(instruction, 'Answer.', requires_grad=True)"
    p.name = "solve.instruction"
    p.grad = Gradient([Critique("e", "solve", 0, "instruction", "no")])
    assert repr(p) == (
        "Parameter(solve.instruction: instruction, 'Answer.', requires_grad=True, grad=Gradient(1 critique: 'no'))"
    )
    assert repr(Parameter([{"a": 1}], "demos")) == "Parameter(demos, 1 demos, requires_grad=True)"
    assert len(repr(Parameter("x" * 1000))) < 300


def test_a_deep_copy_has_the_data_and_not_the_gradient():
    p = Parameter("Answer.")
    p.grad = Gradient([Critique("e", "solve", 0, "instruction", "no")])
    for twin in (copy.deepcopy(p), pickle.loads(pickle.dumps(p))):
        assert (twin.data, twin.kind, twin.grad) == ("Answer.", "instruction", None)
        twin.data = "Other."
        assert p.data == "Answer."
    pair = copy.deepcopy([p, p])
    assert pair[0] is pair[1]
    assert len(p.grad) == 1


class TestCandidate:
    def test_it_lays_values_over_data_and_nests(self):
        p, q = Parameter("p"), Parameter("q")
        with candidate({p: "p1", q: "q1"}):
            assert (p.data, q.data, str(p)) == ("p1", "q1", "p1")
            with candidate({p: "p2"}):
                assert (p.data, q.data) == ("p2", "q1")
            assert p.data == "p1"
        assert (p.data, q.data, p.version) == ("p", "q", 0)

    def test_values_are_validated(self):
        p = Parameter("p", constraints=[lambda value: len(value) < 3])
        with pytest.raises(ConstraintError), candidate({p: "long"}):
            pass
        demos = Parameter((), "demos")
        with candidate({demos: [{"q": 1}]}):
            assert demos.data == ({"q": 1},)

    def test_concurrent_candidates_do_not_see_one_another(self):
        p = Parameter("p")

        async def one(i):
            with candidate({p: f"p{i}"}):
                await asyncio.sleep(0)
                return p.data

        async def main():
            return await asyncio.gather(*(one(i) for i in range(50)))

        assert asyncio.run(main()) == [f"p{i}" for i in range(50)]
        assert p.data == "p"

    def test_an_exception_takes_it_away(self):
        p = Parameter("p")
        with pytest.raises(LookupError), candidate({p: "x"}):
            raise LookupError
        assert p.data == "p"


class TestRecordReads:
    def test_every_read_is_logged_once_with_what_it_gave(self):
        p, q = Parameter("p"), Parameter("q")
        q.data = "q1"
        with record_reads() as log:
            _ = p.data, q.data, p.data, str(p)
            with candidate({p: "x"}):
                _ = p.data
        _ = p.data
        assert [(read.parameter, read.version, read.value) for read in log.reads] == [(p, 0, "p"), (q, 1, "q1")]

    def test_a_candidate_is_logged_as_such(self):
        p = Parameter("p")
        with candidate({p: "x"}), record_reads() as log:
            _ = p.data
        assert [(read.version, read.value) for read in log.reads] == [(-1, "x")]

    def test_an_inner_log_reports_to_the_outer(self):
        p = Parameter("p")
        with record_reads() as outer:
            with record_reads() as inner:
                _ = p.data
            assert len(inner.reads) == 1
        assert [read.parameter for read in outer.reads] == [p]


class Watched(Parameter):
    """Whoever reads `grad` waits a moment for another who does so at the same time."""

    meeting = threading.Barrier(2)

    @property
    def grad(self):
        grad = self.__dict__.get("grad")
        try:
            self.meeting.wait(0.2)
        except threading.BrokenBarrierError:
            self.meeting.reset()
        return grad

    @grad.setter
    def grad(self, grad):
        self.__dict__["grad"] = grad


def test_passes_in_two_threads_lose_nothing_of_each_other():
    p = Watched("x")
    shares = [Gradient([Critique("e", "solve", 0, "instruction", text)]) for text in ("one", "two")]
    threads = [threading.Thread(target=p.accumulate, args=(share,)) for share in shares]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(critique.text for critique in p.__dict__["grad"]) == ["one", "two"]
