"""`nn.Ensemble` and `nn.majority`."""

import asyncio
import threading
from functools import partial

import pytest

import promptgrad as pg
from promptgrad import lm, nn


def saying(*answers):
    """Programs that give these answers, each by a call of its own."""
    members = []
    for number, answer in enumerate(answers):
        member = nn.Predict("question -> answer", instruction=f"Member {number}.")
        members.append(member.to(lm.FunctionLM(lambda messages, answer=answer: answer, name=f"m{number}")))
    return members


class TestMajority:
    def test_the_most_frequent_answer_wins_and_is_returned_as_it_was_first_given(self):
        assert nn.majority(["Rome", "Paris", " paris ", "Oslo"]) == "Paris"
        assert nn.majority([3, 4, 4]) == 4
        assert nn.majority([[1, 2], [1], [1]]) == [1]

    def test_of_a_tie_the_earliest_wins(self):
        assert nn.majority(["b", "a", "a", "b", "c"]) == "b"
        assert nn.majority(["a", "b"]) == "a"

    def test_a_field_decides_the_last_by_default(self):
        rows = [nn.Prediction(why=why, answer=answer) for why, answer in (("x", "1"), ("y", "2"), ("x", "2"))]
        assert nn.majority(rows) is rows[1]
        assert nn.majority(rows, field="why") is rows[0]
        with pytest.raises(KeyError, match="no field 'reason': its fields are why, answer"):
            nn.majority(rows, field="reason")

    def test_what_counts_as_alike_can_be_said(self):
        assert nn.majority(["A1", "a1", "B"], normalize=lambda text: text) == "A1"
        assert nn.majority(["A1", "b1", "B2", "b3"], normalize=lambda text: text[0]) == "b1"

    def test_of_nothing_there_is_none(self):
        with pytest.raises(ValueError, match="at least one output"):
            nn.majority([])


class TestForward:
    def test_the_majority_of_the_members(self):
        output = nn.Ensemble(saying("Rome", "Paris", "paris"))("Which?")
        assert isinstance(output, nn.Prediction)
        assert output == {"answer": "Paris"}

    def test_members_run_side_by_side(self):
        barrier = threading.Barrier(3, timeout=60)

        class Waiting(nn.Module):
            def forward(self, question):
                barrier.wait()
                return question

        assert nn.Ensemble(Waiting() for _ in range(3))("together") == "together"

    def test_awaited_and_mapped(self):
        ensemble = nn.Ensemble(saying("a", "b", "b"))
        assert asyncio.run(ensemble.acall(question="q")).answer == "b"
        assert [row.answer for row in ensemble.map([pg.Example(question="q"), {"question": "r"}])] == ["b", "b"]

    def test_any_reduce_function(self):
        assert nn.Ensemble(saying("a", "b"), reduce=len)("q") == 2
        longest = nn.Ensemble(saying("a", "bcd"), reduce=lambda rows: max(rows, key=lambda row: len(row.answer)))
        assert longest("q").answer == "bcd"

        async def later(rows):
            await asyncio.sleep(0)
            return rows[-1].answer

        assert nn.Ensemble(saying("a", "b"), reduce=later)("q") == "b"
        assert nn.Ensemble(saying("a", "b"), reduce=partial(nn.majority, field="answer"))("q").answer == "a"

    def test_the_error_of_a_member_is_raised(self):
        class Broken(nn.Module):
            def forward(self, question):
                raise ValueError("broken")

        with pytest.raises(ValueError, match="broken"):
            nn.Ensemble([*saying("a"), Broken()])("q")


class TestBackward:
    def test_those_whose_answer_it_is_hear_of_it_and_no_other(self):
        asked = []

        class Judge:
            async def critique(self, failure):
                asked.append(failure.node.path)
                return {target.name: "say Oslo" for target in failure.targets}

        ensemble = nn.Ensemble(saying("Paris", "Rome", "paris"))
        batch = [pg.Example(question="q", answer="Oslo").with_inputs("question")]
        metric = pg.metrics.exact_match
        loss = nn.MetricLoss(metric, critic=Judge())(ensemble.map(batch), batch)
        assert loss.item() == 1.0
        loss.backward()
        critiques = {name: p.grad and len(p.grad.critiques) for name, p in ensemble.named_parameters()}
        blamed = {name for name, count in critiques.items() if count and name.endswith("instruction")}
        assert blamed == {"members.0.instruction", "members.2.instruction"}
        assert "members.1" not in asked

    def test_of_a_mean_all_hear(self):
        def mean(rows):
            return str(sum(float(row.answer) for row in rows) / len(rows))

        ensemble = nn.Ensemble(saying("1", "4"), reduce=mean)
        batch = [pg.Example(question="q", answer="3").with_inputs("question")]
        loss = nn.MetricLoss(lambda example, output: float(output == example.answer))(ensemble.map(batch), batch)

        class Judge:
            async def critique(self, failure):
                return {target.name: "more" for target in failure.targets}

        loss.backward(critic=Judge())
        assert all(member.instruction.grad.critiques for member in ensemble.members)


class TestModule:
    def test_it_saves_and_loads(self, tmp_path):
        ensemble = nn.Ensemble(saying("a", "b"))
        pg.save(ensemble, tmp_path / "ensemble")
        other = pg.load(tmp_path / "ensemble", nn.Ensemble(nn.Predict("question -> answer") for _ in range(2)))
        assert [member.instruction.data for member in other.members] == ["Member 0.", "Member 1."]

    def test_its_parameters_have_the_members_paths(self):
        paths = [path for path, _ in nn.Ensemble(saying("a", "b")).named_parameters()]
        assert {"members.0.instruction", "members.1.demos"} <= set(paths)
        assert nn.Ensemble(saying("a")).input_names() == ("question",)

    def test_what_print_shows(self):
        assert "reduce=majority" in repr(nn.Ensemble(saying("a")))

    def test_wrong_arguments(self):
        with pytest.raises(ValueError, match="at least one member"):
            nn.Ensemble([])
        with pytest.raises(TypeError, match="reduce is a function"):
            nn.Ensemble(saying("a"), reduce="majority")
        with pytest.raises(TypeError, match="holds modules"):
            nn.Ensemble(["a"])
