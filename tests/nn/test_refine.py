"""`nn.Refine`, and `nn.Assert` and `nn.Suggest` inside of it, in training and in an evaluation."""

import asyncio
import json

import pytest

import promptgrad as pg
from promptgrad import nn
from promptgrad.errors import CheckError, InputError, LMConnectionError

CASE = [pg.Example(question="q", answer="Oslo").with_inputs("question")]


def is_short(inputs, output):
    return pg.Score(float(len(output.answer) <= 4), "at most four letters")


class Short(nn.Module):
    """Checks what it writes."""

    def __init__(self, check=nn.Suggest, about=lambda output: None):
        super().__init__()
        self.fact = nn.Predict("question -> fact")
        self.answer = nn.Predict("fact -> answer")
        self.check = check
        self.about = about

    async def forward(self, question):
        fact = await self.fact.acall(question=question)
        output = await self.answer.acall(fact=fact.fact)
        self.check(len(output.answer) <= 4, "at most four letters", {None: None, "fact": fact}[self.about(output)])
        return output


def writes(scripted, seen, **fixed):
    """A model that answers shortly once it has a hint."""

    def answer(**inputs):
        seen.append(inputs)
        if "verdict" in inputs:
            return {"discussion": "too long", "advice": "Write the town alone.", **fixed}
        return {"fact": "Oslo is a town", "answer": "Oslo" if "hint" in inputs else "It is Oslo"}

    return scripted(answer)


class TestRefine:
    def test_the_next_attempt_gets_the_advice(self, scripted):
        seen = []
        refine = nn.Refine(nn.Predict("question -> answer"), 3, is_short).to(writes(scripted, seen))
        assert refine("which?").answer == "Oslo"
        assert [set(inputs) for inputs in seen] == [
            {"question"},
            {"program", "inputs", "calls", "verdict"},
            {"question", "hint"},
        ]
        assert seen[1]["verdict"] == "is_short: 0, and 1 is wanted. at most four letters"
        assert json.loads(seen[1]["calls"]) == [
            {"module": "program", "inputs": {"question": "which?"}, "outputs": {"answer": "It is Oslo"}}
        ]
        assert seen[2]["hint"] == "Write the town alone."

    def test_without_an_adviser_the_feedback_is_the_hint(self, scripted):
        seen = []
        refine = nn.Refine(nn.Predict("question -> answer"), 3, is_short, advise=False).to(writes(scripted, seen))
        assert asyncio.run(refine.acall("which?")).answer == "Oslo"
        assert seen[1]["hint"].endswith("at most four letters")
        assert "adviser.instruction" not in refine.state_dict()

    def test_advice_is_for_the_modules_it_names(self, scripted):
        seen = []
        model = writes(scripted, seen, advice='{"answer": "Shorter.", "nobody": "?", "fact": " "}')
        assert nn.Refine(Short(check=lambda *a: True), 2, is_short).to(model)("which?").answer == "Oslo"
        told = json.loads(next(inputs["program"] for inputs in seen if "program" in inputs))
        assert list(told) == ["fact", "answer"]
        assert [inputs.get("hint") for inputs in seen[-2:]] == [None, "Shorter."]

    def test_of_attempts_that_are_all_too_bad_the_best_is_returned(self, scripted):
        replies = iter(["aaaaaaa", "aaaaa", "aaaaaa"])
        model = scripted(lambda **inputs: {"answer": next(replies)})
        refine = nn.Refine(
            nn.Predict("question -> answer"), 3, lambda i, o: -len(o.answer), threshold=0, advise=False
        ).to(model)
        assert refine("q").answer == "aaaaa"

    def test_an_error_is_an_attempt_and_its_text_the_verdict(self, scripted):
        seen = []

        class Strict(nn.Module):
            def __init__(self):
                super().__init__()
                self.answer = nn.Predict("question -> answer")

            async def forward(self, question):
                output = await self.answer.acall(question=question)
                if " " in output.answer:
                    raise ValueError("a blank in it")
                return output

        assert nn.Refine(Strict(), 2).to(writes(scripted, seen))("q").answer == "Oslo"
        assert seen[1]["verdict"] == "it failed: ValueError: a blank in it"
        with pytest.raises(ValueError, match="a blank"):
            nn.Refine(Strict(), 1).to(writes(scripted, []))("q")

    def test_an_adviser_that_fails_leaves_no_hint(self, scripted):
        def answer(**inputs):
            if "verdict" in inputs:
                raise LMConnectionError("no answer")
            return {"answer": "It is Oslo"}

        refine = nn.Refine(nn.Predict("question -> answer"), 2, is_short).to(scripted(answer))
        assert refine("q").answer == "It is Oslo"

    def test_what_it_takes_is_checked(self):
        with pytest.raises(ValueError, match="has no Predict"):
            nn.Refine(nn.Identity(), 3)
        with pytest.raises(TypeError, match="learns from the one before"):
            nn.Refine(nn.Predict("a -> b"), 3, concurrency=2)

    def test_a_hint_has_another_name_where_the_signature_has_one(self, scripted):
        seen = []

        def answer(**inputs):
            seen.append(set(inputs))
            return {"answer": "long answer"}

        refine = nn.Refine(nn.Predict("hint -> answer"), 2, is_short, advise=False).to(scripted(answer))
        refine("x")
        assert seen == [{"hint"}, {"hint", "hint_"}]


class TestChecks:
    @pytest.mark.parametrize("check", [nn.Suggest, nn.Assert])
    def test_the_reason_is_the_hint_for_the_module_it_is_about(self, scripted, check):
        seen = []
        assert nn.Refine(Short(check), 3).to(writes(scripted, seen))("q").answer == "Oslo"
        assert len(seen) == 4
        assert "at most four letters" in seen[3]["hint"]
        assert "hint" not in seen[2]

    def test_what_it_is_about_can_be_said(self, scripted):
        seen = []
        nn.Refine(Short(about=lambda output: "fact"), 2).to(writes(scripted, seen))("q")
        assert "hint" in seen[2]
        assert "hint" not in seen[3]

    def test_alone_one_raises_and_the_other_goes_on(self, scripted):
        assert Short().to(writes(scripted, []))("q").answer == "It is Oslo"
        with pytest.raises(CheckError, match="at most four letters") as caught:
            Short(nn.Assert).to(writes(scripted, []))("q")
        assert caught.value.reason == "at most four letters"
        with pytest.raises(InputError, match="in words"):
            nn.Suggest(True, "")

    def test_an_evaluation_counts_them_but_not_those_of_attempts_given_up(self, scripted):
        metric = pg.metrics.exact_match
        with nn.count_checks() as checks:
            pg.evaluate(Short().to(writes(scripted, [])), CASE * 3, metric)
        assert (len(checks), checks.unmet) == (3, 3)
        assert repr(checks) == "<Checks 'at most four letters': 3 of 3 unmet>"
        with nn.count_checks() as checks:
            pg.evaluate(nn.Refine(Short(), 2).to(writes(scripted, [])), CASE, metric)
        assert checks.by_reason() == {"at most four letters": (0, 1)}
        with nn.count_checks() as checks:
            pg.evaluate(Short(nn.Assert).to(writes(scripted, [])), CASE, metric)
        assert checks.unmet == 1

    def test_the_report_of_an_evaluation_counts_them(self, scripted):
        report = pg.evaluate(Short().to(writes(scripted, [])), CASE * 3, pg.metrics.exact_match)
        assert report.checks.by_reason() == {"at most four letters": (3, 3)}
        assert [len(row.checks) for row in report] == [1, 1, 1]
        assert "3 of 3 times not met: at most four letters" in repr(report)
        assert report.to_dict()["checks"] == {"at most four letters": [3, 3]}
        assert report[:1].checks.unmet == 1
        kept = pg.evaluate(nn.Refine(Short(), 2).to(writes(scripted, [])), CASE, pg.metrics.exact_match)
        assert "0 of 1 times not met: at most four letters" in repr(kept)
        failed = pg.evaluate(Short(nn.Assert).to(writes(scripted, [])), CASE, pg.metrics.exact_match)
        assert (len(failed.errors), failed.checks.unmet) == (1, 1)
        plain = pg.evaluate(nn.Identity(), [pg.Example(answer="x").with_inputs("answer")], lambda example, output: 1)
        assert len(plain.checks) == 0
        assert "met" not in repr(plain)

    @pytest.mark.parametrize(("about", "path"), [(lambda output: None, "answer"), (lambda output: "fact", "fact")])
    def test_in_training_it_is_a_penalty_whose_critique_begins_there(self, scripted, about, path):
        model = Short(about=about).to(writes(scripted, []))
        model.fact.requires_grad_(requires_grad=path == "fact")
        heard = []

        class Critic:
            async def critique(self, failure):
                heard.append((failure.node.path, failure.feedback))
                return {target.name: "shorter" for target in failure.targets if target.name == "instruction"}

        outputs = model.map(CASE)
        loss = 0.5 * nn.CheckLoss(critic=Critic())(outputs, CASE)
        assert loss.item() == 0.5
        loss.backward()
        assert [node for node, _ in heard] == [path]
        assert "this does not hold: at most four letters" in heard[0][1][0]
        assert model.get_parameter(f"{path}.instruction").grad

    def test_one_that_holds_costs_nothing(self, scripted):
        model = Short(lambda ok, reason, about: nn.Suggest(True, reason)).to(writes(scripted, []))
        loss = nn.CheckLoss()(model.map(CASE), CASE)
        assert loss.item() == 0.0
        assert len(loss.rows) == 1

    def test_an_assert_is_an_error_row_whose_critique_begins_there(self, scripted):
        model = Short(nn.Assert, lambda output: "fact").to(writes(scripted, []))
        heard = []

        class Critic:
            async def critique(self, failure):
                heard.append(failure.node.path)
                return {target.name: "shorter" for target in failure.targets}

        loss = nn.MetricLoss(pg.metrics.exact_match, critic=Critic())(model.map(CASE), CASE)
        assert len(loss.errors) == 1
        loss.backward()
        assert heard == ["fact"]

    def test_of_attempts_only_the_one_that_counts_is_trained_on(self, scripted):
        refine = nn.Refine(Short(), 2).to(writes(scripted, []))
        assert [row.loss for row in nn.CheckLoss()(refine.map(CASE), CASE).rows] == [0.0]
