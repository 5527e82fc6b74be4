"""Looking is not reading: the library may look at a graph inside a forward; what the program reads is noted."""

import copy
import pickle
from dataclasses import dataclass

import pytest

import promptgrad as pg
from promptgrad import autograd, nn, viz
from promptgrad.autograd import LossRow, Program, Record, Sample, edges, to_json
from promptgrad.data import Example
from promptgrad.testing import Fields


class Aside(nn.Module):
    """Two calls; what the first one returns goes nowhere, so the second depends on it by order alone."""

    def __init__(self, look):
        super().__init__()
        self.first = nn.Predict("text -> word, score: int")
        self.second = nn.Predict("text -> answer")
        self.look = look

    def forward(self, text):
        aside = self.first(text=text)
        self.look(aside)
        return self.second(text=f"What of {text}?")


def kind_of_edge(look):
    """By what kind of edge the first call hangs together with the rest, and what counts as read of it."""
    model = Aside(look).to(pg.lm.FunctionLM(Fields(word="cat", score=3, answer="yes")))
    output = model(text="a wolf")
    tape = output.grad_fn.tape
    (edge,) = [edge for edge in edges(tape) if edge.source is tape.nodes[0]]
    return edge.kind, tape.nodes[0].touched


LOOKS = {
    "nothing": lambda aside: None,
    "graph": lambda aside: autograd.graph(aside),
    "graph of a list": lambda aside: autograd.graph([aside, {"in": aside}]),
    "drawing": lambda aside: viz.graph(aside).svg(),
    "edges": lambda aside: edges(aside.grad_fn.tape),
    "repr": repr,
    "json": to_json,
    "copy": lambda aside: (copy.copy(aside), copy.deepcopy(aside), pickle.loads(pickle.dumps(aside))),
    "row": lambda aside: LossRow(Example(text="x"), aside, 0.0).recorded,
    "usage and node": lambda aside: (aside.usage, aside.grad_fn, aside.messages, list(aside), len(aside)),
    "gradients": lambda aside: autograd.Loss([LossRow(None, aside, 1.0)]).gradients(retain_graph=True),
    "explanation": lambda aside: str(autograd.Loss([LossRow(None, aside, 0.0)]).explain()),
}


@pytest.mark.parametrize("look", LOOKS)
def test_looking_at_a_prediction_changes_no_edge(look):
    assert kind_of_edge(LOOKS[look]) == ("order", [])


READS = {
    "attribute": lambda aside: aside.score > 2,
    "key": lambda aside: aside["score"] > 2,
    "get": lambda aside: aside.get("score") > 2,
    "values": lambda aside: list(aside.values()),
    "items": lambda aside: dict(aside.items()),
    "splat": lambda aside: dict(**aside),
}


@pytest.mark.parametrize("read", READS)
def test_a_program_that_reads_a_field_is_a_router(read):
    kind, touched = kind_of_edge(READS[read])
    assert kind == "control"
    assert "score" in touched


def test_a_parameter_that_is_shown_inside_a_forward_is_not_read():
    class Shows(nn.Module):
        def __init__(self):
            super().__init__()
            self.note = pg.Parameter("be brief in all that you say")
            self.solve = nn.Predict("text -> answer")

        def forward(self, text):
            assert "be brief" in repr(self.note)
            assert repr(self)
            return self.solve(text=text)

    model = Shows().to(pg.lm.FunctionLM(Fields(answer="yes")))
    assert model(text="a wolf").grad_fn.tape.leaves == ()


class Looked(nn.Module):
    """Two calls, a text that only the program could read, and a look at all of it between the calls."""

    def __init__(self, look):
        super().__init__()
        self.note = pg.Parameter("be brief in all that you say")
        self.first = nn.Predict("text -> word, score: int")
        self.second = nn.Predict("text -> answer")
        self.register_buffer("aside", None)
        self.look = look

    def forward(self, text):
        self.aside = self.first(text=text)
        with autograd.record_reads() as self.log:
            self.look(self)
        return self.second(text=f"What of {text}?")


STATES = {
    "nothing": lambda model, folder: None,
    "state_dict": lambda model, folder: model.state_dict(),
    "state_dict of a part": lambda model, folder: model.second.state_dict(),
    "save": lambda model, folder: (pg.save(model, folder / "model"), pg.save(model, folder / "model.json")),
    "export": lambda model, folder: model.export(),
    "copy": lambda model, folder: copy.deepcopy(model),
    "parameters": lambda model, folder: [(name, repr(p), p.shape, p.numel()) for name, p in model.named_parameters()],
}


def graph_of(look):
    """What the look read, what the program counts as having read, and by what kind of edge the first call hangs on."""
    model = Looked(look).to(pg.lm.FunctionLM(Fields(word="cat", score=3, answer="yes")))
    tape = model(text="a wolf").grad_fn.tape
    names = dict(map(reversed, model.named_parameters()))
    kinds = [edge.kind for edge in edges(tape) if edge.source is tape.nodes[0]]
    looked = [names[read.parameter] for read in model.log.reads]
    return looked, [names[leaf.parameter] for leaf in tape.leaves], kinds, tape.nodes[0].touched


@pytest.mark.parametrize("look", STATES)
def test_looking_at_a_program_inside_its_forward_changes_no_edge(look, tmp_path):
    found = graph_of(lambda model: STATES[look](model, tmp_path))
    assert found == ([], [], ["order"], [])


@pytest.mark.parametrize("read", ["render", "messages"])
def test_a_rendered_prompt_is_read_since_a_program_may_branch_on_it(read):
    looked, leaves, *_ = graph_of(lambda model: getattr(model.second, read)(text="a wolf"))
    assert looked == ["second.demos", "second.instruction"]
    assert leaves == ["second.instruction"]


def test_what_fits_the_protocols():
    prediction = nn.Prediction(a=1)
    example = Example(q="1", a="2").with_inputs("q")
    assert isinstance(prediction, Record)
    assert prediction.__record__() == (None, {"a": 1})
    assert isinstance(example, Record)
    assert isinstance(example, Sample)
    assert isinstance(nn.Predict("q -> a"), Program)
    assert not isinstance({"a": 1}, (Record, Sample, Program))


def test_a_class_of_records_is_a_value_like_any_other():
    assert to_json(nn.Prediction) == str(nn.Prediction)
    assert list(autograd.graph(nn.Prediction).nodes) == []


@dataclass
class Task:
    question: str


@pytest.mark.parametrize(
    ("example", "identity", "given"),
    [
        (None, "", {}),
        ("what", "", {"input": "what"}),
        ({"q": "1", "a": "2"}, "", {"q": "1", "a": "2"}),
        (Task("what"), "", {"input": Task("what")}),
        (Example(q="1", a="2"), Example(q="1", a="2").id, {"q": "1", "a": "2"}),
        (Example(q="1", a="2").with_inputs("q"), Example(q="1", a="2").id, {"q": "1"}),
    ],
)
def test_any_value_can_be_an_example(example, identity, given):
    solution = pg.Parameter("x = 1", "solution")
    loss = nn.MetricLoss(lambda example, output: pg.Score(0, feedback="no"))(solution, example)
    assert loss.rows[0].example_id == identity
    loss.backward()
    assert solution.grad[0].evidence["inputs"] == given
    assert solution.grad[0].example_id == identity
