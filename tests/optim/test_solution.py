"""A solution: a parameter that is the answer itself, improved while it is needed."""

import json
import re

import pytest

import promptgrad as pg
from promptgrad import lm, nn, optim
from promptgrad.errors import ConstraintError, GraphError, InputError
from promptgrad.testing import Fields

WORDS = ("cat", "cow", "cod")


def matches(example, pattern):
    """The share of words that a pattern matches, and which it does not."""
    missed = [word for word in WORDS if not re.fullmatch(pattern, word)]
    return pg.Score(1 - len(missed) / 3, feedback="; ".join(f"it does not match {word!r}" for word in missed))


class Writer:
    """Improves solutions with scripted texts, and keeps the prompts."""

    def __init__(self, *texts):
        self.texts = list(texts)
        self.prompts = []

    def __call__(self, messages):
        self.prompts.append("\n".join(message.content for message in messages))
        return f"[[ ## new_solution ## ]]\n{self.texts.pop(0)}\n\n[[ ## completed ## ]]"


@pytest.fixture
def solution():
    return pg.Parameter("cat", "solution", role="a pattern for the three words")


problem = pg.Example(words=list(WORDS), answer="c..").with_inputs("words")


class TestGradient:
    @pytest.mark.parametrize("given", [lambda p: p, str, lambda p: f"{p}", lambda p: [p], lambda p: {"pattern": p}])
    def test_the_feedback_is_the_gradient_and_costs_no_call(self, solution, given):
        def metric(example, output):
            (text,) = output.values() if isinstance(output, dict) else output if isinstance(output, list) else [output]
            assert type(text) is pg.Text
            return matches(example, text)

        calls = []
        critic = lm.FunctionLM(lambda messages: calls.append(messages) or "", name="critic")
        loss = nn.MetricLoss(metric, critic=critic)(given(solution), problem)
        report = loss.backward()
        assert (report.failed, report.calls, calls) == (1, 0, [])
        assert report.reached == ("solution",)
        (critique,) = solution.grad.critiques
        assert critique.text == "it does not match 'cow'; it does not match 'cod'"
        assert critique.evidence["inputs"] == {"words": list(WORDS)}
        assert "answer" not in critique.evidence["inputs"], "a label is nothing that the writer may see"

    def test_a_solution_that_is_right_gets_none(self, solution):
        solution.data = "c.."
        assert nn.MetricLoss(matches)(solution, problem).backward().failed == 0
        assert solution.grad is None

    @pytest.mark.parametrize("example", [None, "three words", {"words": 3}, pg.Example(words=3)])
    def test_the_problem_is_any_example_or_none(self, solution, example):
        loss = nn.MetricLoss(matches)(solution, example)
        assert loss.item() == pytest.approx(2 / 3)
        loss.backward()
        inputs = solution.grad.critiques[0].evidence["inputs"]
        assert inputs == {None: {}, str: {"input": "three words"}}.get(example and type(example), {"words": 3})

    def test_several_checks_are_several_rows(self, solution):
        def match(example, pattern):
            return pg.Score(bool(re.fullmatch(pattern, example)), feedback=f"{example} does not match")

        loss = nn.MetricLoss(match)([solution] * 3, list(WORDS))
        assert loss.items == (0, 1, 1)
        loss.backward()
        assert [critique.text for critique in solution.grad.critiques] == ["cow does not match", "cod does not match"]

    def test_a_list_without_examples_stays_an_error(self, solution):
        with pytest.raises(InputError, match=r"criterion\(outputs, examples\)"):
            nn.MetricLoss(matches)([solution, solution])
        with pytest.raises(InputError, match=r"several parts has one problem: criterion\(\[title, body\], problem\)"):
            nn.MetricLoss(matches)([solution, solution])
        nn.MetricLoss(lambda example, output: 0.0)([solution, "and more"], {}).backward()  # as the message says
        assert len(solution.grad.critiques) == 1

    def test_a_solution_of_several_parts(self):
        title, body = pg.Parameter("Cows", "solution"), pg.Parameter("They moo.", "solution")
        frozen = pg.Parameter("The end.", "solution", requires_grad=False)

        def metric(example, output):
            assert output == ["Cows", {"body": "They moo.", "end": "The end."}]
            return pg.Score(0.5, feedback="say where they live")

        report = nn.MetricLoss(metric)([title, {"body": body, "end": frozen}], "a note on cows").backward()
        assert report.calls == 0
        for part in (title, body):
            (critique,) = part.grad.critiques
            assert critique.text == "say where they live"
            assert critique.evidence["outputs"] == ["Cows", {"body": "They moo.", "end": "The end."}]
        assert frozen.grad is None

    def test_a_parameter_list_and_values_that_are_no_text(self):
        parts = nn.ParameterList([pg.Parameter("one", "solution"), pg.Parameter("b", "choice", options=["a", "b"])])
        seen = []
        nn.MetricLoss(lambda example, output: seen.append(output) or 0.0)(parts, "x").backward()
        assert seen == [["one", "b"]]
        assert len(parts[0].grad.critiques) == 1

    def test_text_around_it_keeps_the_edge_or_is_told(self, solution):
        criterion = nn.MetricLoss(lambda example, output: 0.0)
        criterion("^" + str(solution) + "$", problem).backward()
        assert len(solution.grad.critiques) == 1
        with pytest.raises(GraphError, match=r"pass the parameter itself, or str\(parameter\)"):
            criterion(f"^{solution}$", problem).backward()

    def test_nothing_is_recorded_without_grad(self, solution):
        with pg.no_grad():
            assert str(solution).grad_fn is None
            loss = nn.MetricLoss(matches)(solution, problem)
        assert loss.item() == pytest.approx(2 / 3)
        with pytest.raises(GraphError):
            loss.backward()

    def test_losses_of_one_solution_add(self, solution):
        short = nn.MetricLoss(lambda example, output: pg.Score(0.5, feedback="be shorter"))
        ((nn.MetricLoss(matches)(solution, problem)) + 0.5 * short(solution, problem)).backward()
        assert [c.text for c in solution.grad.critiques] == [
            "it does not match 'cow'; it does not match 'cod'",
            "be shorter",
        ]

    def test_a_judge_costs_one_call_and_its_feedback_is_the_critique(self, solution):
        judge = lm.FunctionLM(Fields(score="0.25", feedback="it names one word only"), name="judge")
        with pg.track_usage() as usage:
            loss = nn.JudgeLoss("The pattern matches cat, cow and cod.", lm=judge)(solution)
            loss.backward()
            assert usage.calls == 1
        assert loss.item() == 0.75
        assert [critique.text for critique in solution.grad.critiques] == ["it names one word only"]

    def test_a_module_between_takes_its_share(self, solution):
        class Translate(nn.Module):
            def __init__(self):
                super().__init__()
                self.say = nn.Predict("pattern -> words")
                self.pattern = solution

            def forward(self):
                return self.say(pattern=str(self.pattern)).words

        model = Translate().to(
            lm.FunctionLM(Fields(words="a cat", critique="list all", critique_of_pattern="too narrow"))
        )
        report = nn.MetricLoss(lambda example, output: 0.0)(model(), "x").backward()
        assert report.calls == 1
        assert [critique.text for critique in solution.grad.critiques] == ["too narrow"]

    def test_a_forward_judged_as_a_whole_speaks_of_it_too(self, solution):
        class Translate(nn.Module):
            def __init__(self):
                super().__init__()
                self.say = nn.Predict("pattern -> words")
                self.pattern = solution

            def forward(self):
                return self.say(pattern=str(self.pattern)).words

        shown = []

        def findings(inputs):
            shown.append(inputs["parameters"])
            return '[{"runs": [1], "parameter": "pattern", "critique": "too narrow"}]'

        model = Translate().to(lm.FunctionLM(Fields(words="a cat", findings=findings)))
        report = nn.MetricLoss(lambda example, output: 0.0)(model(), "x").backward(engine="joint")
        assert report.calls == 1
        assert '"pattern":"cat"' in shown[0]
        assert [critique.text for critique in solution.grad.critiques] == ["too narrow"]

    def test_a_draft_of_a_program_is_a_solution(self):
        model = nn.Predict("question -> answer").to(lm.FunctionLM(Fields(answer="cat")))
        draft = model(question="a pattern?").answer
        solution = pg.Parameter(draft, "solution")
        nn.MetricLoss(matches)(solution, problem).backward()
        assert solution.grad
        assert model.instruction.grad is None, "it is a leaf: the draft's history is not its own"


class TestStep:
    def test_the_writer_is_told_the_role_the_critique_and_the_problem(self, solution):
        writer = Writer("c(a|o)[tw]")
        opt = optim.TGD([solution], lm=lm.FunctionLM(writer), constraints=[short])
        loss = nn.MetricLoss(matches)(solution, problem)
        loss.backward()
        report = opt.step()
        assert report.calls == 1
        assert solution.data == "c(a|o)[tw]"
        (prompt,) = writer.prompts
        assert prompt.startswith("You improve one text: the solution of a problem.")
        for said in (
            "[[ ## role ## ]]\na pattern for the three words",
            "[[ ## solution ## ]]\ncat",
            "it does not match 'cow'",
            '"words":["cat","cow","cod"]',
            "At most ten characters.",
        ):
            assert said in prompt
        assert "instruction" not in prompt

    def test_a_gated_step_keeps_what_scores_higher_on_its_one_row(self, solution):
        writer = Writer("dog", "c[ao]t", "c[ao][tw]", "c..")
        criterion = nn.MetricLoss(matches)
        opt = optim.TGD([solution], lm=lm.FunctionLM(writer), proposals=1)
        course = []
        for _ in range(4):
            opt.zero_grad()
            loss = criterion(solution, problem)
            course.append((solution.data, round(loss.item(), 2)))
            loss.backward()
            report = opt.step(lambda: criterion(solution, problem), loss=loss)
        assert course == [("cat", 0.67), ("cat", 0.67), ("cat", 0.67), ("c[ao][tw]", 0.33)]
        assert solution.data == "c.."
        assert report.gate.accepted
        assert (report.gate.before, report.gate.after, report.gate.pairs) == (pytest.approx(2 / 3), 1.0, 1)
        shown = writer.prompts[-2].partition("[[ ## worse ## ]]")[2]
        assert "dog" in shown, "what did not help is shown"
        assert "c[ao]t" in shown
        assert "a pattern for the three words  accepted" in repr(report)

    def test_instructions_beside_it_need_more_than_one_row(self, solution):
        model = nn.Predict("word -> pattern", instruction="Write one.")
        model.to(lm.FunctionLM(Fields(pattern=str(solution), critique="be general")))
        both = [solution, *model.parameters()]
        writer = Fields(new_solution="c..", new_instruction="Write one pattern.")
        criterion = nn.MetricLoss(matches)
        opt = optim.TGD(both, lm=lm.FunctionLM(writer))

        def closure():
            return criterion(solution, problem) + criterion(model(word="x").pattern, problem)

        closure().backward()
        report = opt.step(closure)
        assert not report.accepted, "the rows are a sample of what an instruction will meet"
        assert "one must win 4 rows or more" in repr(report)

    def test_case_space_and_braces_count_in_a_solution(self, solution):
        criterion = nn.MetricLoss(lambda example, output: pg.Score(0.0, feedback="no"))
        for new in ("CAT", "C A T", "{a}{b}", "f'{x}'"):
            opt = optim.TGD([solution], lm=lm.FunctionLM(Writer(new)))
            opt.zero_grad()
            criterion(solution).backward()
            opt.step()
            assert solution.data == new

    @pytest.mark.parametrize(
        ("reply", "reason"),
        [
            ("cat", "does not change the text"),
            ("a pattern that is far too long", "it has 30 characters"),
            ("", "it is empty"),
        ],
    )
    def test_what_is_no_better_text_is_rejected(self, solution, reply, reason):
        opt = optim.TGD([solution], lm=lm.FunctionLM(Writer(reply)), constraints=[short])
        nn.MetricLoss(matches)(solution).backward()
        (change,) = opt.step().changes
        assert change.status == "rejected"
        assert reason in change.reason
        assert solution.data == "cat"

    def test_a_letter_may_say_what_an_instruction_may_not(self):
        letter = pg.Parameter("Dear Ms Moe, no refund.", "solution", role="a reply to a customer")
        new = "I'm sorry for the delay, Ms Moe. Here is your refund."
        nn.MetricLoss(lambda example, output: pg.Score(0.0, feedback="apologise"))(letter).backward()
        assert optim.TGD([letter], lm=lm.FunctionLM(Writer(new))).step().accepted
        assert letter.data == new

    @pytest.mark.parametrize("adapter", ["chat", "json"])
    def test_the_indent_of_its_first_line_is_kept(self, adapter):
        body = pg.Parameter("    return x", "solution", role="the body of a function")
        new = "    if x:\n        return y\n    return x"
        reply = {"chat": f"[[ ## new_solution ## ]]\n{new}\n\n[[ ## completed ## ]]"}
        reply["json"] = json.dumps({"new_solution": new})
        nn.MetricLoss(lambda example, output: 0.0)(body).backward()
        with pg.context(adapter=adapter):
            optim.TGD([body], lm=lm.FunctionLM(lambda messages: reply[adapter])).step()
        assert body.data == new

    def test_its_own_constraints_hold(self):
        with pytest.raises(ConstraintError, match="12 characters"):
            pg.Parameter("cat|cow|codx", "solution", constraints=[short])

    def test_in_coroutines(self, solution):
        from promptgrad import aio

        criterion = nn.MetricLoss(matches)
        opt = optim.TGD([solution], lm=lm.FunctionLM(Writer("c..")), proposals=1)

        async def refine():
            loss = await criterion.acall(solution, problem)
            await loss.abackward()
            return await opt.astep(lambda: criterion.acall(solution, problem), loss=loss)

        assert aio.run(refine()).gate.accepted
        assert solution.data == "c.."

    def test_explain_and_state(self, solution):
        loss = nn.MetricLoss(matches)(solution, problem)
        loss.backward()
        told = str(loss.explain())
        assert "\n  solution: it does not match 'cow'" in told
        assert told.endswith("\nsolution: blamed 1 time")

        class Note(nn.Module):
            def __init__(self, text):
                super().__init__()
                self.text = pg.Parameter(text, "solution")

        old, new = Note("a draft"), Note("")
        new.load_state_dict(old.state_dict())
        assert new.text.data == "a draft"


def short(text):
    """At most ten characters."""
    return None if len(text) <= 10 else f"it has {len(text)} characters"
