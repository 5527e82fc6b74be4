"""What a step runs and when, what it leaves behind, and what can be taken back."""

import asyncio

import pytest

import promptgrad as pg
from promptgrad import lm, nn, optim
from promptgrad.autograd import Critique, Gradient
from promptgrad.testing import Fields, LoopbackLM, Status

ROWS = [pg.Example(text=f"t{i}", word="right").with_inputs("text") for i in range(12)]
CRITERION = nn.MetricLoss(pg.metrics.exact_match)


def blame(*parameters):
    for parameter in parameters:
        parameter.grad = Gradient([Critique("", "x", 0, "instruction", "Say good.")])


def writes(*texts):
    """An LM that writes these texts, the last one for ever."""
    left = list(texts)
    return lm.FunctionLM(Fields(new_instruction=lambda _: left.pop(0) if len(left) > 1 else left[0]), name="writer")


@pytest.fixture
def model():
    """A program that is right where its instruction says "good"; its instruction is criticised."""

    def answer(messages):
        return Fields(word="right" if "good" in messages[0].content else "wrong")(messages)

    model = nn.Predict("text -> word", instruction="Answer.").to(lm.FunctionLM(answer, name="small"))
    blame(model.instruction)
    return model


class Closure:
    """Runs the rows, and counts how often."""

    def __init__(self, model, rows=ROWS):
        self.model, self.rows, self.runs = model, rows, 0

    def __call__(self):
        self.runs += 1
        return CRITERION(self.model.map(self.rows), self.rows)


class Noted(optim.Optimizer):
    """Notes the calls of a step; proposes each of some texts, for each parameter."""

    kinds = ("instruction",)

    def __init__(self, params, *texts):
        super().__init__(params)
        self.calls, self._texts = [], texts

    def _variants(self):
        return len(self._texts)

    async def _propose_variants(self, count):
        self.calls.append(f"propose {count}")
        return [
            [(p, optim.Change("", p.kind, "proposed", old=p.data, new=text)) for p, _ in self.trained()]
            for text in self._texts[:count]
        ]

    def _least_price(self):
        self.calls.append("least price")
        return 0.0

    def _price(self, changes):
        self.calls.append(f"price {changes[0][1].new}")
        return 0.0

    def _remember(self, parameter, change, *, alone=True):
        self.calls.append(f"remember {change.new} {change.status}")

    def _notes(self, loss):
        self.calls.append("notes")
        return []


def steps(opt, closure, how):
    """One step with a plain closure, called from `step` or `astep`, or with a coroutine function."""
    if how == "step":
        return opt.step(closure)

    async def later():
        return closure()

    return asyncio.run(opt.astep(closure if how == "astep" else later))


@pytest.mark.parametrize("how", ["step", "astep", "coroutine"])
def test_the_order_of_calls_is_that_of_the_contract(model, how):
    opt = Noted([model.instruction], "good", "bad", "very good")

    def closure():
        opt.calls.append(f"closure {model.instruction.data}")
        return losses[model.instruction.data]

    losses = {}
    for text in ("Answer.", "good", "bad", "very good"):
        with pg.autograd.candidate({model.instruction: text}):
            losses[text] = CRITERION(model.map(ROWS), ROWS)
    report = steps(opt, closure, how)
    assert opt.calls == [
        "closure Answer.",
        "least price",
        "propose 3",
        *("price good", "price bad", "price very good"),
        *("closure good", "closure bad", "closure very good"),
        *("price good", "price bad", "price very good"),
        *("remember bad rejected", "remember very good rejected", "remember good accepted"),
    ]
    assert [change.new for change in report.accepted] == ["good"]
    assert model.instruction.data == "good"


def test_search_optimizers_have_no_step_at_all(model):
    opt = optim.MIPRO(model.parameters())
    for name in ("step", "astep", "propose", "accept", "revert"):
        assert not hasattr(opt, name)
        with pytest.raises(AttributeError, match=r"no rule for a single step: write promptgrad\.Trainer"):
            getattr(opt, name)
    assert isinstance(opt, optim.Search)
    assert not isinstance(opt, optim.Optimizer)
    assert isinstance(optim.TGD(model.parameters()), optim.Search)


class TestOrder:
    def test_where_nothing_passed_the_checks_it_is_run_for_the_values_as_they_are_alone(self, model):
        closure = Closure(model)
        opt = optim.TGD(model.parameters(), lm=writes(""), proposals=2)
        report = opt.step(closure)
        assert closure.runs == 1
        assert report.gate_usage.calls == 12
        assert "it is empty" in repr(report)
        assert "nothing gated" in repr(report)
        assert opt.step(closure, loss=closure()).gate_usage.calls == 0

    def test_nor_in_a_coroutine(self, model):
        closure = Closure(model)
        asyncio.run(optim.TGD(model.parameters(), lm=writes("")).astep(closure))
        assert closure.runs == 1

    def test_where_nothing_failed_before_it_is_not_run(self, model):
        closure, opt = Closure(model), optim.TGD(model.parameters(), lm=writes("Be good."))
        opt.step(closure)
        opt.zero_grad()
        closure.runs = 0
        report = opt.step(closure)
        assert (closure.runs, report.calls) == (0, 0)

    def test_nor_where_nothing_is_trained(self, model):
        model.requires_grad_(False)
        closure = Closure(model)
        optim.TGD(model.parameters(), lm=writes("Be good.")).step(closure)
        assert closure.runs == 0

    def test_it_is_run_once_for_the_values_as_they_are_and_once_for_each_that_passed(self, model):
        closure = Closure(model)
        report = optim.TGD(model.parameters(), lm=writes("Be good.", "", "Be very good."), proposals=3).step(closure)
        assert closure.runs == 3
        assert report.gate_usage.calls == 36
        assert report.calls == 39

    def test_a_closure_that_calls_backward_is_run_before_the_proposals(self, model):
        critic = nn.Critic(lm=lm.FunctionLM(Fields(critique="Say good."), name="critic"))
        opt = optim.TGD(model.parameters(), lm=writes("Be nice.", "Be good."), proposals=1)
        said = []

        def closure():
            if pg.is_grad_enabled():
                opt.zero_grad()
            loss = CRITERION(model.map(ROWS), ROWS)
            if pg.is_grad_enabled():
                loss.backward(critic=critic)
                said.append(model.instruction.grad)
            return loss

        model.instruction.grad = None
        assert not opt.step(closure).accepted
        assert len(said) == 1
        assert opt.step(closure).accepted  # from the gradient of this run, not of the one before
        assert len(said) == 2
        assert model.instruction.data == "Be good."

    @pytest.mark.parametrize("wrong", [lambda loss: (loss,), lambda loss: (0.5,), lambda loss: (None, 0.5)])
    def test_a_loss_is_no_closure(self, model, wrong):
        opt = optim.TGD(model.parameters(), lm=writes("Be good."))
        given = wrong(Closure(model)())
        with pytest.raises(TypeError, match="closure"):
            opt.step(*given[:1], **({"loss": given[1]} if len(given) > 1 else {}))
        assert model.instruction.data == "Answer."

    def test_a_coroutine_function_is_sent_to_astep(self, model):
        opt = optim.TGD(model.parameters(), lm=writes("Be good."))

        async def closure():
            return Closure(model)()

        with pytest.raises(TypeError, match=r"await optimizer\.astep\(closure\)"):
            opt.step(closure)
        with pytest.raises(TypeError, match=r"await optimizer\.astep\(closure\)"):
            opt.step(lambda: closure())


class TestTooFewRows:
    def test_nothing_is_paid_for_what_no_proposal_could_show(self, model):
        closure = Closure(model, ROWS[:3])
        opt = optim.TGD(model.parameters(), lm=writes("Be good.", "Be so good.", "Good."), proposals=3)
        report = opt.step(closure)
        assert closure.runs == 1
        assert report.gate is None
        assert (report.proposals, report.calls) == ((), 3), "the three rows of the closure alone"
        (change,) = report.changes
        assert change.status == "untouched"
        assert change.reason.startswith("not tried: no gain on 3 rows (3 of them not right) can be beyond doubt")
        assert "of one proposal at gate=0.9 one must win 4 rows or more" in change.reason
        assert opt.state[model.instruction] == {}
        report = opt.step(Closure(model, ROWS[:4]))
        assert report.accepted  # with four it can, as was said
        assert len(report.proposals) == report.gate.of == 1, "of two or three none could"

    @pytest.mark.parametrize(("rows", "proposals"), [(4, 1), (5, 3)])
    def test_as_many_proposals_are_paid_for_as_the_gate_could_tell_apart(self, model, rows, proposals):
        report = optim.TGD(model.parameters(), lm=writes("Say.", "Tell.", "Write.")).step(Closure(model, ROWS[:rows]))
        assert len(report.proposals) == report.gate.of == proposals

    def test_nor_where_all_rows_are_right_already(self, model):
        model.instruction.data = "Do good."
        closure, writer = Closure(model), writes("Be good.")
        with pg.track_usage() as usage:
            report = optim.TGD(model.parameters(), lm=writer).step(closure)
        assert closure.runs == 1
        assert usage.total.calls == 12, "the writer was not asked"
        assert "all 12 rows of the closure are right" in repr(report)
        assert "Let the closure run harder ones" in repr(report)

    def test_unless_a_shorter_text_is_worth_something(self, model):
        model.instruction.data = "Do good, " + "and so on " * 60
        opt = optim.TGD(model.parameters(), lm=writes("Be good."), length_price=0.5)
        report = opt.step(Closure(model))
        assert report.accepted
        assert "as good, and shorter" in repr(report)

    def test_nor_where_no_row_has_an_answer(self, model):
        def late(messages):
            raise pg.errors.LMTimeoutError("too slow")

        model.to(lm.FunctionLM(late))
        report = optim.TGD(model.parameters(), lm=writes("Be good.")).step(Closure(model))
        assert not report.proposals
        assert "no row could be compared, as no language model answered" in repr(report)

    def test_a_length_that_cannot_be_earned_is_told_and_not_paid_for(self, model):
        closure = Closure(model)
        opt = optim.TGD(model.parameters(), lm=writes("Be good" + ", so good" * 100), length_price=1.0)
        assert "its length costs +3.000, more than can be shown to be gained on 12 rows" in repr(opt.step(closure))
        assert closure.runs == 1
        assert "its length costs" in opt.state[model.instruction]["rejected"][0]["effect"]

    def test_what_is_not_tried_takes_no_doubt_from_the_others(self, model):
        closure = Closure(model, ROWS[:5])
        texts = ("Be good.", "Be good" + ", so good" * 900, "Be good" + ", and good" * 900)
        opt = optim.TGD(model.parameters(), lm=writes(*texts), length_price=1.0, max_tokens=None, proposals=3)
        report = opt.step(closure)
        assert model.instruction.data == "Be good."
        assert report.gate.of == 1
        assert closure.runs == 2
        assert [change.reason.partition(",")[0][:16] for change in report.proposals[1:]] == ["its length costs"] * 2

    def test_a_shorter_text_may_still_pay(self, model):
        model.instruction.data = "Do good, " + "and so on " * 60
        opt = optim.TGD(model.parameters(), lm=writes("Be good."), length_price=0.5)
        assert opt.step(Closure(model)).accepted

    def test_in_a_coroutine(self, model):
        closure = Closure(model, ROWS[:3])
        report = asyncio.run(optim.TGD(model.parameters(), lm=writes("Be good."), proposals=1).astep(closure))
        assert closure.runs == 1
        assert "of one proposal at gate=0.9 one must win 4 rows or more" in repr(report)


class TestFailure:
    @pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
    @pytest.mark.parametrize("asynchronous", [False, True])
    def test_a_step_that_fails_in_its_trial_leaves_nothing_pending(self, model, error, asynchronous):
        opt = optim.TGD(model.parameters(), lm=writes("Be good."), proposals=1)
        closure = Closure(model)

        def fails():
            if closure.runs:
                raise error
            return closure()

        with pytest.raises(error):
            asyncio.run(opt.astep(fails)) if asynchronous and error is RuntimeError else opt.step(fails)
        with pytest.raises(RuntimeError, match="nothing is pending"):
            opt.accept()
        assert model.instruction.data == "Answer."
        opt.revert()
        assert opt.state[model.instruction] == {}

    def test_nor_one_whose_losses_do_not_fit(self, model):
        opt = optim.TGD(model.parameters(), lm=writes("Be good."), proposals=1)
        with pytest.raises(ValueError, match="other examples"):
            opt.step(Closure(model), loss=Closure(model, ROWS[:8])())
        with pytest.raises(RuntimeError, match="nothing is pending"):
            opt.accept()


class TestRevert:
    def test_it_takes_back_the_last_step_only(self, model):
        opt = optim.TGD(model.parameters(), lm=writes("One.", "Two."))
        opt.step()
        opt.step()
        opt.revert()
        assert model.instruction.data == "One."
        opt.revert()
        assert model.instruction.data == "One."

    def test_nothing_if_the_last_step_installed_nothing(self, model):
        opt = optim.TGD(model.parameters(), lm=writes("One.", "Bad."), proposals=1)
        opt.step()
        assert not opt.step(Closure(model)).accepted
        opt.revert()
        assert model.instruction.data == "One."
        model.instruction.grad = None
        opt.step()
        opt.revert()
        assert model.instruction.data == "One."

    def test_a_value_that_came_after_is_not_overwritten(self, model):
        opt = optim.TGD(model.parameters(), lm=writes("One."))
        opt.step()
        model.instruction.data = "Restored."
        with pytest.raises(RuntimeError, match="instruction was given another value after the step"):
            opt.revert()
        assert model.instruction.data == "Restored."

    def test_the_value_as_it_was_comes_back_and_not_what_lay_over_it(self, model):
        opt = optim.TGD(model.parameters(), lm=writes("One."))
        with model.candidate({"instruction": "Another."}):
            opt.step()
        assert model.instruction.data == "One."
        opt.revert()
        assert model.instruction.data == "Answer."


class TestMemory:
    def remembered(self, opt, model):
        return opt.state[model.instruction].get("rejected", [])

    def test_what_was_never_measured_is_not_remembered(self):
        down = [False]

        def reply(messages):
            return Status(400) if down[0] else Fields(word="wrong")(messages)

        with LoopbackLM(reply) as server:
            model = nn.Predict("text -> word", instruction="Answer.").to(pg.LM("m", base_url=server.url, cache=False))
            blame(model.instruction)
            opt = optim.TGD(model.parameters(), lm=writes("Be good."), proposals=1)
            loss = Closure(model)()
            down[0] = True
            report = opt.step(Closure(model), loss=loss)
        assert report.gate.pairs == 0
        assert "no row could be compared" in report.changes[0].reason
        assert "gated: no row compared, 12 without an answer" in repr(report)
        assert self.remembered(opt, model) == []
        assert opt.step().accepted

    def test_what_looked_better_may_come_again_and_the_writer_is_told(self, model):
        opt = optim.TGD(model.parameters(), lm=writes("Be good."), proposals=1)
        mixed = [pg.Example(text=f"t{i}", word="right" if i < 2 else "odd").with_inputs("text") for i in range(12)]
        assert "not beyond doubt" in opt.step(Closure(model, mixed)).gate.reason
        (entry,) = self.remembered(opt, model)
        assert not entry["measured"]
        assert entry["effect"].endswith("on 12 pairs; undecided, it may come again")
        assert opt.step(Closure(model)).accepted
        assert self.remembered(opt, model) == []

    def test_what_did_not_gain_is_not_tried_again(self, model):
        opt = optim.TGD(model.parameters(), lm=writes("Be nice."), proposals=1)
        opt.step(Closure(model))
        (entry,) = self.remembered(opt, model)
        assert entry["measured"]
        closure = Closure(model)
        assert "tried before" in opt.step(closure).changes[0].reason
        assert closure.runs == 1

    def test_what_was_pending_and_dropped_may_come_again(self, model):
        opt = optim.TGD(model.parameters(), lm=writes("Be good."))
        opt.propose()
        opt.revert()
        assert [entry["effect"] for entry in self.remembered(opt, model)] == ["not tried"]
        assert opt.step().accepted


class TestIdentity:
    def test_equal_names_are_told_apart(self, model):
        other = nn.Predict("text -> word", instruction="Reply.").to(model.lm)
        blame(other.instruction)
        first, second = model.instruction, other.instruction
        groups = [
            {"params": [("instruction", first)], "max_edit": 0.5},
            {"params": [("instruction", second)], "max_edit": 0.25},
        ]
        opt = optim.TGD(groups, lm=writes("Answer good."), proposals=1)
        scheduler = optim.TrustRegionEdit(opt)
        first.data = "Answer x."
        report = opt.step(lambda: Closure(model)() + Closure(other)())
        assert [(change.path, change.status) for change in report.changes] == [
            ("instruction", "accepted"),
            ("instruction#1", "rejected"),
        ]
        scheduler.step(report)
        assert scheduler.get_last_edit() == [0.75, 0.375]  # nothing could be tried of the second, for its size alone
        state = opt.state_dict()
        assert list(state["state"]) == ["instruction#1"]
        again = optim.TGD(groups, lm=writes("x"))
        again.load_state_dict(state)
        assert again.state[second]["rejected"][0]["text"] == "Answer good."
        assert again.state[first] == {}

    def test_without_a_name_the_role_or_the_place_names_it(self):
        params = [pg.Parameter("a", "solution", role="a title"), pg.Parameter("b", "solution")]
        blame(*params)
        opt = optim.TGD(params, lm=lm.FunctionLM(Fields(new_solution="c")), proposals=1)
        shown = repr(opt.step())
        assert "\n  a title  accepted" in shown
        assert "\n  parameter1  accepted" in shown
        assert "a title, parameter1" in repr(opt)

    def test_a_report_calls_a_parameter_without_a_name_by_the_place_where_it_was_blamed(self, model):
        opt = optim.TGD([p for p in model.parameters() if p.kind == "instruction"], lm=writes("Answer good."))
        assert [change.path for change in opt.step().changes] == ["x.instruction"]
        assert list(opt.names().values()) == ["parameter0"]


class TestReport:
    def test_the_text_of_a_single_rejected_proposal_and_its_cost_are_shown(self, model):
        shown = repr(optim.TGD(model.parameters(), lm=writes("Be nice."), proposals=1).step(Closure(model)))
        assert "'Answer.' -> 'Be nice.'  1 call" in shown

    def test_what_passed_and_was_not_kept_says_why(self, model):
        report = optim.TGD(model.parameters(), lm=writes("Be good.", "Do good.", "Good or good.")).step(Closure(model))
        assert [change.reason for change in report.proposals[1:]] == ["as good, but proposal 0 is kept"] * 2
        assert "    1: rejected  gain +1.000" in repr(report)
        assert repr(report).count("as good, but proposal 0 is kept") == 2

    def test_rows_without_an_answer_are_counted(self, model):
        def answer(messages):
            if "good" in messages[0].content and "t0" in messages[-1].content:
                raise pg.errors.LMTimeoutError("too slow")
            return Fields(word="right" if "good" in messages[0].content else "wrong")(messages)

        model.to(lm.FunctionLM(answer, name="slow"))
        report = optim.TGD(model.parameters(), lm=writes("Be good."), proposals=1).step(Closure(model))
        assert report.gate.dropped == 1
        assert "on 11 pairs (1 row without an answer left out)" in repr(report)
