"""optim.Ensemble: what several runs found, called side by side."""

import pytest

import promptgrad as pg
from promptgrad import Trainer, nn, optim, run
from promptgrad.errors import GraphError
from promptgrad.metrics import exact_match

WAYS = ("base", "one", "two", "three")


class Noisy(nn.Module):
    """Right on two examples of five; in each other way on two of three, and wrong in a way of its own on the third."""

    def __init__(self):
        super().__init__()
        self.way = pg.Parameter("base", kind="choice", options=WAYS)
        self.way.requires_grad = True

    def forward(self, number):
        way = WAYS.index(self.way.data)
        right = number % 3 != way - 1 if way else number % 5 < 2
        return str(number) if right else f"{way} is wrong of {number}"


class OneOf(optim.Search):
    """Finds one of the ways, by chance."""

    kinds = ("choice",)

    def __init__(self, params, ways=WAYS[1:]):
        super().__init__(params)
        self.ways = ways

    async def fit(self, session):
        way = session.rng("way").choice(self.ways)
        measured = await session.evaluate(session.base.child({"way": way}, way), session.val, scope="way")
        session.trial(measured)
        session.offer(measured)

    def expected_calls(self, plan):
        return [("ways", plan.val, True)]


def rows(count, start=0):
    return [pg.Example(number=n, answer=str(n)).with_inputs("number") for n in range(start, start + count)]


def fit(model, opt, **options):
    trainer = Trainer(model, opt, metric=exact_match, **{"seed": 5, **options})
    return trainer.fit(rows(20), rows(120, 100), rows(60, 300))


def test_the_ensemble_is_better_than_each_of_its_members():
    model = Noisy()
    result = fit(model, optim.Ensemble(OneOf(model.parameters()), size=8))
    assert result.shipped
    assert isinstance(result.program, nn.Ensemble)
    assert model.way.data == "base"
    found = {member.way.data for member in result.program.members}
    assert found == set(WAYS[1:])
    right = [
        float(exact_match(row, output))
        for row, output in zip(rows(60, 300), result.program.map(rows(60, 300)), strict=True)
    ]
    alone = [trial.score for trial in result.history if trial.note == ""]
    assert sum(right) == 60
    assert max(alone) < 0.8
    assert (result.test_before.mean, result.test_after.mean) == (pytest.approx(0.4), 1.0)
    assert result.values == {f"members.{n}.way": member.way.data for n, member in enumerate(result.program.members)}
    assert len(result.candidate.parents) == 3
    assert "another program (Ensemble)" in repr(result)


def test_a_seed_repeats_it_and_ties_go_to_the_earlier_member():
    results = [fit(model := Noisy(), optim.Ensemble(OneOf(model.parameters()), size=8)) for _ in range(2)]
    assert results[0].values == results[1].values
    assert [t.score for t in results[0].history] == [t.score for t in results[1].history]
    two = fit(model := Noisy(), optim.Ensemble(OneOf(model.parameters(), WAYS[1:3]), size=6))
    voted = next(trial for trial in two.history if trial.note == "ensemble")
    members = voted.candidate.parents
    first = next(trial for trial in two.history if trial.candidate.key == members[0].key)
    assert voted.score == first.score  # of two that disagree the first is taken
    assert not isinstance(two.program, nn.Ensemble)  # as good as its first member, which costs half


def test_runs_that_find_the_same_or_nothing_have_no_member():
    model = Noisy()
    result = fit(model, optim.Ensemble(OneOf(model.parameters(), ("one",)), size=3))
    assert "1 of 3 runs found a member of its own: there is no ensemble" in result.notes
    assert result.program is model
    assert model.way.data == "one"


def test_a_run_that_found_something_worse_than_the_start_has_no_member():
    model = Noisy()
    model.way.data = "one"
    result = fit(model, optim.Ensemble(OneOf(model.parameters(), ("base",)), size=2))
    tried = [trial.candidate.origin for trial in result.history]
    assert tried == ["start", "base", "base"]
    assert "0 of 2 runs found a member of its own: there is no ensemble" in result.notes
    assert model.way.data == "one"


def test_nothing_more_is_tried_once_all_is_right():
    model = Noisy()
    data = [row for row in rows(200, 100) if row.number % 3]  # on which the way "one" is never wrong
    trainer = Trainer(model, optim.Ensemble(OneOf(model.parameters(), ("one",)), size=5), metric=exact_match, seed=5)
    result = trainer.fit(rows(20), data)
    assert [trial.candidate.origin for trial in result.history] == ["start", "one"]
    assert model.way.data == "one"


def test_any_reduce_function_and_saving(tmp_path):
    def last(outputs):
        return outputs[-1]

    model = Noisy()
    opt = optim.Ensemble(OneOf(model.parameters()), size=8, reduce=last)
    result = fit(model, opt)
    joined = next(trial.candidate for trial in result.history if trial.note == "ensemble")
    assert joined.origin.endswith("last of 3 members")
    assert joined.program.reduce is last
    best = nn.Ensemble([Noisy() for _ in range(3)])
    best.load_state_dict(fit(model := Noisy(), optim.Ensemble(OneOf(model.parameters()), size=8)).program.state_dict())
    pg.save(best, tmp_path / "best.json")
    assert pg.load(tmp_path / "best.json", nn.Ensemble([Noisy() for _ in range(3)]))(7) == "7"


def test_a_resumed_run_makes_the_same_program(tmp_path):
    model = Noisy()
    first = fit(model, optim.Ensemble(OneOf(model.parameters()), size=8), run_dir=tmp_path / "a")
    digest = run.Journal(tmp_path / "a" / "journal.jsonl", readonly=True).digest()
    lines = (tmp_path / "a" / "journal.jsonl").read_text().splitlines(keepends=True)
    for share in (0.3, 0.6, 0.9):
        (tmp_path / "a" / "journal.jsonl").write_text("".join(lines[: int(share * len(lines))]))
        model = Noisy()
        again = Trainer.resume(tmp_path / "a", model, optim.Ensemble(OneOf(model.parameters()), size=8), exact_match)
        assert again.program.state_dict() == first.program.state_dict()
        assert run.Journal(tmp_path / "a" / "journal.jsonl", readonly=True).digest() == digest


def test_it_is_planned_and_kept_for_with_its_copies():
    model = Noisy()
    opt = optim.Ensemble(OneOf(model.parameters()), size=3)
    trainer = Trainer(model, opt, metric=exact_match, budget=pg.Budget(calls=10_000), ship="significant")
    plan = trainer.plan(rows(20), rows(120, 100), rows(60, 300), calls_per_example=2)
    calls = {phase.name: phase.calls for phase in plan.phases}
    assert calls["3x ways"] == 3 * 70
    assert calls["ensemble on 70"] == 3 * 70 * 2
    assert calls["confirm"] == (1 + 2 * 3) * 50 * 2
    assert calls["test"] == (1 + 3) * 60 * 2


def test_what_is_refused():
    model = Noisy()
    with pytest.raises(ValueError, match="size is at least 2"):
        optim.Ensemble(OneOf(model.parameters()), size=1)
    with pytest.raises(TypeError, match="takes an optimizer"):
        optim.Ensemble(model)
    with pytest.raises(TypeError, match="reduce is a function"):
        optim.Ensemble(OneOf(model.parameters()), reduce="majority")
    model.way.requires_grad = False
    with pytest.raises(GraphError, match="OneOf has nothing to train"):
        fit(model, optim.Ensemble(OneOf(model.parameters())))


def test_config_holds_the_optimizer():
    model = Noisy()
    config = optim.Ensemble(OneOf(model.parameters()), size=4).config()
    assert (config["size"], config["reduce"]) == (4, "majority")
    assert config["optimizer"] == "Ensemble"
