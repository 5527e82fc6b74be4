"""Objectives beside the score: what they cost is measured, the front is reported, and the decision is the score's."""

import json
import re

import pytest

import promptgrad as pg
from promptgrad import lm, nn, optim
from promptgrad.errors import MetricError, UnknownPriceError
from promptgrad.search import Candidate, Pareto
from promptgrad.testing import Fields
from promptgrad.train import ParetoFront, ParetoPoint

START = "right 4, words 20"


def obedient(request):
    """A simulated model: its instruction says how many of ten numbers it gets right, and how many words it spends."""
    right, words = map(int, re.findall(r"\d+", request.messages[0].content.split("\n")[0])[:2])
    number = int(re.findall(r"\d+", request.messages[-1].content)[0])
    answer = "yes" if number % 10 < right else "no"
    return f"[[ ## answer ## ]]\n{answer}\n\n[[ ## completed ## ]]\n" + "word " * words


class Program(nn.Module):
    def __init__(self):
        super().__init__()
        self.answer = nn.Predict("number: int -> answer", instruction=START)

    def forward(self, number):
        return self.answer(number=number)


class TwoCalls(Program):
    """The same after a call that is alike for all candidates."""

    def __init__(self):
        super().__init__()
        self.look = nn.Predict("number: int -> answer", instruction="right 9, words 80")

    def forward(self, number):
        self.look(number=number)
        return self.answer(number=number)


class Tries(optim.Search):
    """Measures given instructions on the validation data."""

    kinds = ("instruction",)

    def __init__(self, params, texts):
        super().__init__(params)
        self.texts = texts

    async def fit(self, session):
        for number, text in enumerate(self.texts):
            candidate = session.base.child({"answer.instruction": text}, text)
            measured = await session.evaluate(candidate, session.val, scope=f"try/{number}")
            session.trial(measured)
            session.offer(measured)

    def expected_calls(self, plan):
        return [("tries", len(self.texts) * plan.val, True)]


def yes(example, output):
    return pg.Score(output.answer == "yes", parts={"brief": 1 / (1 + len(output.reply) / 100)})


def data(first=0, count=40):
    return [pg.Example(number=number).with_inputs("number") for number in range(first, first + count)]


def fitted(*texts, objectives=("tokens",), metric=yes, model=None, **options):
    model = model or Program().to(lm.FunctionLM(obedient, "obedient"))
    trainer = pg.Trainer(
        model, Tries(model.parameters(), texts), metric=metric, seed=0, objectives=objectives, **options
    )
    return model, trainer.fit(data(100, 4), data())


GOOD, CHEAP, WORSE, MIDDLE = "right 9, words 400", "right 1, words 1", "right 1, words 300", "right 8, words 60"


class TestTheReport:
    def test_it_has_what_none_beats_and_its_knee(self):
        model, result = fitted(GOOD, CHEAP, WORSE, MIDDLE)
        front = result.pareto
        assert [point.candidate.origin for point in front] == [GOOD, MIDDLE, "start", CHEAP]
        assert front.dominated == 1
        assert front.knee.candidate.origin == MIDDLE
        assert front.start.candidate.origin == "start"
        tokens = [point.values["tokens"] for point in front]
        assert tokens == sorted(tokens, reverse=True)
        assert [point.chance is None for point in front] == [False, False, True, False]
        assert re.search(r"knee +0\.\d+ +\d+ +\d+ +\d+% +right 8, words 60", repr(front))
        assert "knee" in repr(result)
        assert json.loads(json.dumps(front.to_dict()))["points"][1]["knee"] is True
        assert model.answer.instruction.data == GOOD  # what ships is decided by the score

    def test_the_knee_is_a_program_whatever_shipped(self):
        model, result = fitted(GOOD, CHEAP, MIDDLE)
        assert result.shipped
        knee = result.at_knee()
        assert (knee.answer.instruction.data, model.answer.instruction.data) == (MIDDLE, GOOD)
        start = result.pareto.program(result.pareto.start)
        assert start.answer.instruction.data == START  # and not the text that was installed
        assert knee(number=7).answer == "yes"

    def test_parts_are_objectives_too(self):
        _, result = fitted(GOOD, CHEAP, objectives={"brief": "max"})
        assert [point.candidate.origin for point in result.pareto] == [GOOD, "start", CHEAP]
        values = [point.values["brief"] for point in result.pareto]
        assert values == sorted(values)

    def test_the_score_of_a_candidate_is_shrunken_and_the_start_is_as_measured(self):
        _, result = fitted(GOOD)
        best, start = result.pareto
        measured = {trial.note or trial.candidate.origin: trial.score for trial in result.history}
        assert start.values["score"] == measured["baseline"]
        assert start.values["score"] < best.values["score"] < measured[GOOD]

    def test_without_objectives_there_is_none(self):
        _, result = fitted(GOOD, objectives=())
        assert result.pareto is None
        with pytest.raises(RuntimeError, match="pass Trainer\\(objectives="):
            result.at_knee()


class TestCosts:
    def test_they_are_of_the_program_alone(self):
        judge = nn.Judge("yes", lm=lm.FunctionLM(Fields(score="0.5", feedback="so so"), "judge"))
        _, result = fitted(GOOD, metric=judge, objectives=["calls", "output_tokens"], judge_rows=0)
        assert result.pareto.start.values["calls"] == 1
        assert 20 < result.pareto.start.values["output_tokens"] < 60

    def test_a_cache_makes_no_candidate_cheap(self):
        def run(wrap):
            model = TwoCalls().to(wrap(lm.FunctionLM(obedient, "obedient")))
            return fitted(GOOD, CHEAP, MIDDLE, model=model)[1]

        plain, cached = run(lambda one: one), run(lm.Cache)
        assert set(cached.pareto.objectives) == {"score", "tokens"}
        assert [dict(point.values) for point in cached.pareto] == [dict(point.values) for point in plain.pareto]

    def test_replies_whose_cost_is_not_known_are_left_out(self):
        cache = lm.Cache(lm.FunctionLM(obedient, "obedient"))
        model = Program().to(cache)
        for row in data():
            with lm.context(replicate=0):
                model(**row.inputs())  # paid for before the run
        _, result = fitted(GOOD, model=model, objectives=["tokens", "calls"])
        assert list(result.pareto.objectives) == ["score", "calls"]

    def test_a_resumed_run_has_the_same_seconds(self, tmp_path):
        model, first = fitted(GOOD, CHEAP, objectives=["seconds", "usd"], run_dir=tmp_path)
        opt = Tries(model.parameters(), [GOOD, CHEAP])
        again = pg.Trainer.resume(tmp_path, model, opt, yes)
        assert again.spent.sent == 0
        assert again.pareto.to_dict() == first.pareto.to_dict()
        assert again.pareto.start.values["seconds"] > 0
        usages = [
            event["usage"]
            for event in pg.run.Journal(tmp_path / "journal.jsonl", readonly=True).events()
            if event["kind"] == "cell"
        ]
        assert all(usage["tokens"] > 0 and usage["seconds"] > 0 for usage in usages)

    def test_a_run_that_was_cut_keeps_the_seconds_of_the_replies_that_it_has(self, tmp_path):
        _, first = fitted(GOOD, CHEAP, objectives=["seconds", "tokens"], run_dir=tmp_path)
        journal = tmp_path / "journal.jsonl"
        lines = journal.read_text().splitlines(keepends=True)
        paid = [number for number, line in enumerate(lines) if json.loads(line)["kind"] == "call"]
        journal.write_text("".join(lines[: paid[60]]))  # the start is measured, and half of the first candidate
        model = Program().to(lm.FunctionLM(obedient, "obedient"))
        again = pg.Trainer.resume(tmp_path, model, Tries(model.parameters(), [GOOD, CHEAP]), yes)
        assert (again.spent.replayed, again.spent.sent) == (60, first.spent.calls - 60)
        assert again.pareto.start.values == first.pareto.start.values

    def test_a_pool_keeps_the_best_on_each_objective(self):
        class Pools(Tries):
            async def fit(self, session):
                pool = await Pareto.of(session)
                cheap = session.base.child({"answer.instruction": CHEAP}, "cheap")
                pool.add(await session.evaluate(cheap, session.val, scope="cheap"))
                fronts.update(pool.fronts())

        fronts = {}
        model = Program().to(lm.FunctionLM(obedient, "obedient"))
        pools = Pools(model.parameters(), [])
        pg.Trainer(model, pools, metric=yes, seed=0, objectives=["tokens", "brief"]).fit(data(100, 4), data())
        assert [member.candidate.origin for member in fronts["objective tokens"]] == ["cheap"]
        assert [member.candidate.origin for member in fronts["objective brief"]] == ["cheap"]


class TestMistakes:
    @pytest.mark.parametrize(
        ("given", "error", "words"),
        [
            ({"tokens": "low"}, ValueError, "is 'max' or 'min', not 'low'"),
            ({"score": "min"}, ValueError, "higher is better"),
            ("tokens", TypeError, "names with directions"),
            ({3: "min"}, TypeError, "is text"),
        ],
    )
    def test_directions_are_checked_before_anything_runs(self, given, error, words):
        with pytest.raises(error, match=words):
            fitted(GOOD, objectives=given)

    def test_a_name_that_nothing_has_is_told_after_the_start(self):
        with pytest.raises(MetricError, match=r"'tokns' is none of calls, .* the parts of the scores \(brief\)"):
            fitted(GOOD, objectives={"tokns": "min"})

    def test_money_needs_a_price(self):
        class Unpriced(lm.FunctionLM):
            async def _send(self, request, key):
                reply = await super()._send(request, key)
                return lm.Completion(reply.text, lm.Usage(1, 10, 10, None), "unpriced")

        with pytest.raises(UnknownPriceError, match="take 'tokens' in place of 'usd'"):
            fitted(GOOD, objectives=["usd"], model=Program().to(Unpriced(obedient, "unpriced")))


def points(*values, names=("score", "tokens")):
    return [
        ParetoPoint(Candidate({"p": str(n)}, f"c{n}"), dict(zip(names, row, strict=True)), 40)
        for n, row in enumerate(values)
    ]


class TestTheFront:
    def test_equal_candidates_are_there_once(self):
        front = ParetoFront(points((0.5, 10), (0.5, 10), (0.5, 12)), {"score": "max", "tokens": "min"})
        assert [point.candidate.origin for point in front] == ["c0"]
        assert front.knee is front[0]

    @pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
    def test_who_is_beaten_is_not_on_it_whatever_the_order(self, order):
        rows = [(0.9, 50), (0.5, 50), (0.6, 20)]  # the second is beaten by both of the others
        front = ParetoFront(points(*(rows[place] for place in order)), {"score": "max", "tokens": "min"})
        assert [tuple(point.values.values()) for point in front] == [rows[0], rows[2]]
        assert front.dominated == 1

    def test_the_knee_is_farthest_from_the_line_through_the_extremes(self):
        front = ParetoFront(points((0.0, 0), (0.8, 20), (0.9, 60), (1.0, 100)), {"score": "max", "tokens": "min"})
        assert front.knee.candidate.origin == "c1"
        assert front.distance(front.knee) == pytest.approx((0.8 + 0.8 - 1) / 2**0.5)
        assert [round(front.distance(point), 9) for point in (front[0], front[-1])] == [0, 0]

    def test_of_two_the_better_score_is_the_knee(self):
        front = ParetoFront(points((0.2, 1), (0.9, 50)), {"score": "max", "tokens": "min"})
        assert front.knee.values["score"] == 0.9

    def test_three_objectives(self):
        names = ("score", "tokens", "style")
        rows = ((0.9, 90, 0.1), (0.2, 10, 0.1), (0.2, 90, 0.9), (0.7, 30, 0.7))
        front = ParetoFront(points(*rows, names=names), {"score": "max", "tokens": "min", "style": "max"})
        assert len(front) == 4
        assert front.knee.candidate.origin == "c3"
        assert front[1:2] == front.points[1:2]

    def test_it_needs_a_program_to_make_one(self):
        with pytest.raises(RuntimeError, match="holds no program"):
            ParetoFront(points((0.5, 10)), {"score": "max", "tokens": "min"}).program()
