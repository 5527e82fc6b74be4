"""`AuxLoss`: losses about the calls of one module in the middle of a forward, and feedback by module."""

import asyncio

import pytest

import promptgrad as pg
from promptgrad import metrics, nn, optim
from promptgrad.data import Example
from promptgrad.errors import InputError, LMTimeoutError, MetricError
from promptgrad.testing import Fields

LIBRARY = {"paris": "Paris, capital of France", "lyon": "Lyon, on the Rhone", "rome": "Rome, capital of Italy"}


class Hop(nn.Module):
    """Two searches, then an answer; with `quick`, an answer at once."""

    def __init__(self):
        super().__init__()
        self.query = nn.Predict("question, notes: list[str] -> query", instruction="Ask.")
        self.search = pg.op(lambda query: [LIBRARY[query]], kind="retriever")
        self.finish = nn.ModuleDict({"answer": nn.Predict("question, notes: list[str] -> answer", instruction="Say.")})

    def forward(self, question):
        notes = []
        if "quick" not in question:
            for _ in range(2):
                notes += self.search(self.query(question=question, notes=notes).query)
        return self.finish["answer"](question=question, notes=notes)


class Blames:
    """A critic that repeats what it hears."""

    def __init__(self):
        self.asked = []

    async def critique(self, failure):
        self.asked.append((failure.node.path, failure.node.index))
        return {target.name: " & ".join(failure.feedback) for target in failure.targets}


def example(question, answer="Rome", sources=("Rome",)):
    return Example(question=question, answer=answer, sources=list(sources)).with_inputs("question")


@pytest.fixture
def model(scripted):
    def answer(question, notes, query=None):
        if question == "down" and "Lyon" in notes:
            raise LMTimeoutError("no answer")
        return {"query": "lyon" if notes == "[]" else "paris", "answer": "Paris"}

    return Hop().to(scripted(answer))


recall = metrics.recall(field="sources")
right = metrics.exact_match(field="answer")


class TestRows:
    def test_each_call_is_a_row_about_what_it_returned(self, model):
        batch = [example("capital of Italy?", sources=("Rome", "Paris")), example("quick")]
        loss = nn.AuxLoss("search", recall)(model.map(batch), batch)
        assert [(row.node.path, row.node.index, row.output, row.score) for row in loss.rows] == [
            ("search", 0, ["Lyon, on the Rhone"], 0.0),
            ("search", 1, ["Paris, capital of France"], 0.5),
        ]
        assert [row.feedback for row in loss.rows] == [
            "not found, of the sources: Rome; Paris",
            "not found, of the sources: Rome",
        ]
        assert loss.item() == 0.75
        assert {row.example.question for row in loss.rows} == {"capital of Italy?"}, "no call, no row"

    @pytest.mark.parametrize("as_op", [False, True])
    def test_a_call_that_was_cancelled_is_no_row(self, as_op):
        async def slowly(question):
            await asyncio.sleep(60)

        class Race(nn.Module):
            def __init__(self):
                super().__init__()
                self.first = nn.Predict("question -> answer").to(pg.lm.FunctionLM(Fields(answer="Rome")))
                self.second = pg.op(slowly) if as_op else nn.Predict("question -> answer").to(pg.lm.FunctionLM(slowly))

            async def forward(self, question):
                calls = [asyncio.ensure_future(step.acall(question=question)) for step in (self.first, self.second)]
                await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
                calls[1].cancel()
                await asyncio.gather(*calls, return_exceptions=True)
                return calls[0].result()

        batch = [example("q")]
        output = Race().map(batch)
        assert len(nn.AuxLoss("first", right)(output, batch)) == 1
        assert len(nn.AuxLoss("second", right)(output, batch)) == 0

    def test_the_last_call_only(self, model):
        batch = [example("capital of France?", sources=("Paris",))]
        assert nn.AuxLoss("search", recall, which="last")(model.map(batch), batch).items == (0.0,)
        with pytest.raises(ValueError, match="'all' or 'last'"):
            nn.AuxLoss("search", recall, which="first")

    @pytest.mark.parametrize("about", [lambda m: m.finish["answer"], lambda m: "finish.answer"])
    def test_a_predict_is_scored_on_its_prediction(self, model, about):
        def brief(example, output):
            assert isinstance(output, nn.Prediction)
            return pg.Score(len(output.answer) < 5, feedback="at most four letters")

        batch = [example("capital of Italy?")]
        (row,) = nn.AuxLoss(about(model), brief)(model.map(batch), batch).rows
        assert (row.score, row.feedback, row.node.path) == (0.0, "at most four letters", "finish.answer")

    def test_one_output_or_a_list_of_them(self, model):
        one = example("capital of Italy?")
        aux = nn.AuxLoss("search", recall)
        assert len(aux(model(question=one.question), one)) == 2
        assert len(aux([model(question=one.question)], [one])) == 2

    def test_rollouts_keep_their_number(self, model):
        batch = [example("capital of Italy?")]
        loss = nn.AuxLoss("search", recall)(model.map(batch, n=2), batch)
        assert [(row.replicate, row.node.index) for row in loss.rows] == [(0, 0), (0, 1), (1, 0), (1, 1)]

    def test_nothing_is_seen_where_nothing_is_recorded(self, model):
        batch = [example("capital of Italy?")]
        with pg.no_grad():
            assert len(nn.AuxLoss("search", recall)(model.map(batch), batch)) == 0

    def test_a_call_that_raised_is_an_error_row_and_those_before_it_count(self, model):
        batch = [example("down")]
        loss = nn.AuxLoss("query", lambda example, output: 1.0)(model.map(batch), batch)
        assert [type(row.error) for row in loss.rows] == [type(None), LMTimeoutError]
        assert loss.item() == 0.0

    def test_an_op_that_is_no_part_of_the_program(self, scripted):
        @pg.op
        def shout(text):
            return text.upper()

        class Loud(nn.Module):
            def __init__(self):
                super().__init__()
                self.say = nn.Predict("question -> word")

            def forward(self, question):
                return shout(self.say(question=question).word)

        model = Loud().to(scripted(lambda question: {"word": "cat"}))
        for about in (shout, "shout"):
            (row,) = nn.AuxLoss(about, lambda example, output: 0.0)(model.map(["x"]), ["x"]).rows
            assert row.output == "CAT"


class TestNames:
    def test_a_program_without_modules_inside_says_so(self, scripted):
        bare = nn.Predict("question -> answer").to(scripted(lambda question: {"answer": "Rome"}))
        batch = [example("q")]
        with pytest.raises(InputError, match="Predict has no module 'nope': it has no modules inside"):
            nn.AuxLoss("nope", right)(bare.map(batch), batch)
        assert nn.AuxLoss("", right)(bare.map(batch), batch).item() == 0

    @pytest.mark.parametrize(
        ("about", "said"),
        [
            ("serch", "Hop has no module 'serch': did you mean 'search'?"),
            ("zzz", "Hop has no module 'zzz': it has query, search, finish.answer"),
            ("finish", "the calls of finish (ModuleDict) itself are not recorded, only those of the modules in it: "),
            (nn.Predict("a -> b"), "this AuxLoss is about a Predict that is not part of Hop"),
        ],
    )
    def test_a_module_that_is_not_there(self, model, about, said):
        batch = [example("capital of Italy?")]
        with pytest.raises(InputError) as caught:
            nn.AuxLoss(about, recall)(model.map(batch), batch)
        assert str(caught.value).startswith(said)

    def test_something_else(self):
        with pytest.raises(TypeError, match="a module or the path of one"):
            nn.AuxLoss(recall, "search")

    def test_it_holds_no_parameter_of_the_program(self, model):
        aux = nn.AuxLoss(model.query, recall)
        assert not {*aux.parameters()} & {*model.parameters()}
        assert repr(aux).startswith("AuxLoss(Predict, recall(field='sources')")
        assert repr(nn.AuxLoss("search", recall)).startswith("AuxLoss('search', recall(field='sources')")


class TestBackward:
    def test_alone_it_blames_from_the_call_on_backwards(self, model):
        batch = [example("capital of Italy?")]
        critic = Blames()
        report = nn.AuxLoss("search", recall, critic, which="last")(model.map(batch), batch).backward()
        assert critic.asked == [("query", 1), ("query", 0)], "what came after the call is not asked"
        assert model.finish["answer"].instruction.grad is None
        assert report.failed == 1
        heard = model.query.instruction.grad.critiques[-1].text
        assert heard.startswith("the search for 'paris' did not find what was needed: not found, of the sources: Rome")

    def test_with_the_main_loss_it_costs_no_further_call(self, model):
        batch = [example("capital of Italy?")]
        main = nn.MetricLoss(right, critic=Blames())
        outputs = model.map(batch)
        alone = main(outputs, batch).backward(retain_graph=True).calls
        loss = main(outputs, batch) + 0.3 * nn.AuxLoss("search", recall)(outputs, batch)
        assert loss.item() == pytest.approx(1.3)
        assert loss.items == pytest.approx((1, 0.3, 0.3))
        assert loss.backward().calls == alone == 3
        told = str(loss.explain())
        assert "search[1] scored 0 of 1 with ['Paris, capital of France']" in told
        assert "the same forward as row 0: see there" in told

    def test_a_forward_that_is_right_may_fail_on_the_way(self, model):
        batch = [example("capital of France?", answer="Paris", sources=("Paris",))]
        outputs = model.map(batch)
        critic = Blames()
        loss = nn.MetricLoss(right)(outputs, batch) + nn.AuxLoss("search", recall, critic)(outputs, batch)
        loss.backward()
        assert critic.asked == [("query", 0)]
        assert [t.score for t in model.finish["answer"].demos.grad.traces] == [1.0]

    def test_a_module_that_was_never_called_adds_nothing(self, model):
        batch = [example("quick"), example("quick, too")]
        outputs = model.map(batch)
        aux = nn.AuxLoss("search", recall)(outputs, batch)
        loss = nn.MetricLoss(right, Blames())(outputs, batch) + 0.3 * aux
        assert (len(aux), loss.item()) == (0, 1.0)
        assert loss.backward().calls == 2

    def test_a_gated_step_is_measured_without_it(self, model, scripted):
        batch = [example(f"{name}?") for name in "abcdefgh"]
        words = {"new_instruction": "Answer Rome.", "critique": "It is Rome.", "critique_of_notes": "no"}

        def answer(**inputs):
            done = "Answer Rome." in model.finish["answer"].instruction.data
            return {"query": "lyon", "answer": "Rome" if done else "Paris", **words}

        model.to(scripted(answer))
        main, aux = nn.MetricLoss(right), nn.AuxLoss("search", recall)
        opt = optim.TGD([model.finish["answer"].instruction], lm=scripted(lambda **_: words))

        def closure():
            outputs = model.map(batch)
            return main(outputs, batch) + 0.3 * aux(outputs, batch)

        loss = closure()
        loss.backward(engine="local")
        report = opt.step(closure, loss=loss)
        assert (report.gate.pairs, report.gate.before, report.gate.after) == (8, 0.0, 1.0)
        assert report.gate.accepted


class TestModuleFeedback:
    def criterion(self, critic, said):
        return nn.MetricLoss(lambda example, output: pg.Score(0.0, feedback="wrong", module_feedback=said), critic)

    @pytest.mark.parametrize(
        ("said", "hears"),
        [
            ("ask for Italy", [1]),
            (["ask for Italy", ""], [0]),
            (["", "ask for Italy"], [1]),
            (["ask for Italy"] * 2, [1, 0]),
        ],
    )
    def test_it_goes_to_the_calls_of_the_module(self, model, said, hears):
        batch = [example("capital of Italy?")]
        heard = []

        class Hears:
            async def critique(self, failure):
                heard.append((failure.node.path, failure.node.index, failure.feedback))
                return {"instruction": "x"}

        loss = self.criterion(Hears(), {"query": said})(model.map(batch), batch)
        assert "feedback for query: ask for Italy" in str(loss.explain())
        loss.backward()
        assert heard[0] == ("finish.answer", 0, ("wrong",))
        assert heard[1:] == [("query", index, ("ask for Italy",)) for index in hears]

    def test_a_score_of_zero_keeps_it(self, model):
        batch = [example("quick")]
        (row,) = self.criterion(None, {"finish.answer": "be right"})(model.map(batch), batch).rows
        assert row.module_feedback == {"finish.answer": "be right"}

    def test_a_module_that_was_not_called_hears_nothing(self, model):
        batch = [example("quick")]
        critic = Blames()
        self.criterion(critic, {"query": "ask for Italy"})(model.map(batch), batch).backward()
        assert critic.asked == [("finish.answer", 0)]

    def test_a_module_that_is_not_there_is_an_error_row_that_names_the_nearest(self, model):
        batch = [example("a"), example("b")]

        def metric(example, output):
            said = {"qery": "x"} if example.question == "a" else {"query": "x"}
            return pg.Score(0.0, module_feedback=said)

        loss = nn.MetricLoss(metric)(model.map(batch), batch)
        assert len(loss.errors) == 1
        assert "Hop has no module 'qery': did you mean 'query'?" in str(loss.errors[0].error)
        with pytest.raises(MetricError, match="did you mean 'query'"):
            nn.MetricLoss(metric)(model.map(batch[:1]), batch[:1])
