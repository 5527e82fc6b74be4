import math

import pytest

import promptgrad as pg
from promptgrad import aio, nn
from promptgrad.autograd import Loss
from promptgrad.data import Example
from promptgrad.errors import GraphError, InputError, LMTimeoutError, MetricError
from promptgrad.metrics import exact_match, numeric_match
from promptgrad.testing import Fields


class Echo(nn.Module):
    def __init__(self):
        super().__init__()
        self.step = nn.Predict("question -> answer")

    def forward(self, question):
        return self.step(question=question)


class Count(nn.Module):
    """Returns a number, which cannot remember where it came from."""

    def __init__(self):
        super().__init__()
        self.step = nn.Predict("question -> n: int")

    def forward(self, question):
        return self.step(question=question).n


class Blames:
    def __init__(self):
        self.failures = []
        self.asked = []

    async def critique(self, failure):
        self.failures.append(failure)
        self.asked.append(failure.node.inputs["question"])
        return {target.name: f"{target.name} of {failure.example.question}" for target in failure.targets}


def examples(*pairs):
    return [Example(question=q, answer=a).with_inputs("question") for q, a in pairs]


@pytest.fixture
def program(scripted):
    def answer(question):
        if question == "down":
            raise LMTimeoutError("no answer")
        return {"answer": question.upper()}

    return Echo().to(scripted(answer))


def test_the_loss_is_what_lacks_to_the_best_score(program):
    batch = examples(("a", "A"), ("b", "X"), ("c", "C"), ("d", "D"))
    loss = nn.MetricLoss(exact_match)(program.map(batch), batch)
    assert loss.item() == 0.25
    assert loss.items == (0.0, 1.0, 0.0, 0.0)
    assert float(loss) == 0.25
    assert len(loss) == 4
    assert repr(loss) == "Loss(0.25, 1 of 4 failed, 0 errors)"


def test_a_batch_knows_its_examples(program):
    batch = examples(("a", "A"), ("b", "X"))
    assert nn.MetricLoss(exact_match)(program.map(batch)).item() == 0.5


def test_one_output_and_one_example(program):
    (example,) = examples(("a", "X"))
    loss = nn.MetricLoss(exact_match, critic=Blames())(program(question="a"), example)
    assert loss.item() == 1.0
    assert loss.backward().calls == 1
    assert program.step.instruction.grad.critiques[0].text == "instruction of a"


def test_a_list_of_outputs_of_any_loop(program):
    batch = examples(("a", "A"), ("b", "X"))
    loss = nn.MetricLoss(exact_match, critic=Blames())([program(**example.inputs()) for example in batch], batch)
    assert loss.items == (0.0, 1.0)
    loss.backward()
    grad = program.step.instruction.grad
    assert [c.text for c in grad.critiques] == ["instruction of b"]
    assert [t.score for t in program.step.demos.grad.traces] == [1.0, 0.0]


def test_numbers_find_their_way_back(scripted):
    program = Count().to(scripted(lambda question: {"n": "3"}))
    batch = [Example(question=q, n=n).with_inputs("question") for q, n in (("a", 3), ("b", 4), ("c", 3))]
    critic = Blames()
    loss = nn.MetricLoss(numeric_match, critic)([program(**example.inputs()) for example in batch], batch)
    loss.backward()
    assert critic.asked == ["b"]
    loss = nn.MetricLoss(numeric_match, critic)(program("z"), batch[1])
    loss.backward()
    assert critic.asked == ["b", "z"]


def test_numbers_from_nowhere_cannot_be_blamed(scripted):
    batch = [Example(question="a", n=4).with_inputs("question")]
    loss = nn.MetricLoss(numeric_match, Blames())([int("1234567")], batch)
    assert loss.item() == 1.0
    with pytest.raises(GraphError, match="nothing was recorded"):
        loss.backward()


def test_as_many_rollouts_as_there_were(program):
    batch = examples(("a", "A"), ("b", "X"), ("c", "C"), ("d", "D"))
    criterion = nn.MetricLoss(exact_match)
    with pytest.raises(InputError, match="4 outputs and 2 examples"):
        criterion(program.map(batch), batch[:2])
    with pytest.raises(InputError, match="4 outputs and 1 examples"):
        criterion(program.map(batch), batch[0])
    twice = program.map(batch[:2], n=2)
    for given in (batch, batch[:1]):
        with pytest.raises(InputError, match="4 outputs, rollouts of 2 items, and"):
            criterion(twice, given)
    assert criterion(twice, batch[:2]).items == (0.0, 0.0, 1.0, 1.0)
    assert criterion(twice, [row.example for row in twice.rows]).items == (0.0, 0.0, 1.0, 1.0)
    assert criterion(twice[::2], batch[:2]).items == (0.0, 1.0)
    same = [batch[1]] * 2
    assert len(criterion(program.map(same), same)) == 2
    with pytest.raises(InputError, match="2 outputs and 1 examples"):
        criterion(program.map(same), same[:1])


def test_rollouts_are_matched_with_their_example(program):
    batch = examples(("a", "A"), ("b", "X"))
    loss = nn.MetricLoss(exact_match)(program.map(batch, n=2), batch)
    assert [(row.example.question, row.replicate, row.score) for row in loss.rows] == [
        ("a", 0, 1.0),
        ("a", 1, 1.0),
        ("b", 0, 0.0),
        ("b", 1, 0.0),
    ]


@pytest.mark.parametrize(
    ("outputs", "wanted"),
    [(["x"], examples(("a", "A"), ("b", "B"))), ("x", examples(("a", "A")) * 2), (["x", "y"], None)],
)
def test_outputs_and_examples_have_to_match(outputs, wanted):
    with pytest.raises(InputError):
        nn.MetricLoss(exact_match)(outputs, wanted)


def test_a_batch_and_a_wrong_number_of_examples(program):
    with pytest.raises(InputError, match="2 outputs and 3 examples"):
        nn.MetricLoss(exact_match)(program.map(["a", "b"]), examples(("a", "A")) * 3)


def test_failed_rows_are_apart_from_the_mean(program):
    batch = examples(("a", "A"), ("down", "X"), ("b", "X"))
    loss = nn.MetricLoss(exact_match)(program.map(batch), batch)
    assert loss.item() == 0.5
    assert [row.example.question for row in loss.errors] == ["down"]
    assert math.isnan(loss.items[1])
    outputs = list(program.map(batch))
    assert nn.MetricLoss(exact_match)(outputs, batch).item() == 0.5


def test_a_metric_that_raises_or_gives_nan_makes_an_error_row(program):
    def metric(example, output):
        if example.question == "a":
            raise ValueError("cannot compare")
        return math.nan if example.question == "b" else 1.0

    batch = examples(("a", "A"), ("b", "B"), ("c", "C"))
    loss = nn.MetricLoss(metric)(program.map(batch), batch)
    assert loss.item() == 0.0
    assert [str(row.error) for row in loss.errors] == [
        "the metric metric raised ValueError: cannot compare",
        str(loss.errors[1].error),
    ]
    assert all(isinstance(row.error, MetricError) for row in loss.errors)
    with pytest.raises(MetricError, match="cannot compare"):
        nn.MetricLoss(metric)(program.map(batch[:1]), batch[:1])


@pytest.mark.parametrize("value", [2.0, -0.5, "good", None])
def test_what_is_no_score_in_range_is_an_error(program, value):
    batch = examples(("a", "A"))
    with pytest.raises(MetricError):
        nn.MetricLoss(lambda example, output: value)(program.map(batch), batch)


def test_metrics_of_any_shape(program):
    batch = examples(("a", "A"), ("b", "X"))
    outputs = program.map(batch)

    async def waits(example, output):
        return output.answer == example.answer

    def dspy(gold, pred, trace=None):
        return gold.answer == pred.answer

    def dspy_strict(gold, pred, trace):
        return gold.answer == pred.answer

    def score(example, output):
        return pg.Score(0.25, feedback="try harder")

    for metric in (waits, dspy, dspy_strict):
        assert nn.MetricLoss(metric)(outputs, batch).items == (0.0, 1.0)
    loss = nn.MetricLoss(score)(outputs, batch)
    assert loss.item() == 0.75
    assert loss.rows[0].feedback == "try harder"


def test_a_metric_with_another_best_score(program):
    def stars(example, output):
        return 3.0

    stars.best = 5.0
    batch = examples(("a", "A"))
    assert nn.MetricLoss(stars)(program.map(batch), batch).item() == 2.0


def test_nothing_to_do_when_all_are_right(program):
    batch = examples(("a", "A"), ("b", "B"))
    critic = Blames()
    report = nn.MetricLoss(exact_match, critic)(program.map(batch), batch).backward()
    assert report.calls == 0
    assert "0 of 2 failed, nothing to do" in repr(report)
    assert critic.failures == []
    assert len(program.step.demos.grad.traces) == 2
    assert program.step.instruction.grad is None


def test_the_same_from_async_code(program):
    batch = examples(("a", "A"), ("b", "X"))

    async def whole():
        criterion = nn.MetricLoss(exact_match, Blames())
        loss = await criterion.acall(await program.amap(batch), batch)
        return loss, await loss.abackward()

    from promptgrad import aio

    loss, report = aio.run(whole())
    assert loss.item() == 0.5
    assert report.calls == 1


def test_without_grad_there_is_a_loss_and_no_backward(program):
    batch = examples(("a", "X"))
    with pg.no_grad():
        loss = nn.MetricLoss(exact_match)(program.map(batch), batch)
    assert loss.item() == 1.0
    with pytest.raises(GraphError, match="nothing was recorded"):
        loss.backward()


def test_a_critic_is_a_name_a_model_or_a_critic():
    assert nn.MetricLoss(exact_match, critic="openai/gpt-4o").critic.lm.name == "openai/gpt-4o"
    critic = Blames()
    assert nn.MetricLoss(exact_match, critic=critic).critic is critic
    with pytest.raises(TypeError, match="critic is an LM"):
        nn.MetricLoss(exact_match, critic=3)
    with pytest.raises(MetricError, match="a metric is a function"):
        nn.MetricLoss("exact_match")


@pytest.mark.parametrize("asynchronous", [False, True])
def test_backward_takes_a_language_model_or_its_name_as_the_critic(program, asynchronous):
    batch = examples(("a", "X"), ("b", "B"))
    criterion = nn.MetricLoss(exact_match)
    loss = 2 * criterion(program.map(batch), batch) + criterion(program.map(batch))
    large = pg.lm.FunctionLM(Fields(critique="say X"), name="large")
    report = aio.run(loss.abackward(large)) if asynchronous else loss.backward(large)
    assert not report.skipped
    assert [critique.text for critique in program.step.instruction.grad.critiques] == ["say X", "say X"]


def test_a_critic_given_by_name_is_asked_rather_than_the_program_s_model(program, loopback, monkeypatch):
    server, _ = loopback(
        lambda messages: "[[ ## critique ## ]]\nsay X\n\n[[ ## to_blame ## ]]\nyes\n\n[[ ## completed ## ]]"
    )
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    monkeypatch.setenv("OPENAI_API_KEY", "key")
    batch = examples(("a", "X"), ("b", "B"))
    for critic, given in (("openai/large", None), (None, "openai/large-too")):
        program.zero_grad()
        nn.MetricLoss(exact_match, critic)(program.map(batch), batch).backward(given)
        assert [critique.text for critique in program.step.instruction.grad.critiques] == ["say X"]
    assert len(server.requests) == 2


def test_what_is_no_critic_is_refused_before_any_call(program):
    batch = examples(("a", "X"))
    loss = nn.MetricLoss(exact_match)(program.map(batch), batch)
    for use in (loss.backward, lambda critic: aio.run(loss.abackward(critic))):
        with pytest.raises(TypeError, match="critic is an LM, the name of one, or a Critic, not int"):
            use(3)
    assert len(program.lm.asked) == 1
    with pytest.raises(TypeError, match="needs a method `critique`, and int has none"):
        Loss(loss.rows).backward(3)


def test_a_criterion_is_a_module_whose_critic_is_visible_and_frozen():
    criterion = nn.MetricLoss(exact_match)
    parameters = dict(criterion.named_parameters())
    assert list(parameters) == [
        "critic.predict.instruction",
        "critic.predict.demos",
        "critic.joint.predict.instruction",
        "critic.joint.predict.demos",
        "critic.grouper.predict.instruction",
        "critic.grouper.predict.demos",
    ]
    assert not any(p.requires_grad for p in parameters.values())
    assert "exact_match" in repr(criterion)


@pytest.mark.parametrize(
    "criterion", [nn.MetricLoss(exact_match), nn.AuxLoss("step", exact_match), nn.JudgeLoss("It is right.")]
)
def test_a_criterion_is_no_metric_and_is_told_so_before_any_call(criterion, program):
    data = examples(("a", "A"), ("b", "B"))
    words = rf"{type(criterion).__name__} is a criterion.*criterion\.metric or nn\.Judge\(rubric\)"
    for use in (
        lambda: pg.evaluate(program, data, criterion),
        lambda: pg.Trainer(program, pg.optim.TGD(program.parameters()), metric=criterion),
        lambda: nn.MetricLoss(criterion),
        lambda: nn.AuxLoss("step", criterion),
    ):
        with pytest.raises(MetricError, match=words):
            use()
    assert program.lm.asked == []
    assert pg.evaluate(program, data, nn.MetricLoss(exact_match).metric).score == 1


def test_a_loss_is_no_score(program):
    data = examples(("a", "A"), ("b", "B"))
    with pytest.raises(MetricError, match="returned a Loss, so it is a criterion"):
        pg.evaluate(program, data, lambda example, output: nn.MetricLoss(exact_match)(output, example))


def test_a_forward_without_a_return_is_told_and_nobody_is_blamed(program):
    class Forgets(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = program

        def forward(self, question):
            self.inner(question=question)

    model, data = Forgets(), examples(("a", "A"), ("b", "B"))
    with pytest.raises(MetricError, match="the output is None; does forward end in a return"):
        nn.MetricLoss(exact_match)(model.map(data), data)
    with pytest.raises(MetricError, match="the output is None; does forward end in a return"):
        pg.evaluate(model, data, exact_match)
