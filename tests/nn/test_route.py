"""`nn.Route` and `pg.Choice`."""

import pickle

import pytest

import promptgrad as pg
from promptgrad import lm, nn, optim
from promptgrad.errors import ConstraintError, InputError, SignatureError


class Says(nn.Module):
    def __init__(self, text):
        super().__init__()
        self.text = text

    def forward(self, question):
        return self.text


def branches():
    return {"math": Says("four"), "facts": Says("Paris")}


class TestRoute:
    def test_a_language_model_chooses_among_the_names(self, scripted):
        route = nn.Route(branches(), "question -> topic").to(scripted(lambda question: {"topic": question}))
        assert route(question="facts") == "Paris"
        assert route(question="math") == "four"
        assert "`math`, `facts`" in route.router.render(question="?")[0]["content"]

    def test_a_module_or_a_function_chooses(self):
        assert nn.Route(branches(), Says(" Facts "))("q") == "Paris"
        assert nn.Route(branches(), lambda question: "math" if "+" in question else "facts")(question="1+1") == "four"

    def test_a_name_that_is_none(self):
        with pytest.raises(InputError, match="chose 'poems', and the branches are math, facts"):
            nn.Route(branches(), Says("poems"))("q")
        assert nn.Route(branches(), Says("poems"), default="facts")("q") == "Paris"

    def test_each_gets_the_inputs_that_it_takes(self, scripted):
        model = scripted(lambda **inputs: {"topic": "a", "answer": " ".join(sorted(inputs))})
        route = nn.Route(
            {"a": nn.Predict("question, context -> answer"), "b": nn.Predict("question -> answer")},
            "question -> topic",
        ).to(model)
        assert route.input_names() == ("question", "context")
        assert route(question="q", context="c").answer == "context question"

    def test_what_it_takes_is_checked(self):
        with pytest.raises(ValueError, match="at least two branches"):
            nn.Route({"a": Says("x")})
        with pytest.raises(TypeError, match="mapping"):
            nn.Route([Says("x"), Says("y")])
        with pytest.raises(ValueError, match="is none of the branches"):
            nn.Route(branches(), default="c")
        with pytest.raises(SignatureError):
            nn.Route(branches(), "question")

    @pytest.mark.parametrize(
        "optimizer",
        [
            lambda params: optim.MIPRO(params, num_candidates=0, num_demo_sets=0, num_trials=4, minibatch_size=8),
            lambda params: optim.Auto(params, steps=3),
        ],
    )
    def test_optimizers_search_the_branch(self, optimizer):
        cases = [pg.Example(question=f"q{n}", answer="Paris").with_inputs("question") for n in range(32)]
        route = nn.Route(branches())

        def metric(example, output):
            return float(output == example.answer)

        assert route("q") == "four"
        pg.Trainer(route, optimizer(route.parameters()), metric=metric, progress=False).fit(cases[:8], cases[8:])
        assert route.choice.data == "facts"
        other = nn.Route(branches())
        other.load_state_dict(route.state_dict())
        assert other("q") == "Paris"


class TestChoice:
    def test_it_is_a_parameter_that_is_searched(self):
        style = pg.Choice(["short", "long"])
        assert (style.data, style.index, style.kind, style.requires_grad) == ("short", 0, "choice", True)
        style.data = "long"
        assert style.index == 1
        with pytest.raises(ConstraintError, match="not one of"):
            style.data = "medium"
        assert pg.Choice([None, 3], 3).data == 3
        assert not pg.Choice([1, 2], requires_grad=False).requires_grad

    def test_a_copy_is_another_parameter(self):
        style = pg.Choice(["short", "long"], "long")
        for other in (pickle.loads(pickle.dumps(style)), __import__("copy").deepcopy(style)):
            other.data = "short"
            assert style.data == "long"

    @pytest.mark.parametrize(
        ("options", "match"), [(["a"], "at least two"), (["a", "a"], "stands twice"), ("ab", "at least two")]
    )
    def test_what_is_no_choice_is_refused(self, options, match):
        with pytest.raises(ValueError, match=match):
            pg.Choice(options)

    def test_a_program_reads_it(self):
        class Styled(nn.Module):
            def __init__(self):
                super().__init__()
                self.style = pg.Choice(["short", "long"])
                self.answer = nn.Predict("question, style -> answer")

            async def forward(self, question):
                return await self.answer.acall(question=question, style=self.style.data)

        seen = []
        model = Styled().to(lm.FunctionLM(lambda m: seen.append(m[-1].content) or "[[ ## answer ## ]]\nx", name="s"))
        with model.candidate({"style": "long"}):
            model("q")
        assert "long" in seen[0]
