import asyncio
import json
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest

import promptgrad as pg
from promptgrad import Budget, Trainer, lm, nn, optim, run
from promptgrad.errors import (
    BudgetExceeded,
    DataError,
    GraphError,
    JournalError,
    LMConnectionError,
    MetricError,
    StateDictError,
)
from promptgrad.optim import Candidate, Measured, Optimizer, Session
from promptgrad.run._event import encode, parse
from promptgrad.search import Cost
from promptgrad.train import _confirm
from tests.waiting import interrupted

pytestmark = pytest.mark.usefixtures("overlap_is_known")


class Count:
    """The simulated model, counting what it is asked; it may stop answering, or stop the process, after some calls."""

    def __init__(self, world, stop_after=None, error=None):
        self.world, self.asked, self.stop_after, self.error = world, [], stop_after, error

    def __call__(self, messages):
        self.asked.append(messages)
        if self.stop_after is not None and len(self.asked) > self.stop_after:
            if self.error is None:
                self.stop_after = None
                return interrupted()
            raise self.error
        return self.world.answer(messages)


def program(world, model=None):
    return world.Program().to(lm.FunctionLM(model or world.answer, name="simulated"))


def trainer(world, model, name="tgd", **options):
    return Trainer(model, world.optimizer(name, model), metric=world.metric, **{"seed": 5, **options})


@pytest.fixture
def data(world):
    return world.examples(24), world.examples(60, seed=1), world.examples(30, seed=2)


class Fixed(Optimizer):
    """Offers the given values, as they are."""

    kinds = ("instruction",)

    def __init__(self, params, *values):
        super().__init__(params)
        self._values = values

    async def fit(self, session):
        for number, values in enumerate(self._values):
            measured = await session.evaluate(
                Candidate(values, f"value {number}"), session.val, scope=f"fixed/{number}"
            )
            session.trial(measured)
            session.offer(measured)


BETTER = {"pick.instruction": "Take the last word.", "spell.instruction": "Reverse the word."}
HALF = {"pick.instruction": "Take the last word."}
WORSE = {"pick.instruction": "Take the first word, please."}


class TestOutcomes:
    def test_what_is_better_ships(self, world, data):
        model = program(world)
        result = Trainer(
            model, Fixed(model.parameters(), WORSE, BETTER, HALF), metric=world.metric, ship="significant"
        ).fit(*data)
        assert result.outcome == "shipped"
        assert model.pick.instruction.data == "Take the last word."
        assert result.values == BETTER
        assert (result.before.mean, result.after.mean, result.gain.mean) == (0.0, 1.0, 1.0)
        assert result.gain.low > 0
        assert result.gain.confidence == pytest.approx(0.975)  # two finalists
        assert (result.test_before.mean, result.test_after.mean, result.test_after.examples) == (0.0, 1.0, 30)
        text = repr(result)
        for part in (
            "shipped",
            "measured     0.000 -> 1.000 on ",
            "that no choice was based on",
            "test         0.000 [0.000, ",
            " on 30 -> 1.000 [",
            "97.5% paired interval",
            "LM calls",
            "trials       4",
            "Reverse",
        ):
            assert part in text

    def test_all_right_already(self, world, data):
        model = program(world)
        for path, value in BETTER.items():
            model.get_parameter(path).data = value
        result = trainer(world, model, ship="significant").fit(*data[:2])
        assert result.outcome == "nothing to improve"
        assert "0 of 30 validation examples failed, nothing to do" in repr(result)
        assert 30 < result.calls <= 60  # equal calls are paid once

    def test_nothing_offered(self, world, data):
        model = program(world)
        result = Trainer(model, Fixed(model.parameters()), metric=world.metric).fit(*data[:2])
        assert result.outcome == "no candidate"

    def test_few_examples_say_so(self, world):
        model = program(world)
        with pytest.warns(UserWarning, match="both training and validation"):
            result = Trainer(model, Fixed(model.parameters(), BETTER), metric=world.metric, ship="significant").fit(
                world.examples(6), world.examples(6)
            )
        assert result.outcome == "no significant gain"  # three of three happen by chance one time in eight
        assert any("need more validation data" in note for note in result.notes)

    def test_the_permutation_test_says_that_it_objects(self, world):
        class FourOfTwelve(Fixed):
            selects = False

        model = program(world)
        rows = world.examples(12)
        lucky = {row.id for row in rows[:4]}

        def metric(example, output):
            return float(example.id in lucky and output.answer == example.answer)

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            opt = FourOfTwelve(model.parameters(), BETTER)
            result = Trainer(model, opt, metric=metric, ship="significant", seed=5).fit(world.examples(6, seed=1), rows)
        assert result.outcome == "no significant gain"
        assert result.gain.low > 0
        assert result.reason.endswith(": the interval excludes zero, but p = 0.0625 is above 0.05")


class TestData:
    def test_the_parts_do_not_overlap_and_belong_to_the_seed(self, world):
        model = program(world)
        data = world.examples(100)
        parts = trainer(world, model, ship="significant")._parts(data, None, None)
        ids = [{row.id for row in part} for part in (parts.train, parts.val, parts.confirm)]
        assert list(map(len, ids)) == [50, 25, 25]
        assert len(set.union(*ids)) == 100
        again = trainer(world, program(world), ship="significant")._parts(data, None, None)
        other = trainer(world, program(world), ship="significant", seed=6)._parts(data, None, None)
        assert [row.id for row in again.val] == [row.id for row in parts.val]
        assert [row.id for row in other.val] != [row.id for row in parts.val]

    def test_a_loader_will_do(self, world):
        rows = world.examples(10)
        loader = pg.data.DataLoader([row.to_dict() for row in rows], batch_size=4)
        parts = trainer(world, program(world))._parts(loader, None, None)
        assert {row.id for part in (parts.train, parts.val, parts.confirm) for row in part} == {row.id for row in rows}

    @pytest.mark.parametrize(
        ("size", "wanted", "confirm"), [(60, None, 30), (400, None, 100), (60, 0.25, 15), (60, 12, 12)]
    )
    def test_what_is_set_aside(self, world, size, wanted, confirm):
        data = [pg.Example(text=f"t {i}", answer="x").with_inputs("text") for i in range(size)]
        parts = trainer(world, program(world), ship="significant", confirm=wanted)._parts(world.examples(4), data, None)
        assert (len(parts.confirm), len(parts.val)) == (confirm, size - confirm)

    def test_the_optimizer_sees_neither_confirmation_nor_test_data(self, world, data):
        seen = []

        class Spy(Fixed):
            async def fit(self, session):
                seen.extend(row.id for row in [*session.train, *session.val])
                await super().fit(session)

        model = program(world)
        trainer_ = Trainer(model, Spy(model.parameters(), BETTER), metric=world.metric, ship="significant", seed=5)
        parts = trainer_._parts(*data)
        trainer_.fit(*data)
        hidden = {row.id for row in [*parts.confirm, *parts.test]} - {row.id for row in [*parts.train, *parts.val]}
        assert hidden
        assert not hidden & set(seen)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (([],), "trainset is empty"),
            (([{"text": "a", "answer": "a"}], []), "valset is empty"),
            (([{"text": "a", "answer": "a"}] * 3,), "cannot be split"),
            (([{"text": "a", "answer": "a"}], [{"text": "b", "answer": "b"}]), "both to choose and to confirm"),
            (("text",), "not one str"),
        ],
    )
    def test_too_little(self, world, arguments, message):
        with pytest.raises(DataError, match=message):
            trainer(world, program(world), ship="significant").fit(*arguments)

    def test_confirming_on_everything_leaves_nothing_to_choose_on(self, world, data):
        with pytest.raises(ValueError, match="both the choice and the confirmation"):
            trainer(world, program(world), ship="significant", confirm=60).fit(*data[:2])


class TestArguments:
    def test_an_optimizer_of_another_program(self, world):
        with pytest.raises(ValueError, match=r"not a parameter of this Program.*TGD\(model\.parameters\(\)\)"):
            Trainer(world.Program(), optim.TGD(world.Program().parameters()), metric=world.metric)

    def test_no_module_no_optimizer(self, world):
        model = world.Program()
        with pytest.raises(TypeError, match="not function"):
            Trainer(lambda text: text, optim.TGD(model.parameters()), metric=world.metric)
        with pytest.raises(TypeError, match="takes an optimizer"):
            Trainer(model, optim.TGD, metric=world.metric)

    @pytest.mark.parametrize(
        ("make", "given"),
        [
            (lambda model: optim.TGD(model.requires_grad_(False).parameters()), "instruction, requires_grad is False"),
            (lambda model: optim.TGD([model.pick.demos]), r"given pick\.demos \(demos\)\. Give it"),
            (lambda model: optim.MIPRO(model.requires_grad_(False).parameters()), "instruction, demos, choice that"),
            (lambda model: optim.BootstrapFewShot([model.pick.instruction]), r"kind demos .* pick\.instruction"),
            (lambda model: optim.LabeledFewShot(model.requires_grad_(False).parameters()), "demos, requires_grad is"),
        ],
    )
    def test_an_optimizer_that_has_nothing_to_train(self, world, data, tmp_path, make, given):
        counted = Count(world)
        model = program(world, counted)
        dict(model.named_parameters())
        trainer_ = Trainer(model, make(model), metric=world.metric, run_dir=tmp_path / "run")
        with pytest.raises(GraphError, match=f"has nothing to train: it has a rule for .*{given}"):
            trainer_.fit(*data)
        assert counted.asked == []
        assert not (tmp_path / "run").exists()

    def test_nor_has_it_when_it_goes_on(self, world, data, tmp_path):
        model = program(world)
        trainer(world, model, run_dir=tmp_path).fit(*data)
        model.requires_grad_(False)
        with pytest.raises(GraphError, match="has nothing to train"):
            Trainer.resume(tmp_path, model, world.optimizer("tgd", model), world.metric)

    @pytest.mark.parametrize("options", [{"finalists": 0}, {"concurrency": 0}])
    def test_numbers_out_of_range(self, world, options):
        with pytest.raises(ValueError, match="at least 1"):
            trainer(world, program(world), **options)


class TestBudget:
    @pytest.mark.parametrize("name", ["mipro", "tgd", "gepa"])
    @pytest.mark.parametrize("calls", [130, 220, 320, 450])
    def test_it_is_never_exceeded_and_the_best_so_far_comes_back(self, world, data, name, calls):
        counted = Count(world)
        model = program(world, counted)
        result = trainer(world, model, name, budget=Budget(calls=calls)).fit(*data[:2])
        assert len(counted.asked) == result.calls <= calls
        if any("the search ended" in note for note in result.notes):
            assert result.outcome in ("no candidate", "shipped", "no significant gain", "not confirmed")
        else:
            assert result.shipped

    def test_the_confirmation_is_kept_for(self, world, data):
        model = program(world)
        opt = Fixed(model.parameters(), BETTER, *({"spell.instruction": f"Reverse, {i}."} for i in range(30)))
        result = Trainer(model, opt, metric=world.metric, ship="significant", budget=Budget(calls=400), seed=5).fit(
            *data[:2]
        )
        assert any("the search ended" in note for note in result.notes)
        assert result.shipped
        assert result.phases["confirm"].calls > 0

    def test_mipro_confirms_the_best_of_its_minibatches_when_it_ends_before_a_full_validation(
        self, world, data, tmp_path
    ):
        counted = Count(world)
        model = program(world, counted)
        options = {"num_candidates": 3, "num_demo_sets": 0, "num_trials": 12, "minibatch_size": 15}

        def opt(model):
            return optim.MIPRO(model.parameters(), full_eval_every=12, **options)

        budget = Budget(calls=225)
        first = Trainer(
            model, opt(model), metric=world.metric, ship="significant", budget=budget, run_dir=tmp_path, seed=6
        ).fit(*data[:2])
        assert {trial.note for trial in first.history} == {"baseline", "minibatch"}
        share = "calls: 102 of 225, 123 kept for confirmation and test"
        left = 102 - first.phases["baseline"].calls - first.phases["search"].calls
        assert left > 0
        ended = f"the search ended when its share of the budget did ({share}; the last {left} did not pay for its next"
        assert ended in repr(first)
        assert first.outcome == "shipped"
        counted.asked.clear()
        model = program(world, counted)
        again = Trainer.resume(tmp_path, model, opt(model), world.metric)
        assert (again.values, again.notes, counted.asked) == (first.values, first.notes, [])

    def test_both_programs_on_the_confirmation_and_on_the_test_set_are_kept_for(self, world, data):
        trainer_ = trainer(world, program(world), ship="significant", budget=Budget(calls=1000), finalists=3)
        parts = trainer_._parts(*data)
        session = Session(
            model=trainer_.model,
            train=parts.train,
            val=parts.val,
            metric=world.metric,
            seed=5,
            journal=run.Journal(),
            ledger=run.Ledger(trainer_.budget),
        )
        session.cost_per_example = Cost(2.0)
        runs = (1 + 3) * len(parts.confirm) + 2 * len(parts.test)
        assert trainer_._kept(session, parts) == Budget(calls=2 * runs)
        trainer_.optimizer.selects = False  # then there is one candidate
        assert trainer_._kept(session, parts) == Budget(calls=2 * (2 * len(parts.confirm) + 2 * len(parts.test)))
        trainer_.optimizer.copies = 3  # then it may be three programs that vote
        assert trainer_._kept(session, parts) == Budget(calls=2 * (4 * len(parts.confirm) + 4 * len(parts.test)))

    def test_time_is_kept_for_the_confirmation(self, world, data):
        model = program(world)
        trainer_ = trainer(world, model, ship="significant", budget=Budget(seconds=100), finalists=1)
        parts = trainer_._parts(*data[:2], None)
        journal = run.Journal()
        session = Session(
            model=model,
            train=parts.train,
            val=parts.val,
            metric=world.metric,
            seed=5,
            journal=journal,
            ledger=run.Ledger(trainer_.budget, journal),
        )
        assert trainer_._kept(session, parts) is None
        session.baseline = Measured(Candidate(), (), (), 0, "baseline")
        events = [{"kind": "run", "t": 1.0}, {"kind": "evaluation", "t": 7.0, "examples": 30}]
        journal.events = lambda: iter(events)
        assert trainer_._kept(session, parts) == Budget(seconds=12.0)  # 60 runs, of which 30 took 6 seconds
        events[1]["t"] = 80.0
        assert trainer_._kept(session, parts) == Budget(seconds=10.0)  # half of what is left

    def test_answers_from_a_cache_are_counted_apart(self, world, data):
        counted = Count(world)
        cache = lm.Cache(lm.FunctionLM(counted, name="simulated"))
        first = trainer(world, world.Program().to(cache)).fit(*data[:2])
        assert (first.spent.cached, first.spent.sent) == (0, len(counted.asked))
        again = trainer(world, world.Program().to(cache)).fit(*data[:2])
        assert (again.calls, again.spent.cached, again.spent.sent) == (first.calls, first.calls, 0)
        assert f"{first.calls} LM calls ({first.calls} from the cache)" in repr(again)

    def test_too_small_for_the_start(self, world, data):
        model = program(world)
        before = model.state_dict()
        with pytest.raises(BudgetExceeded, match=r"does not cover measuring the start on 30.*Nothing was changed"):
            trainer(world, model, ship="significant", budget=Budget(calls=20)).fit(*data[:2])
        assert model.state_dict() == before

    def test_tokens_and_money(self, world, data):
        model = program(world)
        result = trainer(world, model, budget=Budget(tokens=9000)).fit(*data[:2])
        assert result.tokens <= 9000 + 8 * 300
        from promptgrad.testing import LoopbackLM

        with LoopbackLM(world.answer) as server:
            priced = lm.HTTP("simulated", base_url=server.url, api_key="k", prices=(1000.0, 1000.0))
            model = world.Program().to(priced)
            result = trainer(world, model, budget=Budget(usd=12)).fit(*data[:2])
            assert 0 < result.usd <= 12.5

    def test_the_same_decisions_at_any_concurrency_when_it_ends(self, world, data, tmp_path):
        digests = []
        for concurrency in (1, 32):
            path = tmp_path / str(concurrency)
            model = program(world)
            options = {"budget": Budget(calls=260), "concurrency": concurrency, "run_dir": path}
            result = trainer(world, model, "mipro", **options).fit(*data[:2])
            journal = run.Journal(path / "journal.jsonl", readonly=True)
            digests.append((journal.digest(), result.outcome, result.values))
        assert digests[0] == digests[1]

    @pytest.mark.parametrize("name", ["mipro", "tgd", "gepa"])
    def test_a_run_that_ended_with_its_budget_is_resumed(self, world, data, tmp_path, name):
        options = {"budget": Budget(calls=260), "run_dir": tmp_path}
        first = trainer(world, program(world), name, **options).fit(*data[:2])
        digest = run.Journal(tmp_path / "journal.jsonl", readonly=True).digest()
        counted = Count(world)
        model = program(world, counted)
        again = Trainer.resume(tmp_path, model, world.optimizer(name, model), world.metric)
        assert counted.asked == []
        assert (again.outcome, again.values) == (first.outcome, first.values)
        assert run.Journal(tmp_path / "journal.jsonl", readonly=True).digest() == digest

    @pytest.mark.parametrize("name", ["mipro", "tgd", "gepa"])
    def test_what_was_paid_in_a_block_that_time_cut_off_counts_in_every_process(self, world, data, tmp_path, name):
        """The first process is killed within a block, and when the second one comes there, the time is over."""
        trainer(world, program(world), name, budget=Budget(seconds=1000), run_dir=tmp_path).fit(*data)
        path = tmp_path / "journal.jsonl"
        lines = path.read_bytes().splitlines(keepends=True)
        ordered = [at for at, line in enumerate(lines) if b'"seq":' in line]
        calls = [at for at, line in enumerate(lines) if at > ordered[3] and b'"kind":"call"' in line]
        kept = lines[: calls[len(calls) // 2] + 1]
        kept[-1] = encode({**parse(kept[-1]), "t": 1001.0})
        path.write_bytes(b"".join(kept))
        paid = sum(b'"kind":"call"' in line for line in kept)
        found = []
        for _ in range(2):
            model = program(world)
            found.append(Trainer.resume(tmp_path, model, world.optimizer(name, model), world.metric).spent)
        assert [spent.calls for spent in found] == [paid, paid]

    def test_time_ends_the_search_once_and_for_all(self, world, data):
        """A resumed run passes where an earlier process was in time, and stops where it was not."""
        now = [0.0]
        journal = run.Journal(clock=lambda: now[0])
        ledger = run.Ledger(Budget(seconds=10), journal)
        session = Session(
            model=program(world),
            train=data[0],
            val=data[1],
            metric=world.metric,
            seed=0,
            journal=journal,
            ledger=ledger,
        )
        session.admit(5)
        now[0] = 11.0
        with pytest.raises(BudgetExceeded, match="10 seconds"):
            session.admit(5)
        journal.upcoming = lambda: {"kind": "evaluation"}
        session.admit(5)
        journal.upcoming = lambda: {"kind": "exhausted", "of": "seconds"}
        now[0] = 0.0
        with pytest.raises(BudgetExceeded, match="ended the search here"):
            session.admit(5)


class TestJournal:
    @pytest.mark.parametrize("name", ["mipro", "tgd", "gepa"])
    def test_the_same_at_concurrency_1_and_32(self, world, data, tmp_path, name):
        found = []
        for concurrency in (1, 32):
            path = tmp_path / f"{concurrency}"
            model = program(world)
            result = trainer(world, model, name, concurrency=concurrency, run_dir=path).fit(*data)
            journal = run.Journal(path / "journal.jsonl", readonly=True)
            assert journal.unfinished() == []
            found.append((journal.canonical(), result.values, result.calls))
        assert found[0] == found[1]

    def test_a_finished_run_is_resumed_without_a_call(self, world, data, tmp_path):
        first = trainer(world, program(world), run_dir=tmp_path / "r").fit(*data)
        counted = Count(world)
        model = program(world, counted)
        again = Trainer.resume(tmp_path / "r", model, world.optimizer("tgd", model), world.metric)
        assert counted.asked == []
        assert (again.outcome, again.values, again.calls) == (first.outcome, first.values, first.calls)
        assert again.spent.replayed == first.calls
        assert f"({first.calls} from the journal)" in repr(again)
        assert model.pick.instruction.data == first.values["pick.instruction"]

    def test_a_folder_holds_one_run(self, world, data, tmp_path):
        trainer(world, program(world), run_dir=tmp_path).fit(*data[:2])
        with pytest.raises(JournalError, match=r"holds a run already: go on with it by promptgrad\.Trainer\.resume"):
            trainer(world, program(world), run_dir=tmp_path).fit(*data[:2])

    def test_a_second_writer_leaves_the_folder_as_it_is(self, world, data, tmp_path):
        with pg.run.Journal(tmp_path / "journal.jsonl"):  # another process is about to write run.json
            with pytest.raises(JournalError, match="has a writer already"):
                trainer(world, program(world), run_dir=tmp_path).fit(*data[:2])
            assert [path.name for path in tmp_path.iterdir()] == ["journal.jsonl"]
        result = trainer(world, program(world), run_dir=tmp_path).fit(*data[:2])  # it died before it began
        model = program(world)
        again = Trainer.resume(tmp_path, model, world.optimizer("tgd", model), world.metric)
        assert (again.values, again.calls) == (result.values, result.calls)

    def test_of_many_that_begin_at_once_one_does(self, world, data, tmp_path):
        def begin(seed):
            try:
                trainer(world, program(world), seed=seed, run_dir=tmp_path).fit(*data[:2])
            except JournalError as error:
                return str(error)
            return seed

        with ThreadPoolExecutor(6) as pool:
            ends = list(pool.map(begin, range(6)))
        (seed,) = [end for end in ends if isinstance(end, int)]
        assert json.loads((tmp_path / "run.json").read_text())["settings"]["seed"] == seed

    @pytest.mark.parametrize(
        "text",
        [
            "[" * 100_000,
            "{}",
            '{"format": "promptgrad.run", "version": 1}',
            '{"format": "promptgrad.run", "version": 1, "settings": {}, "start": {}, "data": 7}',
            '{"format": "promptgrad.run", "version": 1, "settings": {}, "start": {}, "data": {"train": [[1]]}}',
            '{"format": "promptgrad.run", "version": 1, "settings": {"seed": NaN}, "start": {}, "data": null}',
        ],
    )
    def test_a_damaged_run_is_told(self, world, tmp_path, text):
        (tmp_path / "run.json").write_text(text)
        model = program(world)
        with pytest.raises(JournalError, match=r"run\.json"):
            Trainer.resume(tmp_path, model, world.optimizer("tgd", model), world.metric)

    def test_nothing_to_resume(self, world, tmp_path):
        model = program(world)
        with pytest.raises(JournalError, match="holds no run"):
            Trainer.resume(tmp_path, model, world.optimizer("tgd", model), world.metric)

    def test_another_program_metric_or_optimizer_is_refused(self, world, data, tmp_path):
        trainer(world, program(world), run_dir=tmp_path).fit(*data[:2])
        single, _ = world.single()
        with pytest.raises(StateDictError):
            Trainer.resume(tmp_path, single, optim.TGD(single.parameters()), world.metric)
        model = program(world)
        with pytest.raises(
            JournalError,
            match=r"at event 0.*What changed: .*the optimizer or its settings",
        ):
            Trainer.resume(tmp_path, model, optim.TGD(model.parameters(), steps=5), world.metric)
        with pytest.raises(JournalError, match=r"at event 0.*What changed: .*the metric's code"):
            Trainer.resume(tmp_path, model, world.optimizer("tgd", model), pg.metrics.exact_match)

    def test_other_code_or_other_data_is_refused(self, world, data, tmp_path):
        class Program(world.Program):
            def forward(self, text):
                return super().forward(text + " ")

        trainer(world, program(world), run_dir=tmp_path).fit(*data[:2])
        model = Program().to(lm.FunctionLM(world.answer, name="simulated"))
        with pytest.raises(JournalError, match=r"at event 0.*What changed: .*the program's code"):
            Trainer.resume(tmp_path, model, world.optimizer("tgd", model), world.metric)
        model, given = program(world), {"train": data[0], "val": data[1][:-1] + data[2][:1]}
        with pytest.raises(JournalError, match=r"at event 0.*What changed: .*the data"):
            Trainer.resume(tmp_path, model, world.optimizer("tgd", model), world.metric, data=given)

    def test_what_the_metric_counts_is_no_change_and_what_it_keeps_is_named(self, world, data, tmp_path):
        count, rows = 0, []

        def counting(example, output):
            nonlocal count
            count += 1
            return world.metric(example, output)

        def keeping(example, output):
            rows.append(example.id)
            return world.metric(example, output)

        for metric in (counting, keeping):
            model, folder = program(world), tmp_path / metric.__name__
            Trainer(model, world.optimizer("tgd", model), metric=metric, run_dir=folder).fit(*data[:2])
        assert count
        model = program(world)
        Trainer.resume(tmp_path / "counting", model, world.optimizer("tgd", model), counting)
        with pytest.raises(JournalError, match=r"has changed: the variable `rows` that `.*keeping`.*\(metric\)"):
            Trainer.resume(tmp_path / "keeping", model, world.optimizer("tgd", model), keeping)
        rows.clear()
        Trainer.resume(tmp_path / "keeping", model, world.optimizer("tgd", model), keeping)

    def test_examples_that_json_cannot_hold(self, world, data, tmp_path):
        odd = [row.copy(extra=(1, 2)) for row in data[0]]
        trainer_ = trainer(world, program(world), run_dir=tmp_path)
        parts = trainer_._parts(odd, data[1], None)
        first = trainer_.fit(odd, data[1])
        model = program(world)
        opt = world.optimizer("tgd", model)
        saved = json.loads((tmp_path / "run.json").read_text())
        if saved["data"] is None:
            with pytest.raises(JournalError, match="pass data="):
                Trainer.resume(tmp_path, model, opt, world.metric)
        rows = {"train": parts.train, "val": parts.val, "confirm": parts.confirm, "test": []}
        assert Trainer.resume(tmp_path, model, opt, world.metric, data=rows).values == first.values
        given = {"train": odd, "val": data[1]}  # as `fit` was given it
        model = program(world)
        resumed = Trainer.resume(tmp_path, model, world.optimizer("tgd", model), world.metric, data=given)
        assert (resumed.values, resumed.spent.sent) == (first.values, 0)


class TestStops:
    @pytest.mark.parametrize("after", [10, 90, 150])
    def test_ctrl_c_keeps_the_journal_and_the_best_so_far(self, world, data, tmp_path, after):
        model = program(world, Count(world, stop_after=after))
        before = model.state_dict()
        trainer_ = trainer(world, model, run_dir=tmp_path / "stopped")
        with pytest.raises(KeyboardInterrupt):
            trainer_.fit(*data[:2])
        assert model.state_dict() == before
        assert trainer_.result.outcome == "interrupted"
        whole = trainer(world, program(world), run_dir=tmp_path / "whole").fit(*data[:2])
        fresh = program(world, counted := Count(world))
        resumed = Trainer.resume(tmp_path / "stopped", fresh, world.optimizer("tgd", fresh), world.metric)
        assert resumed.values == whole.values
        assert len(counted.asked) <= whole.calls - after + 40
        digests = [
            run.Journal(tmp_path / name / "journal.jsonl", readonly=True).digest() for name in ("stopped", "whole")
        ]
        assert digests[0] == digests[1]

    def test_an_lm_that_goes_down_stops_the_run_and_resume_goes_on(self, world, data, tmp_path):
        error = LMConnectionError("refused")
        model = program(world, Count(world, stop_after=100, error=error))
        trainer_ = trainer(world, model, run_dir=tmp_path)
        with pytest.raises(LMConnectionError):
            trainer_.fit(*data[:2])
        assert trainer_.result.outcome == "interrupted"
        assert "refused" in trainer_.result.reason
        fresh = program(world)
        assert Trainer.resume(tmp_path, fresh, world.optimizer("tgd", fresh), world.metric).shipped

    def test_a_few_calls_without_an_answer_do_not(self, world, data, tmp_path):
        """A resumed run goes on without them as well, though the model would answer now."""

        class Flaky(Count):
            def __call__(self, messages):
                if "lime pink" in messages[-1]["content"]:
                    raise LMConnectionError("lost")
                return super().__call__(messages)

        first = trainer(world, program(world, Flaky(world)), run_dir=tmp_path).fit(*data)
        assert first.shipped
        model = program(world)
        again = Trainer.resume(tmp_path, model, world.optimizer("tgd", model), world.metric)
        assert again.values == first.values
        assert again.test_after == first.test_after

    def test_a_metric_that_raises(self, world, data):
        def broken(example, output):
            raise RuntimeError("no such file")

        model = program(world)
        trainer_ = Trainer(model, Fixed(model.parameters(), BETTER), metric=broken)
        with pytest.raises(MetricError, match="no such file"):
            trainer_.fit(*data[:2])
        assert trainer_.result.outcome == "interrupted"

    def test_a_metric_that_raises_now_and_then(self, world, data):
        def touchy(example, output):
            if example.text.startswith("red"):
                raise RuntimeError("no")
            return world.metric(example, output)

        model = program(world)
        result = Trainer(model, Fixed(model.parameters(), BETTER), metric=touchy).fit(*data[:2])
        assert result.shipped
        assert result.before.errors == result.after.errors > 0
        assert "failed" in repr(result)

    def test_a_program_that_always_fails(self, world, data):
        class Broken(world.Program):
            def forward(self, text):
                return self.pick(text=text).no_such_field

        model = Broken().to(lm.FunctionLM(world.answer))
        with pytest.raises(AttributeError, match="no_such_field"):
            trainer(world, model).fit(*data[:2])

    @pytest.mark.asyncio
    async def test_in_a_running_loop(self, world, data):
        result = await trainer(world, program(world)).afit(*data[:2])
        assert result.shipped
        assert trainer(world, program(world)).fit(*data[:2]).shipped  # a notebook cell
        await asyncio.sleep(0)


class TestPlan:
    def test_it_names_the_phases_and_runs_nothing(self, world, data):
        counted = Count(world)
        model = program(world, counted)
        plan = trainer(world, model, "mipro", ship="significant").plan(*data)
        assert counted.asked == []
        names = [phase.name for phase in plan.phases]
        assert names[:4] == ["baseline", "bootstrap", "runs to learn from", "propose"]
        assert names[-2:] == ["confirm", "test"]
        assert plan.calls == sum(phase.calls for phase in plan.phases)
        assert plan.usd == 0.0
        assert plan.tokens > plan.calls
        assert "LM calls" in repr(plan)

    @pytest.mark.parametrize(("name", "apart"), [("mipro", 0.9), ("tgd", 0.5), ("gepa", 0.5)])
    def test_a_run_takes_no_more(self, world, data, name, apart):
        """Nor many fewer tokens a call; a good first trial ends MIPRO, and spares its dearer calls."""
        model = program(world)
        trainer_ = trainer(world, model, name)
        plan = trainer_.plan(*data)
        result = trainer_.fit(*data)
        assert result.calls <= plan.calls
        assert plan.tokens / plan.calls == pytest.approx(result.tokens / result.calls, rel=apart)

    def test_exact_where_it_can_be(self, world):
        model, rows = world.single()
        model.to(lm.FunctionLM(world.answer))
        trainer_ = Trainer(model, optim.LabeledFewShot(model.parameters()), metric=world.metric, ship="significant")
        plan = trainer_.plan(rows[:20], rows[20:60])
        assert [(phase.name, phase.calls) for phase in plan.phases] == [("confirm", 80)]
        assert trainer_.fit(rows[:20], rows[20:60]).calls == 80

    def test_a_budget_that_is_too_small_for_what_is_around_the_search(self, world, data):
        def notes(calls):
            return trainer(world, program(world), ship="significant", budget=Budget(calls=calls)).plan(*data).notes

        assert notes(359) == (
            "the budget of 359 calls is too small for baseline, confirm and test: it needs at least 360 calls",
            *notes(100_000),
        )
        assert "the budget of 360 calls may end the search early" in notes(360)

    def test_money(self, world):
        model, rows = world.single()
        opt = optim.LabeledFewShot(model.parameters())
        model.to(lm.HTTP("m", base_url="http://127.0.0.1:1/v1", api_key="k", prices=(10.0, 30.0)))
        plan = Trainer(model, opt, metric=world.metric, ship="significant", budget=Budget(usd=1e-6)).plan(
            rows[:20], rows[20:60]
        )
        assert plan.usd > 0
        assert "the budget of $1e-06 is too small for confirm: it needs at least about $0.1822" in repr(
            plan
        )  # demos too
        model.to(lm.HTTP("unheard-of", base_url="http://127.0.0.1:1/v1", api_key="k"))
        plan = Trainer(model, opt, metric=world.metric, ship="significant", budget=Budget(usd=1)).plan(
            rows[:20], rows[20:60]
        )
        assert plan.usd is None
        assert "price" in repr(plan)


def test_candidates_may_be_other_programs(world, data):
    """What a fine-tuning optimizer offers: the same program on another language model."""

    class Swap(Fixed):
        async def fit(self, session):
            import copy

            other = copy.deepcopy(session.model)
            other.to(better)
            candidate = Candidate({}, "other weights", other, "w1")
            measured = await session.evaluate(candidate, session.val, scope="other")
            session.trial(measured)
            session.offer(measured)

    def skilled(messages):
        told = [{"role": m.role, "content": m.content} for m in messages]
        told[0]["content"] = "Take the last word and reverse it." + told[0]["content"]
        return world.answer(told)

    better = lm.FunctionLM(skilled, name="trained")
    model = program(world)
    result = Trainer(model, Swap(model.parameters()), metric=world.metric).fit(*data)
    assert result.shipped
    assert result.test_after.mean == 1.0
    assert model.pick._lm is better


BETTER_IN_SEQUENCE = {"0.instruction": "Take the last word.", "1.instruction": "Reverse the word."}


class Swapped(Fixed):
    """Offers a program of another structure: the parts of the model in a sequence."""

    async def fit(self, session):
        import copy

        own = copy.deepcopy(session.model)
        other = nn.Sequential(own.pick, own.spell)
        for number, values in enumerate(self._values):
            candidate = Candidate(values, f"sequence {number}", other, "sequence")
            measured = await session.evaluate(candidate, session.val, scope=f"other/{number}")
            session.trial(measured)
            session.offer(measured)


class TestAnotherProgram:
    def test_it_is_returned_and_the_model_stays(self, world, data, tmp_path):
        model = program(world)
        before = model.state_dict()
        result = Trainer(model, Swapped(model.parameters(), BETTER_IN_SEQUENCE), metric=world.metric).fit(*data)
        assert result.shipped
        assert model.state_dict() == before
        assert isinstance(result.program, nn.Sequential)
        assert result.program(text="red green lime").answer == "emil"
        assert "result.program is another program (Sequential); the trained one is as it was" in repr(result)
        assert result.test_after.mean == 1.0
        pg.save(result.program, tmp_path / "best")
        again = pg.load(tmp_path / "best", nn.Sequential(world.Program().pick, world.Program().spell))
        assert again[1].instruction.data == "Reverse the word."

    def test_it_comes_back_on_resume_without_a_call(self, world, data, tmp_path):
        model = program(world)
        first = Trainer(
            model, Swapped(model.parameters(), BETTER_IN_SEQUENCE), metric=world.metric, run_dir=tmp_path
        ).fit(*data)
        counted = Count(world)
        model = program(world, counted)
        again = Trainer.resume(tmp_path, model, Swapped(model.parameters(), BETTER_IN_SEQUENCE), world.metric)
        assert again.program.state_dict() == first.program.state_dict()
        assert counted.asked == []

    def test_it_stays_outside_where_it_is_not_better(self, world, data):
        model = program(world)
        worse = {"0.instruction": "Take the first word, please."}
        result = Trainer(model, Swapped(model.parameters(), worse), metric=world.metric, ship="significant").fit(
            *data[:2]
        )
        assert result.outcome == "no significant gain"
        assert result.program is model
        assert isinstance(result.best_program, nn.Sequential)
        assert result.best_program[0].instruction.data == "Take the first word, please."
        assert "another program" not in repr(result)


def test_gradients_are_afterwards_what_they_were(world, data):
    model = program(world)
    rows = data[0][:6]
    nn.MetricLoss(world.metric)(model.map(rows), rows).backward()
    before = {name: parameter.grad for name, parameter in model.named_parameters()}
    assert before["pick.instruction"] is not None
    assert trainer(world, model).fit(*data[:2]).shipped
    assert all(parameter.grad is before[name] for name, parameter in model.named_parameters())


def test_a_resumed_run_confirms_on_as_much_and_as_many(world, data, tmp_path):
    model = program(world)
    options = {"metric": world.metric, "ship": "significant", "confirm": 0.4, "finalists": 1, "run_dir": tmp_path}
    first = Trainer(model, Fixed(model.parameters(), BETTER, HALF), **options).fit(*data[:2])
    assert first.gain.pairs == 24
    model = program(world)
    again = Trainer.resume(tmp_path, model, Fixed(model.parameters(), BETTER, HALF), world.metric)
    assert (again.gain, again.outcome) == (first.gain, first.outcome)


@pytest.mark.parametrize(("finalists", "ships"), [(1, True), (2, False)])
def test_the_doubt_that_is_allowed_is_shared_by_the_finalists(finalists, ships):
    """Five gains in seven pairs: chance alone does as well in 1 of 32 cases."""
    ids = tuple("abcdefg")
    start = Measured(Candidate(), ids, (0.0,) * 7)
    gain = _confirm.compare(start, Measured(Candidate(HALF), ids, (1.0,) * 5 + (0.0,) * 2), finalists=finalists, seed=0)
    assert gain.p == pytest.approx(1 / 32)
    assert gain.low > 0
    assert _confirm.ships(gain, finalists) == ships
    assert bool(_confirm.objection(gain, finalists)) != ships


def test_the_best_candidate_as_a_program(world, data):
    model = program(world)
    result = Trainer(model, Fixed(model.parameters(), WORSE), metric=world.metric).fit(*data[:2])
    best = result.best_program
    assert best is not model
    assert best.pick.instruction.data == "Take the first word, please."
    assert model.pick.instruction.data != best.pick.instruction.data
    assert best.pick.lm is model.pick.lm
    result = Trainer(model, Fixed(model.parameters(), BETTER), metric=world.metric).fit(*data[:2])
    assert result.program is model
    assert result.best_program is not model
    assert result.best_program.state_dict() == model.state_dict()
    with pytest.raises(RuntimeError, match="holds no program"):
        _ = pg.train.FitResult("shipped", "").best_program


def test_nn_modules_in_lists_are_found(world):
    model = nn.Sequential(nn.Predict("text -> word"), nn.Predict("word -> answer")).to(lm.FunctionLM(world.answer))
    result = trainer(world, model).fit(world.examples(24), world.examples(60, seed=1))
    assert set(result.values) == {"0.instruction", "1.instruction"}


def test_the_interval_is_wider_for_more_finalists():
    ids = tuple(str(number) for number in range(12))
    after = Measured(Candidate(HALF), ids, tuple(0.5 + 0.07 * (number % 5) for number in range(12)))
    one, four = (
        _confirm.compare(Measured(Candidate(), ids, (0.5,) * 12), after, finalists=count, seed=0) for count in (1, 4)
    )
    assert (one.confidence, four.confidence) == (pytest.approx(0.95), pytest.approx(0.9875))
    assert four.low < one.low < one.high < four.high
    assert four.p == one.p


def test_a_gain_that_the_test_of_signs_alone_allows_does_not_ship():
    """Flips of signs bring as much in 2 of 64 cases, and the interval has zero inside."""
    ids, gains = tuple("abcdef"), (0.35, 0.32, -0.25, 0.57, 0.48, 1.31)
    after = Measured(Candidate(HALF), ids, gains)
    gain = _confirm.compare(Measured(Candidate(), ids, (0.0,) * 6), after, finalists=1, seed=0)
    assert gain.p == pytest.approx(2 / 64)
    assert gain.low < 0
    assert not _confirm.ships(gain, 1)


def test_a_resumed_run_has_all_settings_of_the_first(world, data, tmp_path):
    """Where one is lost, the run that is executed again is another one, and is refused."""
    model = program(world)
    settings = {
        "seed": 11,
        "budget": Budget(calls=900),
        "ship": 0.8,
        "finalists": 3,
        "judge_rows": 2,
        "engine": "local",
        "group": 3,
    }
    first = trainer(world, model, run_dir=tmp_path, **settings).fit(*data[:2])
    model = program(world)
    again = Trainer.resume(tmp_path, model, world.optimizer("tgd", model), world.metric)
    assert (again.outcome, again.values, again.gain) == (first.outcome, first.values, first.gain)
    assert again.spent.sent == 0
