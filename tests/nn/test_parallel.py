"""`nn.Parallel`, `nn.Identity` and `nn.MultiChainComparison`."""

import threading

import pytest

import promptgrad as pg
from promptgrad import lm, nn
from promptgrad.errors import InputError, SignatureError


class Plus(nn.Module):
    def __init__(self, more):
        super().__init__()
        self.more = more

    def forward(self, number):
        if number < 0:
            raise ValueError("below zero")
        return number + self.more


class TestParallel:
    def test_on_the_same_inputs(self):
        assert nn.Parallel(Plus(1), Plus(2))(3) == [4, 5]
        assert nn.Parallel({"one": Plus(1), "two": Plus(2)})(number=3) == {"one": 4, "two": 5}
        with pytest.raises(ValueError, match="below zero"):
            nn.Parallel(Plus(1), Plus(2))(-1)

    def test_they_run_side_by_side(self):
        barrier = threading.Barrier(2, timeout=60)

        class Waiting(nn.Module):
            def forward(self, number):
                barrier.wait()
                return number

        assert nn.Parallel(Waiting(), Waiting())(1) == [1, 1]

    def test_on_pairs_a_failure_is_a_row(self):
        pairs = [(Plus(1), {"number": 1}), (Plus(2), -1), (Plus(3), pg.Example(number=3, x=1).with_inputs("number"))]
        batch = nn.Parallel()(pairs)
        assert batch[0] == 2
        assert batch[2] == 6
        assert [str(row.error) for row in batch.errors] == ["below zero"]

    def test_what_it_takes_is_checked(self):
        with pytest.raises(InputError, match="one list of pairs"):
            nn.Parallel()(1)
        with pytest.raises(TypeError, match="takes modules"):
            nn.Parallel(len)
        with pytest.raises(ValueError, match="at least 1"):
            nn.Parallel(Plus(1), concurrency=0)
        with pytest.raises(TypeError, match="concurrency="):
            nn.Parallel(num_threads=4)

    def test_its_modules_are_those_of_the_program(self):
        model = nn.Parallel({"one": nn.Predict("a -> b"), "two": nn.Predict("a -> c")})
        assert [name for name, _ in model.named_children()] == ["one", "two"]
        assert model.input_names() == ("a",)


class TestIdentity:
    def test_one_input_comes_back_as_it_is_and_names_as_a_record(self):
        value = ["x"]
        assert nn.Identity()(value) is value
        assert nn.Identity(54, unused=0.1)(a=1, b=2) == {"a": 1, "b": 2}
        with pytest.raises(TypeError, match="takes one input"):
            nn.Identity()()
        with pytest.raises(TypeError, match="takes one input"):
            nn.Identity()(1, 2)

    def test_in_a_sequence_it_changes_nothing(self):
        predict = nn.Predict("question -> answer").to(lm.FunctionLM(lambda messages: "[[ ## answer ## ]]\nyes"))
        assert nn.Sequential(nn.Identity(), predict, nn.Identity())(question="q") == {"answer": "yes"}


class TestMultiChainComparison:
    def model(self, seen, **options):
        def answer(request):
            seen.append(request)
            compares = "attempt_1" in request.messages[-1].content
            said = "yes" if compares else f"answer {request.replicate}"
            return f"[[ ## reasoning ## ]]\nthought {request.replicate}\n\n[[ ## answer ## ]]\n{said}"

        answer.__annotations__["request"] = lm.Request
        return nn.MultiChainComparison("question -> answer", **options).to(lm.FunctionLM(answer, name="chains"))

    def test_the_comparison_sees_all_attempts(self):
        seen = []
        output = self.model(seen)(question="q")
        assert list(output) == ["reasoning", "answer"]
        assert output.answer == "yes"
        asked = seen[-1].messages[-1].content
        for number in range(3):
            assert f"thought {number}\nanswer: answer {number}" in asked
        assert sorted(request.replicate for request in seen[:3]) == [0, 1, 2]
        assert {request.temperature for request in seen[:3]} == {0.7}

    def test_given_completions_it_makes_one_call(self):
        seen = []
        model = self.model(seen, M=2)
        given = [{"rationale": "because", "answer": "a"}, nn.Prediction(reasoning="since", answer="b")]
        assert model(given, question="q").answer == "yes"
        assert len(seen) == 1
        assert "because\nanswer: a" in seen[0].messages[-1].content
        with pytest.raises(InputError, match="compares M=2 attempts, and was given 1"):
            model(given[:1], question="q")
        with pytest.raises(InputError, match="has no 'answer'"):
            model([{"reasoning": "x"}, {"reasoning": "y"}], question="q")
        with pytest.raises(InputError, match="completions are a list"):
            model("q")

    def test_what_it_takes_is_checked(self):
        with pytest.raises(ValueError, match="at least 2"):
            nn.MultiChainComparison("question -> answer", 1)
        with pytest.raises(TypeError, match="whole number"):
            nn.MultiChainComparison("question -> answer", "3")
        with pytest.raises(SignatureError):
            nn.MultiChainComparison("question")
