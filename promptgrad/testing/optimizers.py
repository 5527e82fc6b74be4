"""A contract suite for optimizers: the promises of every optimizer, as tests that a subclass runs for your own.

```python
from promptgrad.testing.optimizers import OptimizerContract

class TestMine(OptimizerContract):
    def make(self, params):
        return Mine(params, trials=4)
```

It needs pytest, which is not a dependency of promptgrad; nothing else in the package imports this module.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from promptgrad import aio, nn, run
from promptgrad.autograd import Gradient
from promptgrad.data import Example
from promptgrad.errors import (
    BudgetExceeded,
    DataError,
    JournalError,
    LMConnectionError,
    LMError,
    MissingExtraError,
    ParseError,
)
from promptgrad.lm import LM, FunctionLM
from promptgrad.metrics import as_metric
from promptgrad.optim import Optimizer, Search
from promptgrad.run import Budget, Journal, Ledger
from promptgrad.search import Candidate, Session
from promptgrad.testing import _small_world as small
from promptgrad.testing._elsewhere import elsewhere
from promptgrad.testing._promise import fail, must
from promptgrad.testing._runs import Done, difference, lost_in, quiet, reasons, same_run, sent_once, values_of
from promptgrad.train import Trainer

try:
    import pytest
except ImportError as error:
    raise MissingExtraError(
        "promptgrad.testing.optimizers is a suite of pytest, which is not installed: pip install pytest", extra="dev"
    ) from error

__all__ = ["OptimizerContract"]


class OptimizerContract:
    """The promises of every optimizer in `Trainer.fit`. Subclass it in a test file, as a class `Test...` with `make`.

    The suite has a program of two steps, data, a metric, and a scripted language model that answers as program, critic
    and writer; override the method of that name to replace one. Each test method is one promise, stated in its
    docstring; a failure names what was found, what is expected and what to do. Choose settings with which a run makes a
    few hundred calls: the suite makes about 30 runs, in about two seconds for an optimizer that does not wait.

    Cost: no call of a real language model.

    Attributes:
        seed: Seed of all runs.
        kills: Number of different moments after which a run is resumed, in this process.
        exceeds: Most tokens by which a run may exceed its budget: those of one call beyond its estimate.
        keeps_base: True if it offers candidates that build on the session's base.
    """

    seed: int = 3
    kills: int = 8
    exceeds: int = 400
    keeps_base: bool = True

    # ---- what is tested, and on what

    def make(self, params: Iterable[Any]) -> Search:
        """Make the optimizer for these parameters. It is called for each run, and in another process."""
        raise NotImplementedError(f"{type(self).__name__} does not define make(params), which gives the optimizer")

    def program(self) -> nn.Module:
        """Make the program, without a language model."""
        return small.SmallProgram()

    def data(self) -> tuple[list[Example], list[Example]]:
        """Examples to train on, and examples to choose and to confirm on. The initial program solves some of them."""
        return small.examples(12), small.examples(24, seed=1)

    def metric(self, example: Example, output: Any) -> Any:
        """Score an output."""
        return small.metric(example, output)

    def perfect(self, model: nn.Module) -> None:
        """Set values with which the program solves every example."""
        for path, hint in zip(("pick.instruction", "spell.instruction"), small.HINTS, strict=True):
            model.get_parameter(path).data = hint

    def base(self) -> Mapping[str, Any]:
        """Values of a base that a search may have to build on, by path."""
        return {"pick.instruction": "Take the word at the end, the last one.", "spell.instruction": small.HINTS[1]}

    def answer(self, messages: Sequence[Any]) -> str | None:
        """The language model's answer to a prompt; None leaves it to the small world.

        The small world supports its own program, critics, and writers whose prompts quote the critiques; any other
        output field gets one of a few texts. It reads prompts of the chat adapter.
        """
        return None

    def lm(self, scripted: small.Scripted) -> LM:
        """The language model of the program, around the script."""
        return FunctionLM(scripted, name="scripted")

    # ---- what it decides

    def test_the_same_seed_is_the_same_search(self, tmp_path: Path) -> None:
        """With the same seed and replies it decides the same, with one or eight calls in flight, and in another run."""
        one, many, again = (
            self._fit(tmp_path / name, concurrency=concurrency, order=order)
            for order, (name, concurrency) in enumerate((("one", 1), ("many", 8), ("again", 8)))
        )
        for other, what in ((many, "8 calls in flight"), (again, "8 calls in flight, once more")):
            same_run(one, other, f"a run with 1 call in flight and one with {what}")
        left = one.journal.unfinished()
        must(not left, f"{len(left)} calls are in scopes that never ended, such as {str(left[:1])[:200]}")

    def test_it_takes_no_more_calls_than_it_plans(self, tmp_path: Path) -> None:
        """`expected_calls` covers the calls of the search, so that `Trainer.plan` is reliable."""
        model, _ = self._model()
        plan = self._trainer(model).plan(*self.data())
        done = self._fit(tmp_path / "run")
        must(
            done.result.calls <= plan.calls,
            f"the run took {done.result.calls} calls, and the plan says {plan.calls}: {plan!r}. Let expected_calls() "
            "return every phase of fit, at its most",
        )

    def test_its_settings_are_the_same_in_every_process(self) -> None:
        """`config` is JSON, equal for equal optimizers, and the same in another process."""
        first, second = (self.make(self.program().parameters()).config() for _ in range(2))
        must(first == second, f"two optimizers made alike have the settings {first} and {second}")
        must(
            json.loads(json.dumps(first)) == first,
            f"config() does not come back from JSON as it was: {first}. Use texts, numbers, lists and dicts",
        )
        text = json.dumps(first)
        must(" at 0x" not in text, f"config() holds an address, which another process does not have: {text}")

    # ---- what it leaves alone

    def test_it_never_changes_the_program_in_fit(self, tmp_path: Path) -> None:
        """Until the result ships, the parameters keep values, gradients and flags; candidates are laid over them."""
        model, _ = self._model()
        start = values_of(model)
        changed: list[str] = []
        ended: list[str] = []

        def look(event: Mapping[str, Any]) -> None:
            now = values_of(model)
            if not ended:
                changed.extend(f"{path} at event {event['kind']!r}" for path in start if now[path] != start[path])
            ended.extend(["result"] if event["kind"] == "result" else [])

        gradients = {path: Gradient() for path, _ in model.named_parameters()}
        for path, parameter in model.named_parameters():
            parameter.grad = gradients[path]
        self._trainer(model, callbacks=[look]).fit(*self.data())
        must(not changed, f"fit changed {changed[0] if changed else ''}: lay values over it by a Candidate instead")
        lost = [path for path, parameter in model.named_parameters() if parameter.grad is not gradients[path]]
        must(not lost, f"after fit {', '.join(lost)} has another .grad: take gradients as values, or restore them")

    def test_it_goes_on_from_the_base_that_it_is_given(self) -> None:
        """Its candidates keep the values of `session.base`, even of parameters that it does not train."""
        if not self.keeps_base:
            pytest.skip("keeps_base is False")
        base = Candidate(dict(self.base()), "what another search found")
        model, _ = self._model()
        before = values_of(model)
        optimizer = self.make(model.parameters())
        kept = [path for path in base.values if not model.get_parameter(path).kind.answers_to(optimizer.kinds)]
        for path, parameters in ((None, list(model.parameters())), *self._parts_of(model, base)):
            session, part = self._session(model, self.make(parameters), base)
            untouched = [path for path in base.values if path not in kept] if path is None else [path]
            for measured in part.finalists:
                values = measured.candidate.values
                for name in kept if path is None else untouched:
                    must(
                        values.get(name) == base.values[name],
                        f"the base has {name} = {base.values[name]!r}, and {measured.candidate!r} has "
                        f"{values.get(name, before.get(name))!r}: make it by session.base.child(values, origin)",
                    )
                missing = [name for name in base.values if name not in values]
                must(not missing, f"{measured.candidate!r} lost {missing} of the base: make it by session.base.child")
            must(not session.finalists, "candidates of a phase were offered to the session around it")
        must(values_of(model) == before, "fit of a phase changed the program")

    # ---- kills

    def test_killed_anywhere_it_is_resumed_to_the_same_end(self, tmp_path: Path) -> None:
        """Resumed from any prefix of its journal, a run ends as if never killed, and sends no journalled call again."""
        whole = self._fit(tmp_path / "whole", concurrency=4)
        lines = whole.lines
        for number in range(self.kills):
            place = 1 + number * (len(lines) - 1) // self.kills
            torn = lines[place][: len(lines[place]) // 2] if number % 2 else b""
            folder = tmp_path / f"killed at {place}"
            folder.mkdir()
            (folder / "run.json").write_bytes((whole.folder / "run.json").read_bytes())
            (folder / "journal.jsonl").write_bytes(b"".join(lines[:place]) + torn)
            lost = lost_in(lines[:place])
            resumed = self._resume(folder, concurrency=1 + number % 4)
            what = f"a run killed after event {place} of {len(lines)} and resumed"
            same_run(whole, resumed, f"a whole run and {what}")
            sent_once(resumed, what)
            must(resumed.result.lost == lost, f"{what}: {lost} calls were in flight, and lost is {resumed.result.lost}")

    def test_stopped_by_the_user_it_is_resumed_to_the_same_end(self, tmp_path: Path) -> None:
        """Cancelled in a call, it leaves the program unchanged, and the resumed run ends as if never cancelled."""
        whole = self._fit(tmp_path / "whole", concurrency=4)
        for share in (1, 3):
            folder = tmp_path / f"stopped at {share}"
            asyncio.run(self._stopped(folder, max(1, share * whole.asked // 4)))
            same_run(whole, self._resume(folder), f"a whole run and one that was stopped after {share} of 4 calls")

    def test_killed_in_another_process_it_is_resumed_in_a_third(self, tmp_path: Path) -> None:
        """SIGKILL, and another hash seed in each process: the end is the same, and so are the settings."""
        kind = type(self)
        if "<" in kind.__qualname__ or sys.platform == "win32":
            pytest.skip("another process cannot make this optimizer: define the test class at the top of a file")
        whole = self._fit(tmp_path / "whole", concurrency=4)
        folder = tmp_path / "killed"
        killed = elsewhere(kind, "_here", str(folder), len(whole.lines) // 2, hash_seed=1)
        must(killed.code == -signal.SIGKILL, f"the process did not run as far as its kill:\n{killed.said[-3000:]}")
        ended = elsewhere(kind, "_here", str(folder), 0, hash_seed=2)
        must(ended.code == 0, f"another process cannot resume the run:\n{ended.said[-3000:]}")
        there = ended.found
        here = self._summary(whole)
        must(
            there == here,
            f"killed and resumed in processes of their own, the run ends with {difference(here, there)}: nothing may "
            "depend on hash(), id(), the order of a set, or the time",
        )

    # ---- budgets and failures

    def test_no_budget_of_calls_is_exceeded(self, tmp_path: Path) -> None:
        """No call exceeds the budget, however small; the best so far is returned, and resuming adds nothing."""
        calls = self._fit(tmp_path / "whole").asked
        for part in (3, 5, 7):
            limit = max(1, part * calls // 8)
            folder = tmp_path / f"{limit} calls"
            done = self._fit_or_stop(folder, BudgetExceeded, budget=Budget(calls=limit), concurrency=4)
            if done is None:
                continue  # it does not cover measuring the start
            must(done.asked <= limit, f"{done.asked} calls were sent on a budget of {limit}")
            again = self._resume(folder)
            must(again.asked == 0, f"a run that had ended with its budget sent {again.asked} calls when it was resumed")
            same_run(done, again, f"a run on a budget of {limit} calls and the same, resumed")

    def test_no_budget_of_tokens_is_exceeded(self, tmp_path: Path) -> None:
        """A budget of tokens holds at one call in flight, except for the tokens of one call beyond its estimate."""
        tokens = self._fit(tmp_path / "whole").result.tokens
        for part in (5, 7):
            limit = max(1, part * tokens // 8)
            done = self._fit_or_stop(tmp_path / f"{limit} tokens", BudgetExceeded, budget=Budget(tokens=limit))
            if done is None:
                continue  # it does not cover measuring the start
            must(
                done.result.tokens <= limit + self.exceeds,
                f"{done.result.tokens} tokens were used on a budget of {limit}",
            )
            again = self._resume(done.folder)
            must(again.asked == 0, f"a run that had ended with its budget sent {again.asked} calls when it was resumed")
            same_run(done, again, f"a run on a budget of {limit} tokens and the same, resumed")

    @pytest.mark.parametrize("whose", ["anybody's", "the writer's"])
    def test_garbage_does_not_end_a_run(self, tmp_path: Path, whose: str) -> None:
        """Replies without the requested fields, in any role, cost rows and proposals, never the run.

        Once these are a quarter of all replies, and once every reply of a writer: those to prompts which are neither
        the program's nor a critic's.
        """
        script = {"garbage": 0.25} if whose == "anybody's" else {"garbled": self._writers()}
        try:
            done = self._fit_or_stop(tmp_path / "run", DataError, concurrency=4, **script)
        except ParseError as error:
            fail(f"replies without the requested fields ended the run: {error}. Catch ParseError, and go on without it")
        if done is not None:
            reasons(done)
            again = self._resume(tmp_path / "run")
            same_run(done, again, "a run among garbage and the same, resumed")

    def test_a_fifth_of_the_calls_may_fail(self, tmp_path: Path) -> None:
        """If calls fail, the run continues without them, or stops with an `LMError` and can be resumed."""
        folder = tmp_path / "run"
        lost = partial(LMConnectionError, "the connection is lost")
        done = self._fit_or_stop(folder, (LMError, DataError), failing=0.2, error=lost, concurrency=4)
        resumed = self._resume(folder)
        if done is not None:
            must(
                resumed.state == done.state, "a run without an answer to a few calls ends otherwise when it is resumed"
            )
        sent_once(resumed, "a run among failing calls")

    def test_a_refused_proposal_has_a_reason(self, tmp_path: Path) -> None:
        """Each proposal is in the journal; one that is not tried has a reason."""
        reasons(self._fit(tmp_path / "run"))

    # ---- data

    def test_nothing_to_improve(self, tmp_path: Path) -> None:
        """A program that solves every example is not changed."""
        model, _ = self._model()
        self.perfect(model)
        before = values_of(model)
        with quiet():
            result = self._trainer(model).fit(*self.data())
        must(not result.shipped and values_of(model) == before, f"a program without a failure was changed: {result!r}")

    @pytest.mark.parametrize("score", [0.0, 0.5])
    def test_nothing_makes_a_difference(self, score: float) -> None:
        """If all candidates have equal scores, nothing ships; a `DataError` may report that nothing can be learnt."""
        model, _ = self._model()
        before = values_of(model)
        trainer = self._trainer(model, metric=lambda example, output: score)
        try:
            result = trainer.fit(*self.data())
        except DataError:
            return
        must(
            not result.shipped and values_of(model) == before,
            f"scores are all {score}, and a candidate shipped: {result!r}",
        )

    def test_a_single_training_example(self) -> None:
        """A single training example raises no error other than a `DataError` with the reason."""
        model, _ = self._model()
        train, val = self.data()
        try:
            self._trainer(model).fit(train[:1], val)
        except DataError as error:
            must(str(error) != "", "the DataError has no message")

    # ---- a step

    def test_step_and_astep_agree(self) -> None:
        """Outside a trainer, `step` and `astep` propose, judge and install the same.

        The gradients are those of the program and, on a few examples, of the one that solves them. Skipped without a
        step, and where a step finds nothing to propose.
        """
        found = []
        for name in ("step", "astep"):
            for gated in (False, True):
                model, _ = self._model()
                train, val = self.data()
                criterion = nn.MetricLoss(as_metric(self.metric))
                optimizer = self.make(model.parameters())
                if not isinstance(optimizer, Optimizer):
                    pytest.skip(f"{type(optimizer).__name__} is a Search, which has no single step")
                criterion(model.map(train), train).backward()
                with model.candidate(self._solution()):
                    criterion(model.map(train[:3]), train[:3]).backward()
                closure = (lambda m=model, c=criterion, v=val: c(m.map(v), v)) if gated else None
                report = optimizer.step(closure) if name == "step" else asyncio.run(optimizer.astep(closure))
                changes = [(c.path, c.status, c.reason, repr(c.new)) for c in report.proposals or report.changes]
                found.append((gated, changes, values_of(model), optimizer.state_dict()))
        for gated in (False, True):
            one, other = (rest for known, *rest in found if known is gated)
            must(one == other, f"step() and astep() differ, gated={gated}: {difference(one, other)}")
        made = [change for _, changes, *_ in found for change in changes]
        if all(status == "untouched" for _, status, *_ in made):
            why = "; ".join(dict.fromkeys(reason for _, _, reason, _ in made))
            pytest.skip(f"no step found anything to propose here: {why}")

    # ---- inside

    def _model(self, **script: Any) -> tuple[nn.Module, small.Scripted]:
        scripted = small.Scripted(self.answer, **script)
        model = self.program()
        model.to(self.lm(scripted))
        return model, scripted

    def _solution(self) -> dict[str, Any]:
        """Values with which the program solves every example, by path."""
        model, _ = self._model()
        self.perfect(model)
        return {path: parameter.data for path, parameter in model.named_parameters()}

    def _writers(self) -> Callable[[Sequence[str]], bool]:
        """Whether a prompt that asks for these fields is one of a writer: not of the program, and not of a critic."""
        fields = self.program().state_dict()["_meta"]["fields"].values()
        answered = {name for each in fields for name in each["outputs"]}
        return lambda names: not any(name in answered or name.startswith("critique") for name in names)

    def _trainer(self, model: nn.Module, **options: Any) -> Trainer:
        options = {"metric": self.metric, "seed": self.seed, "progress": False, **options}
        return Trainer(model, self.make(model.parameters()), **options)

    def _fit(
        self,
        folder: Path,
        *,
        concurrency: int = 1,
        budget: Budget | None = None,
        callbacks: Sequence[Any] = (),
        **script: Any,
    ) -> Done:
        model, scripted = self._model(**script)
        options = {"concurrency": concurrency, "budget": budget, "callbacks": callbacks, "run_dir": folder}
        with quiet():
            result = self._trainer(model, **options).fit(*self.data())
        return Done(result, values_of(model), folder, scripted.calls)

    def _fit_or_stop(self, folder: Path, errors: Any, **options: Any) -> Done | None:
        """The run, or None where it stopped with one of these errors."""
        try:
            return self._fit(folder, **options)
        except errors as error:
            must(str(error) != "", f"the {type(error).__name__} has no message")
            return None

    def _resume(self, folder: Path, *, concurrency: int = 1, callbacks: Sequence[Any] = ()) -> Done:
        model, scripted = self._model(order=len((folder / "journal.jsonl").read_bytes()))
        optimizer = self.make(model.parameters())
        options: dict[str, Any] = {"concurrency": concurrency, "callbacks": callbacks, "progress": False}
        try:
            with quiet():
                result = Trainer.resume(folder, model, optimizer, self.metric, **options)
        except JournalError as error:
            fail(f"a resumed run decides otherwise than the first: {error}. Take all chance from session.rng and spawn")
        return Done(result, values_of(model), folder, scripted.calls)

    async def _stopped(self, folder: Path, after: int) -> None:
        """Run in a task that is cancelled in the middle of a call."""
        loop = asyncio.get_running_loop()
        task: asyncio.Task[Any] | None = None

        def stop(number: int) -> None:
            if number == after and task is not None:
                loop.call_soon_threadsafe(task.cancel)

        model, _ = self._model(at=stop)
        before = values_of(model)
        trainer = self._trainer(model, run_dir=folder, concurrency=4)
        task = asyncio.ensure_future(trainer.afit(*self.data()))
        try:
            with quiet():
                await task
        except asyncio.CancelledError:
            found = trainer.result
            must(
                found is not None and found.outcome == "interrupted",
                f"a run that was cancelled has the result {found!r}, and the outcome 'interrupted' is expected",
            )
            must(values_of(model) == before, "a run that was cancelled has changed the program")

    def _session(self, model: nn.Module, optimizer: Search, base: Candidate) -> tuple[Session, Session]:
        """A session around a phase with this base, after the optimizer has run in the phase."""
        train, val = self.data()
        journal = Journal()
        ledger = Ledger(None, journal)
        with quiet():
            session = Session(
                model=model,
                train=train,
                val=val if optimizer.selects else [],
                metric=as_metric(self.metric),
                seed=self.seed,
                journal=journal,
                ledger=ledger,
                progress=False,
                parameters=optimizer.parameters(),
            )

            async def search() -> Session:
                with run.active(journal=journal, ledger=ledger):
                    part = await session.phase("part", base)
                    try:
                        await optimizer.fit(part)
                    except DataError as error:
                        must(str(error) != "", "the DataError has no message")
                return part

            return session, aio.run(search())

    def _parts_of(self, model: nn.Module, base: Candidate) -> Iterator[tuple[str, list[Any]]]:
        """For each path of the base that the optimizer would train: all other parameters."""
        kinds = self.make(model.parameters()).kinds
        for path in base.values:
            others = [parameter for name, parameter in model.named_parameters() if name != path]
            mine = model.get_parameter(path).kind.answers_to(kinds)
            if mine and any(parameter.kind.answers_to(kinds) for parameter in others):
                yield path, others

    def _here(self, folder: str, events: int) -> dict[str, Any]:
        """In a separate process: begin a run that kills itself after `events` events, or resume it, and sum up."""
        written: list[str] = []

        def kill(event: Mapping[str, Any]) -> None:
            written.append(event["kind"])
            if len(written) == events:
                os.kill(os.getpid(), signal.SIGKILL)

        path = Path(folder)
        return self._summary(self._fit(path, concurrency=4, callbacks=[kill]) if events else self._resume(path))

    def _summary(self, done: Done) -> dict[str, Any]:
        config = self.make(self.program().parameters()).config()
        values = {path: repr(value) for path, value in done.state.items()}
        return {"outcome": done.result.outcome, "values": values, "digest": done.journal.digest(), "config": config}
