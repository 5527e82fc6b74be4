"""A kind of parameter is one class: whatever the package does with parameters it asks the kind."""

import copy
import json
import pickle
import re
from pathlib import Path

import pytest

import promptgrad as pg
from promptgrad import Parameter, Trainer, lm, nn, optim
from promptgrad.autograd import Kind, as_kind, candidate, kinds_of, register_kind
from promptgrad.errors import ConstraintError, StateDictError
from promptgrad.run import value_digest

PACKAGE = Path(pg.__file__).parent
OURS = ("instruction", "demos", "description", "choice", "solution")


class Playbook(Kind):
    """Lines of advice, each of which can be changed alone."""

    trained = True

    def normal(self, value, options=None):
        if isinstance(value, str) or not all(isinstance(line, str) for line in value):
            raise ValueError("a playbook is a sequence of lines")
        return tuple(value)

    def shape(self, value):
        return (len(value),)

    def numel(self, value):
        return sum(len(line.split()) for line in value)

    def show(self, value):
        return f"{len(value)} lines"

    def to_json(self, value, write):
        return {"lines": list(value)}

    def from_json(self, value, read):
        if "lines" not in value:
            raise ValueError("it has no lines")
        return value["lines"]


class Policy(Kind):
    """A text with a rule of its own: it ends with a full stop."""

    trained = True
    is_text = True

    def normal(self, value, options=None):
        if not value.endswith("."):
            raise ValueError("a policy ends with a full stop")
        return str(value)


@pytest.fixture(autouse=True)
def kinds(monkeypatch):
    from promptgrad.autograd import _kind

    monkeypatch.setattr(_kind, "_kinds", dict(_kind._kinds))
    return register_kind(Playbook("playbook")), register_kind(Policy("policy"))


class Program(nn.Module):
    def __init__(self, lines=("Say it.",)):
        super().__init__()
        self.playbook = Parameter(lines, "playbook")
        self.policy = Parameter("Be brief.", "policy")
        self.solve = nn.Predict("advice, question -> answer")

    def forward(self, question):
        return self.solve(advice="\n".join([*self.playbook.data, str(self.policy)]), question=question)


def answer(messages):
    good = "Shout it." in messages[-1].content
    return pg.testing.Fields(answer="yes" if good else "no")(messages)


@pytest.fixture
def model():
    return Program().to(lm.FunctionLM(answer, name="advised"))


def metric(example, output):
    return output.answer == example.answer


DATA = [pg.Example(question=f"number {number}", answer="yes").with_inputs("question") for number in range(40)]


class Lines(optim.Search):
    """Tries another line in each playbook."""

    kinds = ("playbook",)

    async def fit(self, session):
        for place in session.places(self.kinds):
            value = (*session.value(place.path), "Shout it.")
            candidate = session.base.child({place.path: value}, "one more line")
            session.offer(await session.evaluate(candidate, session.val, scope=f"line/{place.path}"))


class TestTheKindsThatThereAre:
    def test_a_kind_is_its_name(self):
        for name in OURS:
            kind = as_kind(name)
            assert (kind, json.dumps(kind), {kind: 1}[name], repr(kind)) == (name, f'"{name}"', 1, repr(name))
            assert pickle.loads(pickle.dumps(kind)) is copy.deepcopy(kind) is kind
        assert kinds_of()[:5] == OURS

    def test_their_traits(self):
        assert [kind for kind in kinds_of()[:5] if kind.trained] == ["instruction", "demos", "solution"]
        assert kinds_of(["is_text"]) == ("instruction", "description", "solution", "policy")
        assert kinds_of(["exact", "demos"]) == ("demos", "solution")
        assert not any(getattr(as_kind("input"), trait) for trait in ("is_text", "is_demos", "exact", "has_options"))

    def test_nobody_asks_for_a_name_where_a_trait_is_meant(self):
        compared = re.compile(rf"kind\b[^\n]{{0,12}}(?:==|!=|\bin\b) *\(?\"(?:{'|'.join(OURS)})\"")
        found = [
            f"{path.relative_to(PACKAGE)}: {line.strip()}"
            for path in sorted(PACKAGE.rglob("*.py"))
            for line in path.read_text().splitlines()
            if compared.search(line) and "`" not in line
        ]
        assert found == []


class TestAKindOfYourOwn:
    def test_a_parameter_of_it(self, model):
        parameter = model.playbook
        assert (parameter.data, parameter.kind, parameter.shape, parameter.numel()) == (
            ("Say it.",),
            "playbook",
            (1,),
            2,
        )
        assert parameter.requires_grad
        assert repr(parameter) == "Parameter(playbook, 1 lines, requires_grad=True)"
        with pytest.raises(ConstraintError, match=r"playbook cannot be 'Say it\.': a playbook is a sequence of lines"):
            parameter.data = "Say it."
        assert parameter.data == ("Say it.",)

    def test_a_candidate_is_laid_over_it(self, model):
        with candidate({model.playbook: ["Shout it."]}):
            assert model(question="a").answer == "yes"
        with model.candidate({"playbook": ["Shout it."]}):
            assert model(question="a").answer == "yes"
        assert model(question="a").answer == "no"
        with pytest.raises(ConstraintError, match="a sequence of lines"):
            candidate({model.playbook: "Shout it."})

    def test_it_is_saved_and_loaded(self, model, tmp_path):
        model.playbook.data = ["One.", "Two."]
        state = model.state_dict()
        assert (state["playbook"], state["_meta"]["kinds"]["playbook"]) == ({"lines": ["One.", "Two."]}, "playbook")
        pg.save(state, tmp_path / "state.json")
        other = Program()
        other.load_state_dict(pg.load(tmp_path / "state.json"))
        assert other.playbook.data == ("One.", "Two.")
        with pytest.raises(StateDictError, match="playbook: it has no lines"):
            other.load_state_dict({**state, "playbook": {}})
        with pytest.raises(StateDictError, match="is of kind demos in the state and of kind playbook here"):
            other.load_state_dict({**state, "_meta": {**state["_meta"], "kinds": {"playbook": "demos"}}})

    def test_its_values_are_digested(self):
        assert value_digest({"playbook": ("a", "b")}) != value_digest({"playbook": ("a", "c")})
        assert optim.Candidate({"playbook": ("a", "b")}).key == optim.Candidate({"playbook": ("a", "b")}).key

    def test_it_is_trained_by_a_search_that_names_it(self, model, tmp_path):
        trainer = Trainer(model, Lines(model.parameters()), metric=metric, seed=0, run_dir=tmp_path / "run")
        result = trainer.fit(DATA[:10], DATA[10:])
        assert (result.outcome, result.values) == ("shipped", {"playbook": ("Say it.", "Shout it.")})
        resumed = Program().to(model.solve.lm)
        again = Trainer.resume(tmp_path / "run", resumed, Lines(resumed.parameters()), metric=metric)
        assert again.values == result.values

    def test_a_text_of_a_new_kind_is_rewritten_by_what_rewrites_texts(self, model):
        writer = lm.FunctionLM(pg.testing.Fields(new_instruction="Shout it."), name="writer")
        critic = lm.FunctionLM(pg.testing.Fields(to_blame="false", critique_of_advice="Say: shout it."), name="critic")
        opt = optim.TGD(model.parameters(), lm=writer)
        loss = nn.MetricLoss(metric, critic=critic)(model.map(DATA[:2]), DATA[:2])
        loss.backward(engine="local")
        assert [critique.target_kind for critique in model.policy.grad] == ["policy", "policy"]
        report = opt.step()
        assert {change.path: change.new for change in report.accepted} == {"policy": "Shout it."}
        assert report.skipped == ("playbook", "demos")

    def test_only_a_kind_with_a_name_of_its_own_is_registered(self):
        with pytest.raises(TypeError, match="register_kind takes a Kind"):
            register_kind("playbook")
        with pytest.raises(ValueError, match="the kind 'demos' is registered already"):
            register_kind(Playbook("demos"))
        for name in ("Two words", "is_text", "input", ""):
            with pytest.raises(ValueError, match="a word in lower case"):
                register_kind(Playbook(name))
        with pytest.raises(ValueError, match="unknown kind 'plan': a parameter is one of instruction, demos,"):
            Parameter("x", "plan")
