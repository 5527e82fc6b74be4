import pytest

import promptgrad as pg
from promptgrad import lm, nn, optim
from promptgrad.autograd import Critique, Gradient, Parameter
from promptgrad.errors import BudgetExceeded, StateDictError
from promptgrad.optim import Change, Optimizer
from promptgrad.testing import Fields


class Shout(Optimizer):
    """Writes every instruction in capitals."""

    kinds = ("instruction",)

    def __init__(self, params, loud=True, **options):
        super().__init__(params, {"loud": loud}, **options)

    async def _propose(self):
        changes = []
        for parameter, group in self.trained():
            new = parameter.data.upper() if group["loud"] else parameter.data
            status = "proposed" if new != parameter.data else "untouched"
            changes.append((parameter, Change(parameter.name, parameter.kind, status, "", parameter.data, new)))
        return changes


@pytest.fixture
def model():
    return nn.Sequential(nn.Predict("text -> word", instruction="pick"), nn.Predict("word -> answer", instruction="go"))


class TestParameters:
    def test_groups_have_options_of_their_own(self, model):
        opt = Shout([{"params": model[0].parameters()}, {"params": [model[1].instruction], "loud": False}])
        opt.step()
        assert (model[0].instruction.data, model[1].instruction.data) == ("PICK", "go")

    def test_names_and_parameters_as_in_torch(self, model):
        assert Shout(model.named_parameters()).parameters() == list(model.parameters())

    @pytest.mark.parametrize("params", [[], [{"params": []}]])
    def test_no_parameter(self, params):
        with pytest.raises(ValueError, match="empty parameter list"):
            Shout(params)

    def test_given_twice(self, model):
        with pytest.raises(ValueError, match=r"0\.instruction is given twice"):
            Shout([*model.named_parameters(), ("0.instruction", model.get_parameter("0.instruction"))])
        with pytest.raises(ValueError, match=r"Parameter\(instruction, 'pick', requires_grad=True\) is given twice"):
            Shout([*model.parameters(), model.get_parameter("0.instruction")])

    def test_an_unknown_option(self, model):
        with pytest.raises(ValueError, match="no option 'quiet' for a group; it has: loud"):
            Shout([{"params": model.parameters(), "quiet": True}])

    def test_a_module_instead_of_its_parameters(self, model):
        with pytest.raises(TypeError, match=r"pass model\.parameters\(\)"):
            Shout(model)
        with pytest.raises(TypeError, match=r"pass its \.parameters\(\)"):
            Shout([model])

    def test_a_tensor(self):
        torch = pytest.importorskip("torch")
        with pytest.raises(TypeError, match=r"go to torch\.optim"):
            Shout([torch.nn.Parameter(torch.zeros(2))])

    def test_what_requires_no_grad_is_not_trained(self, model):
        model[0].instruction.requires_grad_(False)
        opt = Shout(model.parameters())
        opt.step()
        assert (model[0].instruction.data, model[1].instruction.data) == ("pick", "GO")

    def test_kinds_without_a_rule_are_named_once(self, model):
        opt = Shout(model.parameters())
        first, second = opt.step(), opt.step()
        assert first.skipped == ("demos",)
        assert "no rule for parameters of kind demos" in repr(first)
        assert second.skipped == ()

    def test_zero_grad(self, model):
        model[0].instruction.grad = Gradient([Critique("e", "0", 0, "instruction", "no")])
        Shout(model.parameters()).zero_grad()
        assert model[0].instruction.grad is None


class TestPhases:
    def test_propose_changes_nothing_until_accepted(self, model):
        opt = Shout(model.parameters())
        changes = opt.propose()
        assert [change.new for change in changes] == ["PICK", "GO"]
        assert model[0].instruction.data == "pick"
        assert [change.status for change in opt.accept()] == ["accepted", "accepted"]
        assert model[0].instruction.data == "PICK"
        opt.revert()
        assert model[0].instruction.data == "pick"

    def test_revert_drops_what_is_pending(self, model):
        opt = Shout(model.parameters())
        opt.propose()
        opt.revert()
        with pytest.raises(RuntimeError, match="nothing is pending"):
            opt.accept()
        assert model[0].instruction.data == "pick"

    def test_a_parameters_own_constraint_rejects(self):
        parameter = Parameter("pick", constraints=[lambda text: "no capitals" if text.isupper() else None])
        report = Shout([parameter]).step()
        assert report.changes[0].status == "rejected"
        assert report.changes[0].reason == "no capitals"
        assert parameter.data == "pick"


def test_config_and_state_hold_no_objects(model):
    import json

    opt = optim.TGD(model.parameters(), lm=lm.FunctionLM(str, name="writer"), constraints=[str.isupper])
    assert json.loads(json.dumps(opt.config()))["groups"][0]["lm"] == "writer"
    json.dumps(opt.state_dict())


def test_a_state_of_other_parameters_is_refused(model):
    other = nn.Predict("a -> b")
    state = Shout(other.parameters()).state_dict()
    with pytest.raises(StateDictError) as caught:
        Shout(model.parameters()).load_state_dict(state)
    assert caught.value.missing == ("0.instruction", "0.demos", "1.instruction", "1.demos")
    assert caught.value.unexpected == ("instruction", "demos")


def test_a_state_leaves_language_models_and_rules_as_they_are(model):
    writer = lm.FunctionLM(str, name="writer")
    state = optim.TGD(model.parameters(), lm=writer, max_edit=0.5, constraints=[str.isupper]).state_dict()
    other = optim.TGD(model.parameters(), max_tokens=None)
    other.load_state_dict(state)
    group = other.param_groups[0]
    assert (group["lm"], group["max_edit"], group["constraints"], group["max_tokens"]) == (None, 0.5, (), 1000)
    first = optim.TGD(model.parameters(), lm=writer)
    first.load_state_dict(optim.TGD(model.parameters(), lm="pocket").state_dict())
    assert first.param_groups[0]["lm"] is writer


class TestStateThatMakesNoSense:
    @pytest.mark.parametrize(
        ("change", "told"),
        [
            (lambda s: s["param_groups"][0].update(max_edit=5), "group 0: max_edit is a share"),
            (lambda s: s["param_groups"][0].update(max_edits=0.1), "there is no option 'max_edits'"),
            (lambda s: s.update(steps=-1), "steps: a number of steps, not -1"),
            (lambda s: s["state"].update({"strange": {}}), "unexpected  strange"),
            (lambda s: s["state"].update({"0.demos": []}), "0.demos: a dict"),
            (lambda s: s["state"].update({"0.instruction": {"rejected": ["x"]}}), "0.instruction: a rejected proposal"),
            (lambda s: s.pop("param_groups"), "what state_dict"),
            (lambda s: s.update(state=[]), "what state_dict"),
        ],
    )
    def test_is_refused_and_nothing_changes(self, model, change, told):
        opt = optim.TGD(model.parameters(), max_edit=0.5)
        opt.state[model[0].instruction]["rejected"] = [{"text": "x", "effect": "refused: y", "measured": False}]
        before = opt.state_dict()
        state = optim.TGD(model.parameters(), max_edit=0.25).state_dict()
        change(state)
        with pytest.raises(StateDictError) as caught:
            opt.load_state_dict(state)
        assert told in str(caught.value)
        assert opt.state_dict() == before

    @pytest.mark.parametrize("state", [None, [], {}, {"param_groups": 3}])
    def test_no_state_at_all(self, model, state):
        with pytest.raises(StateDictError, match=r"what state_dict\(\) returned"):
            Shout(model.parameters()).load_state_dict(state)

    def test_groups_that_hold_other_parameters(self, model):
        first, second = list(model.named_parameters())[::2]
        state = Shout([{"params": [first]}, {"params": [second]}]).state_dict()
        with pytest.raises(StateDictError, match=r"group 0: it holds 0\.instruction, and other parameters here"):
            Shout([{"params": [second]}, {"params": [first]}]).load_state_dict(state)

    def test_what_was_pending_is_dropped(self, model):
        opt = Shout(model.parameters())
        opt.step()
        opt.load_state_dict(opt.state_dict())
        opt.revert()
        assert model[0].instruction.data == "PICK"


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"max_edit": "0.5"}, TypeError),
        ({"max_edit": True}, TypeError),
        ({"max_edit": float("nan")}, ValueError),
        ({"length_price": float("inf")}, ValueError),
        ({"memory": -1}, ValueError),
        ({"max_evidence": 0}, ValueError),
        ({"max_tokens": 0}, ValueError),
        ({"temperature": -3}, ValueError),
        ({"proposals": 2.5}, TypeError),
        ({"gate": 90}, ValueError),
        ({"gate": "0.9"}, ValueError),
        ({"lm": 5}, TypeError),
        ({"edits": "patch"}, ValueError),
    ],
)
def test_options_out_of_range_are_refused_at_once(model, options, error):
    with pytest.raises(error, match=next(iter(options))):
        optim.TGD(model.parameters(), **options)


def test_what_print_shows_of_an_optimizer(model):
    solution = Parameter("x", "solution", role="a molecule")
    opt = optim.TGD([*model.parameters(), solution], edits="hunks", proposals=5, gate=0.95, memory=3)
    optim.StepEdit(opt, 2)
    shown = repr(opt)
    assert "edits='hunks' (solutions are rewritten), proposals=5, memory=3, gate=0.95" in shown
    assert "StepEdit(max_edit 1 after 0 steps)" in shown
    assert "a molecule" in shown


class TestGate:
    """`step(closure)`: the simulated model answers "up" to an instruction in capitals and "low" else."""

    def make(self, right, rows=8):
        model = nn.Predict("text -> word", instruction="pick")
        model.to(lm.FunctionLM(lambda m: reply("up" if m[0].content.startswith("PICK") else "low")))
        batch = [pg.Example(text=f"t{i}", word=right(i)).with_inputs("text") for i in range(rows)]
        criterion = nn.MetricLoss(pg.metrics.exact_match)
        calls = []

        def closure():
            calls.append(model.instruction.data)
            return criterion(model.map(batch), batch)

        return model, closure, calls

    def test_an_improvement_beyond_doubt_is_kept(self):
        model, closure, calls = self.make(lambda i: "up")
        report = Shout(model.parameters()).step(closure)
        assert calls == ["pick", "PICK"]
        assert report.gate.accepted
        assert (report.gate.before, report.gate.after, report.gate.pairs) == (0.0, 1.0, 8)
        assert report.gate.low > 0
        assert model.instruction.data == "PICK"
        assert report.calls == 16
        assert "0.000 -> 1.000 on 8 pairs" in repr(report)

    def test_a_worse_proposal_is_rejected(self):
        model, closure, _ = self.make(lambda i: "up" if i < 8 else "low", rows=20)
        report = Shout(model.parameters()).step(closure)
        assert not report.gate.accepted
        assert [change.status for change in report.changes] == ["rejected"]
        assert "not better" in report.changes[0].reason
        assert model.instruction.data == "pick"

    def test_one_more_right_of_eight_is_not_enough(self):
        model, closure, _ = self.make(lambda i: "up" if i == 0 else "neither")
        report = Shout(model.parameters()).step(closure)
        assert "not beyond doubt" in report.gate.reason
        assert model.instruction.data == "pick"

    def test_any_gain_passes_a_gate_of_one_half(self):
        model, closure, _ = self.make(lambda i: "up" if i < 3 else "neither")
        assert Shout(model.parameters(), gate=0.5).step(closure).gate.accepted

    def test_a_known_loss_saves_a_run(self):
        model, closure, calls = self.make(lambda i: "up")
        Shout(model.parameters()).step(closure, loss=closure())
        assert calls == ["pick", "PICK"]

    def test_a_closure_with_backward_in_it(self):
        model, closure, _calls = self.make(lambda i: "up")
        opt = Shout(model.parameters())

        def as_in_torch():
            opt.zero_grad()
            loss = closure()
            if pg.is_grad_enabled():
                loss.backward(inputs=[model.demos])
            return loss

        assert opt.step(as_in_torch).gate.accepted
        model.instruction.data = "pick"
        with pytest.raises(TypeError, match=r"only `if promptgrad\.is_grad_enabled\(\):`"):
            opt.step(lambda: [loss := closure(), loss.backward(inputs=[model.demos])][0])
        assert model.instruction.data == "pick"

    def test_nothing_is_run_for_no_proposal(self):
        model, closure, calls = self.make(lambda i: "up")
        report = Shout([{"params": model.parameters(), "loud": False}]).step(closure, loss=closure())
        assert calls == ["pick"]
        assert report.gate is None

    def test_a_closure_must_return_the_loss_of_one_batch(self):
        model, _closure, _ = self.make(lambda i: "up")
        with pytest.raises(TypeError, match="must return the loss"):
            Shout(model.parameters()).step(lambda: 0.5)
        sizes = iter([8, 7])

        def shrinking():
            batch = [pg.Example(text=f"t{i}", word="up").with_inputs("text") for i in range(next(sizes))]
            return nn.MetricLoss(pg.metrics.exact_match)(model.map(batch), batch)

        with pytest.raises(ValueError, match="other examples than before"):
            Shout(model.parameters()).step(shrinking)

    def test_in_a_sum_a_sample_is_one_pair_with_the_weighted_score(self):
        model, _, _ = self.make(lambda i: "up")
        batch = [pg.Example(text=f"t{i}", word="up").with_inputs("text") for i in range(8)]
        right = nn.MetricLoss(pg.metrics.exact_match)
        short = nn.MetricLoss(lambda example, output: 3 - len(output.word))
        short.metric.best = 3.0

        def closure(weight):
            outputs = model.map(batch)
            return right(outputs, batch) + weight * short(outputs, batch)

        report = Shout(model.parameters()).step(lambda: closure(0.5))
        assert (report.gate.pairs, report.gate.before, report.gate.after) == (8, 0.0, 1.5)
        assert report.gate.accepted
        model.instruction.data = "pick"
        report = Shout(model.parameters()).step(lambda: closure(-1.0))
        assert (report.gate.before, report.gate.after) == (0.0, 0.0)
        assert not report.gate.accepted

    def test_rows_without_an_answer_leave_the_comparison(self):
        from promptgrad.errors import LMTimeoutError

        def answer(messages):
            new = messages[0].content.startswith("PICK")
            if new and "t0" in messages[-1].content:
                raise LMTimeoutError("too slow")
            return reply("up" if new else "low")

        model, closure, _ = self.make(lambda i: "up")
        model.to(lm.FunctionLM(answer))
        report = Shout(model.parameters()).step(closure)
        assert report.gate.pairs == 7
        assert report.gate.after == 1.0

    def test_a_program_that_crashes_scores_nothing_on_that_row(self):
        """Else a proposal could win by a crash where its answer would be wrong."""

        class Strict(nn.Module):
            def __init__(self):
                super().__init__()
                self.step = nn.Predict("text -> word", instruction="pick")

            def forward(self, text):
                found = self.step(text=text)
                if found.word not in ("up", "low"):
                    raise ValueError("no such word")
                return found

        def answer(messages):
            new = messages[0].content.startswith("PICK")
            return reply("broken" if new and "t0" in messages[-1].content else "up" if new else "low")

        model = Strict().to(lm.FunctionLM(answer))
        batch = [pg.Example(text=f"t{i}", word="up").with_inputs("text") for i in range(8)]
        criterion = nn.MetricLoss(pg.metrics.exact_match)
        gate = Shout(model.parameters()).step(lambda: criterion(model.map(batch), batch)).gate
        assert (gate.pairs, gate.dropped, gate.after) == (8, 0, 7 / 8)

    @pytest.mark.asyncio
    async def test_in_async_code(self):
        model, closure, _ = self.make(lambda i: "up")
        report = await Shout(model.parameters()).astep(closure)
        assert report.gate.accepted

    @pytest.mark.asyncio
    async def test_a_coroutine_function_as_closure(self):
        model, _, _ = self.make(lambda i: "up")
        batch = [pg.Example(text=f"t{i}", word="up").with_inputs("text") for i in range(8)]
        criterion = nn.MetricLoss(pg.metrics.exact_match)

        async def closure():
            return await criterion.acall(await model.amap(batch), batch)

        report = await Shout(model.parameters()).astep(closure)
        assert report.gate.accepted


def reply(word):
    return f"[[ ## word ## ]]\n{word}\n\n[[ ## completed ## ]]"


@pytest.mark.parametrize(
    ("name", "instead"),
    [
        ("Adam", r"torch\.optim\.Adam\(model\.weights\(\)\)"),
        ("SGD", r"optim\.TGD"),
        ("MIPROv2", r"optim\.MIPRO"),
        ("TextualGradientDescentwithMomentum", r"optim\.TGD, whose writer sees"),
        ("mipro", "did you mean optim.MIPRO"),
        ("COPRO", r"MIPRO\(params, num_demo_sets=0\)"),
        ("SIMBA", r"optim\.GEPA or promptgrad\.optim\.TGD"),
        ("BootstrapRS", r"optim\.RandomSearch"),
        ("BootstrapFewShotWithOptuna", r"MIPRO\(params, num_candidates=0\)"),
        ("lr_scheduler", "StepEdit, CosineAnnealingEdit.* move max_edit"),
        ("CosineAnnealingLR", r"CosineAnnealingEdit\(optimizer, T_max\)"),
    ],
)
def test_slips_point_to_the_right_name(name, instead):
    with pytest.raises(AttributeError, match=instead):
        getattr(optim, name)


@pytest.mark.parametrize(
    ("room", "name", "instead"),
    [
        (pg, "sum", "losses also add"),
        (pg, "set_backward_engine", r"configure\(critic=\.\.\.\)"),
        (pg, "get_engine", r"promptgrad\.LM"),
        (pg, "TextLoss", r"nn\.JudgeLoss"),
        (pg, "BlackboxLLM", r"nn\.Predict"),
        (nn, "BlackboxLLM", r"nn\.Predict"),
    ],
)
def test_names_of_textgrad_point_to_ours(room, name, instead):
    with pytest.raises(AttributeError, match=instead):
        getattr(room, name)


def test_the_room_holds_what_it_says():
    missing = [name for name in optim.__all__ if name != "BootstrapFinetune" and not hasattr(optim, name)]
    assert missing == []
    assert optim.BayesianSignatureOptimizer is optim.MIPRO


def test_a_budget_in_a_loop_of_ones_own():
    from promptgrad import run

    model = nn.Predict("text -> word").to(lm.FunctionLM(lambda m: reply("x")))
    with run.active(ledger=run.Ledger(run.Budget(calls=2))):
        model(text="a")
        model(text="b")
        with pytest.raises(BudgetExceeded):
            model(text="c")


def _wrong_program():
    lm = pg.lm.FunctionLM(Fields(answer="Paris", critique="say more", new_instruction="Answer in one word."))
    program = nn.Predict("question -> answer").to(lm)
    batch = [pg.Example(question=f"q{i}", answer="Rome").with_inputs("question") for i in range(6)]
    criterion = nn.MetricLoss(pg.metrics.exact_match)
    return program, batch, criterion, optim.TGD(program.parameters(), lm=lm, proposals=1)


def test_a_closure_that_only_clears_gradients_takes_nothing_away():
    program, batch, criterion, optimizer = _wrong_program()

    def closure():
        optimizer.zero_grad()
        return criterion(program.map(batch), batch)

    for _ in range(3):
        optimizer.zero_grad()
        criterion(program.map(batch), batch).backward()
        report = optimizer.step(closure)
        assert "no gradient" not in report.changes[0].reason
        assert len(program.instruction.grad.critiques) == 6


def test_the_trials_of_a_closure_that_learns_leave_the_gradient():
    program, batch, criterion, optimizer = _wrong_program()

    def closure():
        optimizer.zero_grad()
        loss = criterion(program.map(batch), batch)
        if pg.is_grad_enabled():
            loss.backward()
        return loss

    optimizer.step(closure)
    assert len(program.instruction.grad.critiques) == 6


def test_a_proposal_made_for_another_value_is_not_installed():
    program, batch, criterion, optimizer = _wrong_program()
    criterion(program.map(batch), batch).backward()
    optimizer.propose()
    program.instruction.data = "edited by hand"
    with pytest.raises(RuntimeError, match="was given another value since"):
        optimizer.accept()
    assert program.instruction.data == "edited by hand"


def test_nor_is_the_rest_of_such_a_proposal():
    first, second = Parameter("one"), Parameter("two")
    opt = Shout([first, second])
    opt.propose()
    second.data = "edited by hand"
    with pytest.raises(RuntimeError, match="was given another value since the proposal was made, and nothing was"):
        opt.accept()
    assert (first.data, second.data) == ("one", "edited by hand")
    opt.revert()  # drops what is pending
    assert (first.data, second.data) == ("one", "edited by hand")


def test_a_step_inside_a_forward_is_no_part_of_the_program():
    class Refining(nn.Module):
        def __init__(self):
            super().__init__()
            self.final = nn.Predict("text -> word")

        def forward(self, text):
            solution = pg.Parameter("cat", "solution", role="an animal")
            nn.MetricLoss(lambda example, output: pg.Score(0, feedback="bad"))(solution).backward()
            optim.TGD([solution], lm=lm, proposals=1).step()
            return self.final(text=f"{text}: {solution}").word

    lm = pg.lm.FunctionLM(Fields(word="x", new_solution="a dog"))
    batch = Refining().to(lm).map([{"text": "t"}])
    assert [node.path for node in batch.rows[0].tape.nodes] == ["final"]
