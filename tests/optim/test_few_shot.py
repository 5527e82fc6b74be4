import pytest

import promptgrad as pg
from promptgrad import Trainer, lm, nn, optim
from promptgrad.autograd import Gradient, Trace
from promptgrad.errors import DataError


def backward(model, world, batch):
    loss = nn.MetricLoss(world.metric)(model.map(batch), batch)
    loss.backward(inputs=[model.pick.demos, model.spell.demos])


@pytest.fixture
def right(world):
    """A program that is right on some examples: it takes the last word, and copies it."""
    model = world.Program().to(lm.FunctionLM(world.answer))
    model.pick.instruction.data = "Take the last word."
    return model


def mixed(world, count=6):
    """Examples of which every other one is a palindrome, so that copying is right."""
    rows = []
    for index in range(count):
        word = ["level", "noon", "civic"][index // 2 % 3] if index % 2 else "lime"
        text = f"a b{index} {word}"
        rows.append(pg.Example(text=text, answer=word[::-1]).with_inputs("text"))
    return rows


class TestTheLoop:
    def test_the_best_traces_become_demos_of_every_module(self, right, world):
        backward(right, world, mixed(world))
        report = optim.BootstrapFewShot(right.parameters(), max_bootstrapped_demos=2).step()
        assert report.calls == 0
        assert [change.status for change in report.changes] == ["accepted", "accepted"]
        assert [demo.to_dict() for demo in right.pick.demos.data] == [
            {"text": "a b5 civic", "word": "civic"},
            {"text": "a b3 noon", "word": "noon"},
        ]
        assert [demo.answer for demo in right.spell.demos.data] == ["civic", "noon"]
        assert right.spell.demos.data[0].inputs() == {"word": "civic"}

    def test_without_a_right_run_nothing_changes(self, right, world):
        backward(right, world, mixed(world, 1))
        report = optim.BootstrapFewShot(right.parameters()).step()
        assert {change.reason for change in report.changes} == {"none of 1 traces went right"}
        assert right.pick.demos.data == ()

    def test_a_threshold_lets_half_right_runs_in(self, right, world):
        backward(right, world, mixed(world))
        optim.BootstrapFewShot(right.parameters(), threshold=0.5).step()
        assert len(right.pick.demos.data) == 4

    def test_labelled(self, world):
        model, data = world.single()
        model.to(lm.FunctionLM(world.answer))
        optim.LabeledFewShot(model.parameters(), k=3, examples=data[10:]).step()
        assert [demo.to_dict() for demo in model.demos.data] == [row.to_dict() for row in data[10:13]]
        assert model.demos.data[0].inputs() == {"word": data[10].word}

    def test_labelled_of_a_module_of_which_only_a_trace_knows_the_fields(self, world):
        demos = pg.Parameter((), "demos")
        opt = optim.LabeledFewShot([demos], examples=[pg.Example(word="ab", answer="ba", more=1)])
        assert opt.step().changes[0].reason == "no trace: call loss.backward() first"
        demos.grad = Gradient([Trace("", "spell", 0, {"word": "cd"}, {"answer": "cd"}, 0.0)])
        opt.step()
        assert [demo.to_dict() for demo in demos.data] == [{"word": "ab", "answer": "ba"}]

    def test_examples_of_other_fields(self, world):
        model, data = world.single()
        report = optim.LabeledFewShot(model.parameters(), examples=[row.without("word") for row in data]).step()
        assert report.changes[0].reason == (
            "none of the 72 examples has every input of the module (word) and one of its outputs (answer)"
        )

    def test_no_trace_yet(self, right):
        report = optim.LabeledFewShot(right.parameters()).step()
        assert {change.status for change in report.changes} == {"untouched"}


class TestTheTrainer:
    def test_labelled_demos_teach_the_task(self, world):
        model, data = world.single()
        model.to(lm.FunctionLM(world.answer))
        opt = optim.LabeledFewShot(model.parameters(), k=4)
        result = Trainer(model, opt, metric=world.metric, seed=1).fit(data[:20], data[20:60])
        assert result.shipped
        assert len(model.demos.data) == 4
        assert set(model.demos.data) <= {pg.Example(row.to_dict()) for row in data[:20]}
        assert result.gain.pairs == 40  # nothing was chosen, so all validation data confirms
        assert result.calls == 80

    def test_traces_of_a_teacher_teach_the_student(self, world):
        def teacher(messages):
            better = [{"role": m.role, "content": m.content} for m in messages]
            better[0]["content"] = "Take the last word and reverse it." + better[0]["content"]
            return world.answer(better)

        model = world.Program().to(lm.FunctionLM(world.answer))
        opt = optim.BootstrapFewShot(model.parameters(), max_bootstrapped_demos=3, teacher=lm.FunctionLM(teacher))
        data = world.examples(60)
        result = Trainer(model, opt, metric=world.metric).fit(data[:20], data[20:])
        assert result.shipped
        assert [len(model.pick.demos.data), len(model.spell.demos.data)] == [3, 3]
        assert all(demo.word == demo.text.split()[-1] for demo in model.pick.demos.data)
        assert 16 < result.phases["search"].calls <= 32  # one block of 16 examples, two calls each, equal ones once

    def test_without_anything_to_put_into_demos(self, world):
        model = world.Program().to(lm.FunctionLM(world.answer))
        trainer = Trainer(model, optim.BootstrapFewShot(model.parameters()), metric=world.metric)
        result = trainer.fit(world.examples(8), world.examples(40)[20:])
        assert result.outcome == "no candidate"
        assert "none of 8 training runs went right" in repr(result)
        trainer = Trainer(model, optim.LabeledFewShot(model.parameters()), metric=world.metric)
        with pytest.raises(DataError, match="no training example has the fields"):
            trainer.fit(world.examples(8), world.examples(8, seed=1))

    def test_a_teacher_never_sees_the_answers_of_its_block(self, world):
        model, data = world.single()
        seen = []

        def spying(messages):
            demos = [message.content for message in messages[1:-1]]
            seen.append((messages[-1].content.split("\n")[1], " ".join(demos)))
            return world.answer(messages)

        model.to(lm.FunctionLM(spying))
        opt = optim.BootstrapFewShot(model.parameters(), max_bootstrapped_demos=20, max_labeled_demos=6)
        Trainer(model, opt, metric=world.metric).fit(data[:24], data[24:40])
        bootstrap = seen[:24]
        assert all(demos for _, demos in bootstrap)
        assert not any(word in demos.split() for word, demos in bootstrap)


@pytest.mark.parametrize(
    "make",
    [
        lambda params: optim.LabeledFewShot(params, k=0),
        lambda params: optim.BootstrapFewShot(params, max_bootstrapped_demos=0),
        lambda params: optim.BootstrapFewShot(params, max_rounds=0),
    ],
)
def test_numbers_out_of_range(make, world):
    with pytest.raises(ValueError, match="at least"):
        make(world.Program().parameters())
