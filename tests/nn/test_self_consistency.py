"""`nn.SelfConsistency`: the answer of most attempts, with their share as confidence."""

import asyncio

import pytest

import promptgrad as pg
from promptgrad import lm, nn
from promptgrad.errors import LMError, SignatureError
from tests.nn.numbered import numbered


def voting(*answers, output="answer", **options):
    model, asked = numbered(*answers)
    predict = nn.Predict(f"question -> {output}").to(model)
    return nn.SelfConsistency(predict, len(answers), **options), asked


def test_the_majority_and_its_share():
    output = voting("Paris", "Rome", " paris ", "Oslo")[0]("q")
    assert output == {"confidence": 0.5, "answer": "Paris"}
    assert list(output) == ["confidence", "answer"]


def test_values_of_types_are_compared_as_they_are():
    output = voting("7.0", "7", "8", output="answer: float")[0]("q")
    assert output.answer == 7.0
    assert output.confidence == pytest.approx(2 / 3)
    rows = voting('["a", "b"]', '["b"]', '["b"]', output="answer: list[str]")[0]("q")
    assert rows.answer == ["b"]


def test_what_counts_as_alike_can_be_said():
    assert voting("yes.", "no", "yes!", normalize=lambda text: text.strip(".!"))[0]("q").answer == "yes."


def test_a_failed_attempt_votes_for_nothing_and_counts_in_the_share():
    assert voting(ValueError("x"), "a", "a", "b")[0]("q") == {"confidence": 0.5, "answer": "a"}
    with pytest.raises(LMError, match="last"):
        voting(ValueError("first"), ValueError("last"), concurrency=1)[0]("q")


def test_each_attempt_has_a_temperature_and_a_replicate_number():
    model, asked = voting("a", "a", "b")
    model("q")
    assert sorted((request.replicate, request.temperature) for request in asked) == [(0, 0.7), (1, 0.7), (2, 0.7)]


@pytest.mark.parametrize(("answers", "calls"), [("aaabb", 3), ("abbbc", 4), ("abcde", 5), ("abbaa", 5)])
def test_with_one_in_flight_it_stops_once_the_vote_is_decided(answers, calls):
    model, asked = voting(*answers, concurrency=1)
    whole, _ = voting(*answers)
    assert model("q").answer == whole("q").answer
    assert len(asked) == calls
    assert asyncio.run(model.acall("q")).answer == whole("q").answer


def test_another_output_than_a_prediction_is_returned_alone():
    class Number(nn.Module):
        def forward(self, question):
            return [3, 4, 4][lm.current().replicate]

    assert nn.SelfConsistency(Number(), 3)("q") == 4


def test_those_whose_answer_it_is_hear_the_critique():
    model, _ = voting("Paris", "Rome", "paris")
    batch = [pg.Example(question="q", answer="Oslo").with_inputs("question")]
    heard = []

    class Critic:
        async def critique(self, failure):
            heard.append(failure.node.replicate)
            return {target.name: "say Oslo" for target in failure.targets}

    nn.MetricLoss(pg.metrics.exact_match, critic=Critic())(model.map(batch), batch).backward()
    assert sorted(heard) == [0, 2]


class TestAField:
    def test_that_is_no_output_is_told_before_any_call(self):
        for module in (
            nn.ChainOfThought("question -> answer"),
            nn.BestOfN(nn.Predict("question -> answer"), 2, lambda inputs, output: 1),
            nn.Sequential(nn.Predict("question -> draft"), nn.Predict("draft -> answer")),
            nn.ReAct("question -> answer", [len_of]),
            nn.MultiChainComparison("question -> answer"),
        ):
            with pytest.raises(SignatureError, match="did you mean 'answer'"):
                nn.SelfConsistency(module, 3, field="answr")
            nn.SelfConsistency(module, 3, field="answer")
        model, asked = voting("a", "a", "b")
        model.field = "no such"
        with pytest.raises(SignatureError, match=r"its outputs are answer"):
            model("q")
        assert asked == []

    def test_of_outputs_that_nobody_knows_ends_the_attempts(self):
        class Any(nn.Module):
            def __init__(self):
                super().__init__()
                self.step = nn.Predict("question -> answer")

            async def forward(self, question):
                return await self.step.acall(question=question)

        inner, asked = voting("a", "a", "b", "b", "b")
        program = Any()
        program.step = inner.module
        model = nn.SelfConsistency(program, 5, field="no such", concurrency=1)
        with pytest.raises(KeyError, match="no such"):
            model("q")
        assert len(asked) == 1


def len_of(text: str) -> int:
    """Count letters."""
    return len(text)
