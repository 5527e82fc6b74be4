import json
import warnings

import pytest

import promptgrad as pg
from promptgrad import nn
from promptgrad.data import Example, pocket
from promptgrad.errors import GraphError
from promptgrad.metrics import exact_match
from promptgrad.nn._fit import fit, size


class Agent(nn.Module):
    def __init__(self, steps=3):
        super().__init__()
        self.step = nn.Predict("question, notes: list[str] -> note", instruction="Find one thing.")
        self.answer = nn.Predict("question, notes: list[str] -> answer", instruction="Answer from the notes.")
        self.steps = steps

    def forward(self, question):
        notes = []
        for _ in range(self.steps):
            notes.append(self.step(question=question, notes=notes).note)
        return self.answer(question=question, notes=notes)


def work(notes, **_):
    known = json.loads(notes)
    return {"note": f"thing number {len(known)} was found", "answer": "blue"}


def batch(*answers):
    return [Example(question=f"q{i}", answer=a).with_inputs("question") for i, a in enumerate(answers)]


def backward(scripted, judge, answers=("red",), steps=3, critic=None, **options):
    model = Agent(steps).to(scripted(work, name="worker"))
    asked = scripted(judge, name="critic")
    critic = (critic or nn.Critic)(asked)
    examples = batch(*answers)
    loss = nn.MetricLoss(exact_match, critic=critic)(model.map(examples), examples)
    return model, asked, loss.backward(**options)


def findings(*found):
    """A reply: for each finding the run or runs, the parameter, the critique and, if false, whether it is to blame."""
    keys = ("runs", "parameter", "critique", "to_blame")
    several = [([one[0]] if isinstance(one[0], int) else one[0], *one[1:]) for one in found]
    return {"findings": json.dumps([dict(zip(keys, one, strict=False)) for one in several])}


def test_one_call_for_each_failed_sample_sees_it_all_and_answers_for_all_parameters(scripted):
    seen = []

    def judge(**fields):
        seen.append(fields)
        return findings((1, "step.instruction", "look further"), (1, "answer.instruction", "say the color"))

    model, asked, report = backward(scripted, judge, ("red", "blue", "red"), engine="joint", group=1)
    assert report.calls == len(asked.asked) == 2
    assert [c.text for c in model.step.instruction.grad.critiques] == ["look further"] * 2
    (critique, _) = model.answer.instruction.grad.critiques
    assert (critique.text, critique.path, critique.index, critique.target) == (
        "say the color",
        "answer",
        0,
        "instruction",
    )
    assert model.step.instruction.grad.critiques[0].index == 2, "the last call that read it"
    assert json.loads(seen[0]["parameters"]) == {
        "step.instruction": "Find one thing.",
        "answer.instruction": "Answer from the notes.",
    }
    run, right = json.loads(seen[0]["runs"])
    assert [call["call"] for call in run["calls"]] == ["step[0]", "step[1]", "step[2]", "answer[0]"]
    assert run["calls"][-1]["uses"] == ["notes: step[0].note", "notes: step[1].note", "notes: step[2].note"]
    assert (run["result"], right["result"], "feedback" in right) == ("wrong", "right", False)
    assert right["calls"][-1]["outputs"] == {"answer": "blue"}
    assert run["calls"][1]["follows"] == ["step.instruction"]
    assert run["calls"][0]["outputs"] == {"note": "thing number 0 was found"}
    assert run["feedback"] == "the answer should be red"


@pytest.mark.parametrize("options", [{"engine": "joint"}, {}])
def test_demos_are_shown_and_may_be_blamed(scripted, options):
    seen = []

    def judge(**fields):
        seen.append(fields)
        return findings((1, "step.demos", "the demo shows a number"), (1, "answer.demos", "x"))

    model = Agent(12).to(scripted(work))
    model.step.demos.data = (Example(question="q", notes=[], note="number 7"),)
    model.answer.demos.data = (Example(question="q", notes=[], answer="frozen"),)
    model.answer.demos.requires_grad_(requires_grad=False)
    (example,) = batch("red")
    report = nn.MetricLoss(exact_match, critic=nn.Critic(scripted(judge)))(model.map([example]), [example]).backward(
        **options
    )
    assert report.joint == 1
    shown = json.loads(seen[0]["parameters"])
    assert shown["step.demos"] == [{"question": "q", "notes": [], "note": "number 7"}]
    assert "answer.demos" not in shown
    (run,) = json.loads(seen[0]["runs"])
    assert run["calls"][0]["follows"] == ["step.instruction", "step.demos"]
    (critique,) = model.step.demos.grad.critiques
    assert (critique.text, critique.target) == ("the demo shows a number", "demos")
    assert "'answer.demos'" in report.skipped[0].reason


def test_groups_share_a_call_and_each_run_gets_its_own_findings(scripted):
    def judge(runs, **_):
        numbers = [run["run"] for run in json.loads(runs)]
        return findings(
            *((number, "step.instruction", f"run {number}") for number in numbers), (9, "step.instruction", "x")
        )

    model, asked, report = backward(
        scripted, judge, ("red",) * 5, engine="joint", critic=lambda lm: nn.Critic(lm, group=2)
    )
    assert report.calls == len(asked.asked) == 3
    assert [c.text for c in model.step.instruction.grad.critiques] == ["run 1", "run 2", "run 1", "run 2", "run 1"]
    assert len({c.example_id for c in model.step.instruction.grad.critiques}) == 5


def test_long_runs_close_a_group_and_are_cut_openly_but_parameters_never(scripted):
    seen = []

    def judge(**fields):
        seen.append(fields)
        return findings()

    def chatty(notes, **_):
        return {"note": "word " * 3000, "answer": "blue"}

    model = Agent(2).to(scripted(chatty))
    model.answer.instruction.data = "Rule. " * 4000
    examples = batch("red", "red")
    critic = nn.Critic(scripted(judge), group=2, max_tokens=2000)
    report = nn.MetricLoss(exact_match, critic=critic)(model.map(examples), examples).backward(engine="joint")
    assert report.calls == 2
    assert "characters left out" in seen[0]["runs"]
    assert len(seen[0]["runs"]) < 4 * 2000 + 3000
    assert json.loads(seen[0]["parameters"])["answer.instruction"] == "Rule. " * 4000


@pytest.mark.parametrize(
    ("options", "calls"), [({}, 1), ({"engine": "local"}, 4), ({"engine": "local", "repeat": 1}, 4)]
)
def test_it_is_taken_where_it_costs_less(scripted, options, calls):
    def judge(**fields):
        if "runs" in fields:
            return findings((1, "step.instruction", "look further"))
        return {"critique": "bad", "critique_of_notes": "bad"}

    model, _, report = backward(scripted, judge, **options)
    assert report.calls == calls
    assert model.step.instruction.grad.critiques


def test_an_answer_that_is_none_is_skipped_for_the_runs_of_that_call_only(scripted):
    def judge(runs="q0", **_):  # asked again, it is shown its reply only
        return "no idea" if "q0" in runs else findings((1, "answer.instruction", "shorter"))

    model, _, report = backward(scripted, judge, ("red", "red"), engine="joint", group=1)
    assert len(report.skipped) == 1
    assert "the critic failed: ParseError" in report.skipped[0].reason
    assert [c.text for c in model.answer.instruction.grad.critiques] == ["shorter"]


def test_two_parameters_of_one_name_are_told_apart(scripted):
    seen = []

    def judge(**fields):
        seen.append(fields)
        return findings((1, "instruction#1", "be short"))

    first = nn.Predict("q -> x", instruction="The first.", lm=scripted(lambda **_: {"x": "some words here now"}))
    second = nn.Predict("x -> y", instruction="The second.", lm=scripted(lambda **_: {"y": "other words"}))
    example = Example(q="1", y="2").with_inputs("q")
    loss = nn.MetricLoss(exact_match, critic=nn.Critic(scripted(judge)))(second(x=first(q="1").x), example)
    loss.backward(engine="joint")
    assert json.loads(seen[0]["parameters"]) == {"instruction": "The first.", "instruction#1": "The second."}
    (run,) = json.loads(seen[0]["runs"])
    assert [call["follows"] for call in run["calls"]] == [["instruction"], ["instruction#1"]]
    assert first.instruction.grad is None
    (critique,) = second.instruction.grad.critiques
    assert (critique.text, critique.target) == ("be short", "instruction")


def test_several_parameters_of_one_name_are_numbered(scripted):
    seen = []

    def judge(**fields):
        seen.append(json.loads(fields["parameters"]))
        return findings((1, "instruction#2", "be short"))

    steps = [
        nn.Predict(f"{given} -> {made}", instruction=f"Make {made}.", lm=scripted(lambda made=made, **_: {made: made}))
        for given, made in ("ab", "bc", "cd")
    ]
    example, value = Example(a="1", d="2").with_inputs("a"), "1"
    for step, given in zip(steps, "abc", strict=True):
        value = (made := step(**{given: value}))[next(iter(made))]
    nn.MetricLoss(exact_match, critic=nn.Critic(scripted(judge)))(made, example).backward(engine="joint")
    assert seen == [{"instruction": "Make b.", "instruction#1": "Make c.", "instruction#2": "Make d."}]
    assert [step.instruction.grad is not None for step in steps] == [False, False, True]


@pytest.mark.parametrize("malformed", [None, ["x"], {"instruction": 3}])
def test_a_malformed_answer_in_a_group_is_one_skipped_run(scripted, malformed):
    class Own:
        async def critique(self, failure):
            return {}

        def groups(self, failures):
            return [failures]

        async def critique_traces(self, group):
            return [malformed, {group[1].targets[0].name: "be exact"}]

    model = nn.Predict("q -> a").to(scripted(lambda **_: {"a": "x"}))
    examples = [Example(q=q, a=q).with_inputs("q") for q in "12"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loss = nn.MetricLoss(exact_match, critic=Own())(model.map(examples), examples)
        report = loss.backward(engine="joint")
    assert [skip.example_id for skip in report.skipped] == [examples[0].id]
    assert "TypeError" in report.skipped[0].reason
    (critique,) = model.instruction.grad.critiques
    assert (critique.text, critique.example_id) == ("be exact", examples[1].id)


class TestGroups:
    def seen(self, scripted, questions, versions=(), **options):
        """What the joint critic is shown of failed runs of one call, each with the instruction of its place."""
        seen = []

        def judge(**fields):
            seen.append(fields)
            return findings()

        model = nn.Predict("q -> a", instruction="v1").to(scripted(lambda **_: {"a": "x"}))
        examples = [Example(q=q, a="1").with_inputs("q") for q in questions]
        outputs = []
        for number, example in enumerate(examples):
            model.instruction.data = versions[number] if versions else "v1"
            outputs.append(model(q=example.q))
        critic = nn.Critic(scripted(judge), **options)
        nn.MetricLoss(exact_match, critic=critic)(outputs, examples).backward(engine="joint")
        return seen

    def test_what_a_short_run_leaves_is_there_for_a_long_one(self, scripted):
        (shown,) = self.seen(scripted, ["w " * 1200, "2"], group=2, max_tokens=1000)
        assert "characters left out" not in shown["runs"]

    def test_a_group_is_closed_where_a_name_would_stand_for_another_text(self, scripted):
        shown = self.seen(scripted, "1234", versions=("v1", "v1", "v2", "v2"), group=4)
        assert [json.loads(one["parameters"]) for one in shown] == [{"instruction": "v1"}, {"instruction": "v2"}]
        assert [len(json.loads(one["runs"])) for one in shown] == [2, 2]


def test_a_critic_that_cannot_says_so():
    class Own:
        async def critique(self, failure):
            return {}

    pytest.importorskip("torch")
    task = pocket.task("chain-color-of-last")
    model = nn.Predict("text -> answer", instruction="do the task").to(pg.lm.pocket())
    examples = task.split(train=4)[0]
    loss = nn.MetricLoss(task.metric)(model.map(examples), examples)
    with pytest.raises(GraphError, match="engine='joint' needs a critic"):
        loss.backward(engine="joint")
    with pytest.raises(GraphError, match="Own"):
        loss.backward(Own(), engine="joint")
    with pytest.raises(ValueError, match="'auto', 'local', 'joint'"):
        loss.backward(engine="fast")
    assert loss.backward().calls == 4


class TestFit:
    def test_short_values_are_the_same_object(self):
        value = {"a": "x", "b": [1, "y"]}
        assert fit(value, 10) is value

    def test_the_longest_are_cut_to_one_length_and_say_so(self):
        cut = fit({"a": "short text", "b": "x" * 4000, "c": ["y" * 4000, 7]}, 250)
        assert cut["a"] == "short text"
        assert cut["c"][1] == 7
        assert cut["b"].startswith("x" * 200)
        assert f"{4000 - cut['b'].count('x')} characters left out" in cut["b"]
        assert abs(cut["b"].count("x") - cut["c"][0].count("y")) == 0
        assert size({"b": "x" * cut["b"].count("x"), "c": "y" * cut["c"][0].count("y"), "a": cut["a"]}) <= 250

    @pytest.mark.parametrize(
        ("lengths", "tokens", "kept"),
        [
            ([10, 10], 5, [10, 10]),  # exactly
            ([10, 11], 5, [10, 10]),
            ([100, 1, 50], 10, [19, 1, 19]),
            ([7, 7, 7], 1, [1, 1, 1]),
            ([5, 3], 0, [0, 0]),
            ([0, 90, 0], 10, [0, 40, 0]),
            ([4] * 500 + [4000], 600, [4] * 500 + [400]),
        ],
    )
    def test_room_is_shared_by_those_that_are_cut(self, lengths, tokens, kept):
        cut = fit(["x" * length for length in lengths], tokens)
        assert [text.count("x") for text in cut] == kept
        for text, length in zip(cut, lengths, strict=True):
            left_out = length - text.count("x")
            assert (f" [... {left_out} characters left out ...] " in text) == bool(left_out)


def test_feedback_about_single_calls_stands_in_the_evidence(scripted):
    model = Agent(2).to(scripted(work))
    critic = nn.Critic(scripted(lambda **_: findings((1, "step.instruction", "look further"))))
    (example,) = batch("red")
    metric = lambda example, output: pg.Score(0, feedback="wrong", module_feedback={"step": "too short"})  # noqa: E731
    nn.MetricLoss(metric, critic=critic)(model.map([example]), [example]).backward(engine="joint")
    (critique,) = model.step.instruction.grad.critiques
    assert critique.evidence["feedback"] == ("wrong", "too short")


class TestFindings:
    def test_one_names_all_its_runs_and_its_support_counts_them(self, scripted):
        model, _, _ = backward(
            scripted, lambda **_: findings(([1, 3], "step.instruction", "look further")), ("red", "red", "red")
        )
        grad = model.step.instruction.grad
        assert len(grad.critiques) == 2
        assert [(critique.text, critique.support) for critique in grad.cluster().critiques] == [("look further", 2)]

    def test_several_about_one_parameter_stay_apart(self, scripted):
        said = ((1, "step.instruction", "look further"), ([1, 2], "step.instruction", "be brief"))
        model, _, _ = backward(scripted, lambda **_: findings(*said), ("red", "red"))
        supports = {critique.text: critique.support for critique in model.step.instruction.grad.cluster().critiques}
        assert supports == {"be brief": 2, "look further": 1}

    def test_what_is_not_to_blame_is_not_blamed_whatever_is_said_of_it(self, scripted):
        said = (1, "step.instruction", "It is right: it finds a thing.", False), (1, "answer.instruction", "say more")
        model, _, _ = backward(scripted, lambda **_: findings(*said))
        assert model.step.instruction.grad is None
        assert [critique.text for critique in model.answer.instruction.grad.critiques] == ["say more"]

    def test_about_the_program_itself_they_reach_the_report_and_no_gradient(self, scripted):
        said = ([1, 2], "program", "`answer` is given `subject` where `facts` is meant")
        model, _, report = backward(scripted, lambda **_: findings(said), ("red", "red"))
        assert model.answer.instruction.grad is None
        (remark,) = report.remarks
        assert str(remark) == "program: `answer` is given `subject` where `facts` is meant"
        assert len(remark.examples) == 2
        assert report.skipped == ()

    def test_about_the_program_loss_explain_says_it(self, scripted):
        said = findings(([1], "program", "the notes are lost"))
        model = Agent().to(scripted(work, name="worker"))
        examples = batch("red")
        loss = nn.MetricLoss(exact_match, critic=scripted(lambda **_: said))(model.map(examples), examples)
        loss.backward()
        assert "about program: the notes are lost" in str(loss.explain())

    def test_about_a_run_that_was_right_they_blame_nothing_and_are_in_the_report(self, scripted):
        model, _, report = backward(scripted, lambda **_: findings(([2], "step.instruction", "x")), ("red", "blue"))
        assert model.step.instruction.grad is None
        assert [remark.about for remark in report.remarks] == ["step.instruction of run 2"]


class TestSuccesses:
    def shown(self, scripted, answers, **options):
        seen = []

        def judge(**fields):
            seen.append([(run["run"], run["result"]) for run in json.loads(fields["runs"])])
            return findings()

        backward(scripted, judge, answers, **options)
        return seen

    def test_the_nearest_stand_beside_the_failures_at_no_further_call(self, scripted):
        (seen,) = self.shown(scripted, ("red", *["blue"] * 6, "red"))
        assert seen == [(1, "wrong"), (2, "wrong"), (3, "right"), (4, "right"), (5, "right"), (6, "right")]

    def test_failures_come_first_where_the_room_is_small(self, scripted):
        (seen,) = self.shown(scripted, ("red", "blue"), critic=lambda lm: nn.Critic(lm, max_tokens=70))
        assert seen == [(1, "wrong")]

    def test_one_with_other_values_is_of_no_use(self, scripted):
        seen = []

        def judge(**fields):
            seen.extend(json.loads(fields["runs"]))
            return findings()

        model = Agent(1).to(scripted(work))
        examples = batch("red", "blue")
        outputs = [model(question="q0")]
        model.step.instruction.data = "Find another thing."
        outputs.append(model(question="q1"))
        nn.MetricLoss(exact_match, critic=scripted(judge))(outputs, examples).backward()
        assert [run["result"] for run in seen] == ["wrong"]

    def test_the_nearest_is_the_one_with_most_words_in_common(self, scripted):
        seen = []

        def judge(**fields):
            seen.extend(json.loads(fields["runs"]))
            return findings()

        model = Agent(1).to(scripted(work))
        texts = ["a red fox in the snow", *[f"number {i} of all" for i in range(6)], "a red fox at sea"]
        examples = [Example(question=t, answer="blue").with_inputs("question") for t in texts]
        examples[0] = Example(question=texts[0], answer="red").with_inputs("question")
        nn.MetricLoss(exact_match, critic=scripted(judge))(model.map(examples), examples).backward()
        assert [run["calls"][0]["inputs"]["question"] for run in seen][:2] == [texts[0], texts[-1]]
        assert len(seen) == 5


def test_the_critic_is_told_what_each_call_may_answer(scripted):
    seen = []

    def judge(**fields):
        seen.append(fields)
        return findings()

    backward(scripted, judge)
    assert json.loads(seen[0]["steps"]) == {
        "step": "question, notes: list[str] -> note",
        "answer": "question, notes: list[str] -> answer",
    }


def test_the_group_can_be_chosen_in_backward(scripted):
    _, asked, report = backward(scripted, lambda **_: findings(), ("red",) * 5, group=2)
    assert report.calls == len(asked.asked) == 3
    with pytest.raises(ValueError, match="group is a number"):
        backward(scripted, lambda **_: findings(), group=0)


def test_the_lm_of_the_optimizer_criticises_where_no_critic_is_named(scripted):
    strong = scripted(lambda **_: findings((1, "step.instruction", "look further")), name="strong")
    model = Agent().to(scripted(work, name="worker"))
    pg.optim.TGD(model.parameters(), lm=strong)
    examples = batch("red")
    nn.MetricLoss(exact_match)(model.map(examples), examples).backward()
    assert len(strong.asked) == 1
    assert [critique.text for critique in model.step.instruction.grad.critiques] == ["look further"]
    named = scripted(lambda **_: findings(), name="named")
    nn.MetricLoss(exact_match, critic=named)(model.map(examples), examples).backward()
    assert (len(strong.asked), len(named.asked)) == (1, 1)
    with pg.context(critic=named):
        nn.MetricLoss(exact_match)(model.map(examples), examples).backward()
    assert (len(strong.asked), len(named.asked)) == (1, 2)


def test_eight_failed_forwards_share_a_call_unless_said_otherwise(scripted):
    assert nn.Critic().joint.group == nn.JointCritic().group == 8
    _, asked, _ = backward(scripted, lambda **_: findings(), ("red",) * 9, engine="joint")
    assert len(asked.asked) == 2
