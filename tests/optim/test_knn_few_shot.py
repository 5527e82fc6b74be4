"""Demos that are chosen by the inputs: `nn.Neighbours` and `optim.KNNFewShot`."""

import copy
import pickle

import pydantic
import pytest

import promptgrad as pg
from promptgrad import Trainer, lm, nn, optim
from promptgrad.autograd import Selector
from promptgrad.errors import ConstraintError, DataError, StateDictError
from promptgrad.nn import _neighbours
from promptgrad.run import value_digest
from promptgrad.testing import Fields

SORTS = {"fruit": "apple pear plum cherry", "tool": "hammer saw pliers wrench", "animal": "horse goat sheep donkey"}
ROWS = [
    pg.Example(question=f"is a {word} a thing of sort {number}", answer=sort).with_inputs("question")
    for sort, words in SORTS.items()
    for word in words.split()
    for number in range(6)
]


class Things(pydantic.BaseModel):
    seen: set[int]


def lengths(texts):
    """A vectorizer that knows only how long a text is, and its first letter."""
    return [[float(len(text)), float(ord(text[0]))] for text in texts]


def copying(messages):
    """The answer of the last demo, the one next to the question."""
    shown = [m.content for m in messages[1:-1] if m.role == "assistant"]
    return shown[-1] if shown else Fields(answer="nothing")(messages)


def metric(example, output):
    return output.answer == example.answer


@pytest.fixture
def model():
    return nn.Predict("question -> answer").to(lm.FunctionLM(copying, name="copying"))


@pytest.fixture
def value():
    return nn.Neighbours(ROWS[::2], k=2)


class TestNeighbours:
    def test_the_nearest_are_chosen_at_call_time_the_nearest_last(self, model, value):
        model.demos.data = value
        for question, sort in (("a horse?", "animal"), ("one saw?", "tool"), ("no plum?", "fruit")):
            assert model(question=question).answer == sort
            demos = [m["content"] for m in model.render(question=question)[1:-1]]
            assert len(demos) == 4
            assert question.split()[1].rstrip("?") in demos[-2]

    def test_an_example_is_not_shown_its_own_answer(self, value):
        question = ROWS[0].question
        assert question not in [demo.question for demo in value.select({"question": question})]
        seen = nn.Neighbours(ROWS[::2], k=2, exclude_same=False)
        assert seen.select({"question": question})[-1].question == question

    def test_equally_near_ones_in_their_order_and_no_more_than_there_are(self):
        twins = [pg.Example(x="same", y=str(number)).with_inputs("x") for number in range(3)]
        few = nn.Neighbours(twins, k=5)
        assert [demo.y for demo in few.select({"x": "other"})] == ["2", "1", "0"]
        assert few.select({"x": "same"}) == ()
        assert few.select({"x": ""})[-1].y == "0"

    def test_equal_choices_are_one_object_which_a_prompt_is_compiled_for_once(self, value):
        first = value.select({"question": "a horse?"})
        assert value.select({"question": "a horse?"}) is first
        assert value.select({"question": "no plum?"}) != first

    def test_it_is_a_value_of_the_kind_demos(self, model, value):
        model.demos.data = value
        assert isinstance(value, Selector)
        assert (model.demos.shape, model.demos.numel()) == ((2,), 2)
        assert repr(model.demos).startswith("Parameter(demos, Neighbours(k=2 of 36 examples, vectorizer='ngrams')")
        assert "demos=Neighbours(k=2 of 36 examples, vectorizer='ngrams')" in repr(model)
        assert nn.Predict("question -> answer", demos=value).demos.data is value
        wrong = nn.Neighbours([pg.Example(a="x", b="y").with_inputs("a")])
        with pytest.raises(ConstraintError, match="demo 0 has no input field of the signature"):
            model.demos.data = wrong
        assert model.demos.data is value

    def test_it_is_told_from_others_by_content_in_every_process(self, value):
        same = nn.Neighbours(ROWS[::2], k=2)
        others = [
            nn.Neighbours(ROWS[::2], k=3),
            nn.Neighbours(ROWS[::3], k=2),
            nn.Neighbours(ROWS[::2], 2, lengths),
            nn.Neighbours(ROWS[::2], 2, exclude_same=False),
        ]
        assert (same, same.id, value_digest(same), hash(same)) == (value, value.id, value_digest(value), hash(value))
        assert value.id == "neighbours-ee14139232dc6725a6206359"
        assert len({value_digest(other) for other in [value, *others]}) == 5
        assert value not in others
        assert copy.deepcopy(value) is value
        assert pickle.loads(pickle.dumps(value)) == value

    def test_a_candidate_may_lie_over_it_and_be_one(self, model, value):
        model.demos.data = value
        with model.candidate({"demos": ()}):
            assert model(question="a horse?").answer == "nothing"
        assert model(question="a horse?").answer == "animal"
        plain = optim.Candidate({"demos": tuple(value.examples)})
        chosen = optim.Candidate({"demos": value})
        assert chosen.key == optim.Candidate({"demos": nn.Neighbours(ROWS[::2], k=2)}).key != plain.key
        assert chosen.size == round(plain.size / 18)

    def test_the_graph_knows_what_was_read_and_the_critic_what_was_shown(self, model, value):
        model.demos.data = value
        asked = []

        def critic(messages):
            asked.append(messages[-1].content)
            return Fields(to_blame="false", demos_critique="The demo is of another sort.")(messages)

        rows = [pg.Example(question="a horse?", answer="beast").with_inputs("question")]
        report = nn.MetricLoss(metric, critic=lm.FunctionLM(critic, name="critic"))(model.map(rows), rows).backward()
        assert report.reached == ("demos",)
        assert "horse" in asked[0]
        assert "plum" not in asked[0]

    def test_fields_and_sets_are_the_same_in_any_order(self):
        rows = [
            pg.Example(word="a", seen={0, 8}, answer="1").with_inputs("word", "seen"),
            pg.Example(seen={9, 1}, word="b", answer="2").with_inputs("seen", "word"),
            pg.Example(word="c", seen={3}, answer="3").with_inputs("word", "seen"),
        ]
        value = nn.Neighbours(rows, k=3)
        assert [row.answer for row in value.select({"seen": {8, 0}, "word": "a"})].count("1") == 0
        assert [row.answer for row in value.select({"word": "b", "seen": {1, 9}})].count("2") == 0
        assert len(value.select({"word": "a", "seen": [0, 8]})) == 3
        value = nn.Neighbours([pg.Example(things=Things(seen={0, 8}), answer="1").with_inputs("things"), rows[0]], k=2)
        assert [row.answer for row in value.select({"things": Things(seen={8, 0})})] == ["1"]  # the other has no things

    def test_another_image_of_the_same_size_is_another_input(self):
        one, two = (lm.ImagePart(data, "image/png") for data in (b"one", b"two"))
        value = nn.Neighbours([pg.Example(image=one, answer="1").with_inputs("image")], k=1)
        assert value.select({"image": one}) == ()
        assert len(value.select({"image": two})) == 1

    def test_export_says_what_they_are_chosen_from(self, model, value):
        model.demos.data = value
        exported = model.export()[""]
        assert [message["role"] for message in exported["messages"]] == ["system", "user"]
        assert (exported["demos"]["selector"], exported["demos"]["k"], len(exported["demos"]["examples"])) == (
            "neighbours",
            2,
            36,
        )

    def test_what_is_wrong_is_told(self, model):
        with pytest.raises(ValueError, match="k is the number of demos, at least 1, not 0"):
            nn.Neighbours(ROWS, k=0)
        for k in ("3", 2.5, True):
            with pytest.raises(TypeError, match="k is the number of demos, a whole number, not"):
                nn.Neighbours(ROWS, k)

        async def remote(texts):
            return [[1.0] for _ in texts]

        for vectorizer in (remote, "ngrams"):
            with pytest.raises(TypeError, match="a vectorizer is a plain function"):
                nn.Neighbours(ROWS, 1, vectorizer)
        with pytest.raises(DataError, match="with marked inputs"):
            nn.Neighbours([pg.Example(question="a", answer="b")])
        with pytest.raises(ValueError, match="a vectorizer needs a name"):
            nn.Neighbours(ROWS, 1, lambda texts: [[1.0] for _ in texts])

        def one(texts):
            return [[1.0]]

        with pytest.raises(DataError, match="the vectorizer 'one' gave 1 vectors for 72 texts"):
            nn.Neighbours(ROWS, 1, one).select({"question": "x"})


class TestStates:
    def test_it_is_saved_with_the_program_and_loaded(self, model, value, tmp_path):
        model.demos.data = value
        pg.save(model.state_dict(), tmp_path / "state.json")
        other = nn.Predict("question -> answer").to(model.lm)
        other.load_state_dict(pg.load(tmp_path / "state.json"))
        assert other.demos.data == value
        assert other(question="one saw?").answer == "tool"
        pg.save(model, tmp_path / "folder")
        folder = pg.load(tmp_path / "folder", nn.Predict("question -> answer"))
        assert folder.demos.data == value

    def test_a_vectorizer_of_your_own_is_given_again(self, model, monkeypatch):
        monkeypatch.setattr(_neighbours, "_vectorizers", dict(_neighbours._vectorizers))
        model.demos.data = nn.Neighbours(ROWS, 2, lengths)
        state = model.state_dict()
        assert state["demos"]["vectorizer"] == "lengths"
        other = nn.Predict("question -> answer")
        with pytest.raises(StateDictError, match=r"promptgrad\.nn\.register_vectorizer\('lengths', function\) before"):
            other.load_state_dict(state)
        nn.register_vectorizer("lengths", lengths)
        other.load_state_dict(state)
        assert other.demos.data == model.demos.data
        assert other.demos.data.vectorizer is lengths
        with pytest.raises(StateDictError, match="its selector 'magic' is not known here"):
            other.load_state_dict({**state, "demos": {**state["demos"], "selector": "magic"}})


class TestKNNFewShot:
    def test_it_trains_what_no_few_demos_can_show(self, model, tmp_path):
        rows = ROWS[::2] + ROWS[1::2]
        options = {"metric": metric, "run_dir": tmp_path / "run", "ship": "significant"}
        trainer = Trainer(model, optim.KNNFewShot(model.parameters()), **options)
        result = trainer.fit(rows[:36], rows[36:])
        assert result.outcome == "shipped"
        assert model.demos.data == result.values["demos"] == nn.Neighbours(rows[:36], 3)
        assert float(result.after) == 1.0
        assert "the 3 nearest of 36 training examples" in repr(result)
        again = nn.Predict("question -> answer").to(model.lm)
        resumed = Trainer.resume(tmp_path / "run", again, optim.KNNFewShot(again.parameters()), metric=metric)
        assert again.demos.data == model.demos.data
        assert (resumed.calls, resumed.lost) == (result.calls, 0)

    def test_cells_of_equal_selectors_are_not_bought_twice(self, model):
        calls = []

        def counted(messages):
            calls.append(1)
            return copying(messages)

        model.to(lm.FunctionLM(counted, name="counted"))
        evaluator = pg.evaluation.Evaluator(model, metric)
        values = [{"demos": nn.Neighbours(ROWS[::2], k)} for k in (2, 2, 3)]
        counts = []
        for laid in values:
            pg.aio.run(evaluator(laid, ROWS[1:10:2], 0))
            counts.append(len(calls))
        assert counts == [5, 5, 10]

    def test_another_search_goes_on_from_it(self, model):
        model.demos.data = start = nn.Neighbours(ROWS[:40], 1)
        opt = optim.MIPRO([model.demos], num_demo_sets=2, num_trials=4, minibatch_size=8)
        result = Trainer(model, opt, metric=metric, seed=0).fit(ROWS[::2], ROWS[1::2])
        assert any("demos" in trial.candidate.values for trial in result.history)
        assert result.outcome != "shipped"
        assert model.demos.data is start

    def test_what_is_wrong_is_refused_where_it_is_made(self, model):
        with pytest.raises(ValueError, match="a vectorizer needs a name"):
            optim.KNNFewShot(model.parameters(), vectorizer=lambda texts: [[1.0] for _ in texts])
        with pytest.raises(TypeError, match="k is the number of demos, a whole number, not '3'"):
            optim.KNNFewShot(model.parameters(), k="3")

    def test_another_vectorizer_and_number(self, model):
        opt = optim.KNNFewShot(model.parameters(), 1, lengths, exclude_same=False)
        assert (opt.config()["k"], opt.config()["vectorizer"], opt.config()["exclude_same"]) == (1, "lengths", False)
        Trainer(model, opt, metric=lambda example, output: True, seed=0)
        assert opt.expected_calls(None) == []
        with pytest.raises(ValueError, match="at least 1, not 0"):
            optim.KNNFewShot(model.parameters(), 0)

    def test_data_without_the_fields_of_a_module(self, model):
        rows = [row.with_inputs("question").without("answer").copy(label=row.answer) for row in ROWS]
        trainer = Trainer(model, optim.KNNFewShot(model.parameters()), metric=lambda example, output: False)
        with pytest.raises(DataError, match="no training example has the fields of a module with demos") as caught:
            trainer.fit(rows[:30], rows[30:])
        for said in ("The examples have question, label;", "(question -> answer)", "optim.BootstrapFewShot makes"):
            assert said in str(caught.value)
