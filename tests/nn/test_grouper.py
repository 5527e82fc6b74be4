"""A language model says which critiques ask for the same."""

import asyncio
import json

import pytest

import promptgrad as pg
from promptgrad import nn
from promptgrad.autograd import Critique, Gradient, Trace
from promptgrad.errors import LMConnectionError, NoLMError
from tests.autograd.critiques import BY_DEFECT, FRESH, PARAPHRASES

DEFECT = {text: defect for by in (BY_DEFECT, FRESH) for defect, texts in by.items() for text in texts}


class Reader:
    """An LM that has understood every critique of the collection."""

    def __init__(self):
        self.asked = []

    def __call__(self, critiques):
        said = json.loads(critiques)
        self.asked.append(said)
        by_defect = {}
        for number, text in said.items():
            by_defect.setdefault(DEFECT[text], []).append(int(number))
        return {"groups": json.dumps(list(by_defect.values()))}


def gradient(texts, **more):
    return Gradient(Critique(str(number), "solve", 0, "instruction", text, **more) for number, text in enumerate(texts))


def test_paraphrases_become_one_critique_with_the_support_of_all(scripted):
    reader = Reader()
    grad = gradient(BY_DEFECT["unit"] + BY_DEFECT["not the unit"] + BY_DEFECT["unit"][:1])
    trace = Trace("1", "solve", 0, {"q": "1"}, {"a": "2"}, 1.0)
    found = nn.Grouper(scripted(reader))(grad + Gradient([trace]))
    assert [(critique.support, DEFECT[critique.text]) for critique in found.critiques] == [
        (5, "unit"),
        (2, "not the unit"),
    ]
    assert sorted(found.critiques[0].examples) == ["0", "1", "2", "3", "6"]
    assert found.traces == (trace,)
    assert len(reader.asked) == 1
    assert list(reader.asked[0]) == ["1", "2", "3", "4", "5", "6"]  # one of each wording
    assert found.cluster() == found


@pytest.mark.parametrize("by_defect", [BY_DEFECT, FRESH], ids=["known", "fresh"])
def test_each_defect_of_the_collection_is_one_critique_to_who_understands_them(scripted, by_defect):
    """What the words cannot: `Gradient.cluster` alone leaves every one of these apart."""
    grad = gradient([text for texts in by_defect.values() for text in texts])
    assert len(grad.cluster()) == len(grad)
    found = nn.Grouper(scripted(Reader()))(grad)
    assert {DEFECT[critique.text]: critique.support for critique in found.critiques} == {
        defect: len(texts) for defect, texts in by_defect.items()
    }


@pytest.mark.parametrize(("one", "other"), PARAPHRASES)
def test_the_same_in_other_words_meets_if_the_lm_says_so(scripted, one, other):
    grouper = nn.Grouper(scripted(lambda critiques: {"groups": "[[1, 2]]"}))
    assert [critique.support for critique in grouper(gradient([one, other])).critiques] == [2]


def test_each_target_of_a_module_is_compared_by_itself_and_one_wording_costs_nothing(scripted):
    reader = Reader()
    one, other = BY_DEFECT["unit"][:2]
    places = [("solve", "instruction"), ("solve", "description"), ("pick", "instruction")]
    grad = Gradient(Critique(text, path, 0, target, text) for path, target in places for text in (one, other))
    grad += Gradient([Critique("e", "last", 0, "instruction", one)] * 2)
    found = nn.Grouper(scripted(reader))(grad)
    assert len(reader.asked) == 3
    assert [(c.path, c.target, c.support) for c in found.critiques] == [(*place, 2) for place in places] + [
        ("last", "instruction", 1)
    ]


@pytest.mark.parametrize(
    ("groups", "supports"),
    [("[]", [1, 1, 1]), ("[[1, 2, 3]]", [3]), ("[[1, 2], [2, 3]]", [2, 1]), ("[[0, 1, 9], [3, 1]]", [1, 1, 1])],
)
def test_what_the_lm_leaves_out_is_by_itself_and_what_it_makes_up_is_nothing(scripted, groups, supports):
    grouper = nn.Grouper(scripted(lambda critiques: {"groups": groups}))
    found = grouper(gradient(["a b", "c d", "e f"]))
    assert [critique.support for critique in found.critiques] == supports


def test_it_is_awaited_too(scripted):
    found = asyncio.run(nn.Grouper(scripted(Reader())).acall(gradient(BY_DEFECT["unit"])))
    assert [critique.support for critique in found.critiques] == [4]


def test_it_asks_its_own_lm_else_the_critic_of_the_context_else_the_one_that_answered(scripted):
    own, ambient, answered = (scripted(Reader(), name=name) for name in ("own", "ambient", "answered"))
    grad = gradient(BY_DEFECT["unit"], lm=answered)
    grouper = nn.Grouper()
    grouper(grad)
    with pg.context(critic=ambient):
        grouper(grad)
        nn.Grouper(own)(grad)
    assert [len(lm.asked) for lm in (own, ambient, answered)] == [1, 1, 1]
    with pytest.raises(NoLMError, match=r"the grouper has no language model: nn.Grouper\("):
        grouper(gradient(BY_DEFECT["unit"]))


def test_an_lm_that_is_down_is_an_error():
    def down(request: pg.lm.Request):
        raise LMConnectionError("down")

    with pytest.raises(LMConnectionError):
        nn.Grouper(pg.lm.FunctionLM(down))(gradient(["a b", "c d"]))


def test_the_embedded_model_is_not_asked():
    pytest.importorskip("torch")
    grad = gradient(["name the animal", "name the color", "name the animal"])
    assert nn.Grouper("pocket")(grad) == grad.cluster()


def test_a_critic_compares_its_own_answers(scripted):
    said = iter(["name the unit", "a unit must stand there", "be brief"])

    def judge(critiques=None, **_):
        return {"critique": next(said)} if critiques is None else {"groups": "[[1, 2], [3]]"}

    worker, critic = scripted(lambda **_: {"answer": "Paris"}), scripted(judge, name="critic")
    model = nn.Predict("question -> answer").to(worker)
    batch = [pg.Example(question="q", answer="Rome").with_inputs("question")]
    loss = nn.MetricLoss(pg.metrics.exact_match, critic=nn.Critic(critic))(model.map(batch), batch)
    report = loss.backward(repeat=3)
    (critique,) = model.instruction.grad.critiques
    assert critique.agreement == pytest.approx(2 / 3)
    assert report.calls == len(critic.asked) == 4
