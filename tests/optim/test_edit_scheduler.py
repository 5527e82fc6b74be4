import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from promptgrad import Parameter, lm, nn, optim
from promptgrad.autograd import Critique, Gradient
from promptgrad.errors import StateDictError


def optimizer(*bounds, **options):
    groups = [{"params": [(f"p{i}", Parameter("x"))], "max_edit": bound} for i, bound in enumerate(bounds)]
    return optim.TGD(groups, **options)


def values(scheduler, steps):
    seen = [scheduler.get_last_edit()]
    for _ in range(steps):
        scheduler.step()
        seen.append(scheduler.get_last_edit())
    return seen


class TestValues:
    def test_a_function_of_the_step(self):
        opt = optimizer(0.8, 0.4)
        assert values(optim.LambdaEdit(opt, lambda step: 1 / (1 + step)), 1) == [[0.8, 0.4], [0.4, 0.2]]
        assert [group["max_edit"] for group in opt.param_groups] == [0.4, 0.2]

    def test_a_function_for_each_group(self):
        scheduler = optim.LambdaEdit(optimizer(0.8, 0.4), [lambda step: 1, lambda step: 0.5**step])
        assert values(scheduler, 1)[-1] == [0.8, 0.2]
        with pytest.raises(ValueError, match="each of the 2 groups, not 1"):
            optim.LambdaEdit(optimizer(0.8, 0.4), [lambda step: 1])
        for wrong in (0.5, [0.5, 0.5]):
            with pytest.raises(TypeError, match="edit_lambda is a function"):
                optim.LambdaEdit(optimizer(0.8, 0.4), wrong)

    def test_steps(self):
        scheduler = optim.StepEdit(optimizer(0.8), step_size=2)
        assert [edit for (edit,) in values(scheduler, 4)] == [0.8, 0.8, 0.4, 0.4, 0.2]

    def test_the_cosine_is_that_of_torch(self):
        torch = pytest.importorskip("torch")
        sgd = torch.optim.SGD([torch.zeros(1)], lr=0.8)
        theirs = torch.optim.lr_scheduler.CosineAnnealingLR(sgd, T_max=5, eta_min=0.1)
        ours = optim.CosineAnnealingEdit(optimizer(0.8), T_max=5, min_edit=0.1)
        for _ in range(12):
            assert math.isclose(ours.get_last_edit()[0], theirs.get_last_lr()[0], abs_tol=1e-9)
            sgd.step()
            theirs.step()
            ours.step()

    def test_a_group_that_came_later_moves_from_its_own_start(self):
        opt = optimizer(0.8)
        scheduler = optim.StepEdit(opt, step_size=1)
        scheduler.step()
        opt.add_param_group({"params": [("late", Parameter("y"))], "max_edit": 1.0})
        scheduler.step()
        assert scheduler.get_last_edit() == [0.2, 0.25]

    @settings(deadline=None, max_examples=50)
    @given(
        st.lists(st.floats(0.01, 1), min_size=1, max_size=3),
        st.floats(-10, 10, allow_nan=False),
        st.floats(0.01, 1),
        st.lists(st.sampled_from(["accepted", "rejected", "untouched"]), max_size=12),
    )
    def test_none_leaves_its_range(self, bounds, factor, floor, fates):
        for make in (
            lambda opt: optim.LambdaEdit(opt, lambda step: factor**step, min_edit=floor),
            lambda opt: optim.StepEdit(opt, 1, gamma=abs(factor) + 0.01, min_edit=floor),
            lambda opt: optim.CosineAnnealingEdit(opt, 3, min_edit=floor),
            lambda opt: optim.TrustRegionEdit(opt, grow=1 + abs(factor), shrink=0.3, min_edit=floor),
        ):
            scheduler = make(optimizer(*bounds))
            for fate in fates:
                scheduler.step(report_of(fate))
                assert all(floor <= edit <= 1 for edit in scheduler.get_last_edit())


def report_of(*fates):
    """A gated step in which parameter i met fate i."""
    verdict = optim.Verdict(accepted="accepted" in fates)
    changes = tuple(
        optim.Change(f"p{i}", "instruction", fate, verdict=None if fate == "untouched" else verdict)
        for i, fate in enumerate(fates)
    )
    return optim.StepReport(changes, verdict, proposals=tuple(c for c in changes if c.verdict is not None))


class TestPlateau:
    def test_losses_that_no_longer_fall_halve_the_bound(self):
        scheduler = optim.ReduceEditOnPlateau(optimizer(0.8, 0.4), patience=1)
        for loss in (0.5, 0.4, 0.4, 0.39995):
            scheduler.step(loss)
        assert scheduler.get_last_edit() == [0.4, 0.2]
        for loss in (0.3, 0.3, 0.2, 0.2):
            scheduler.step(loss)
        assert scheduler.get_last_edit() == [0.4, 0.2]
        scheduler.reset()
        assert scheduler.get_last_edit() == [0.8, 0.4]

    def test_a_report_is_a_gain_if_something_was_installed(self):
        scheduler = optim.ReduceEditOnPlateau(optimizer(0.8), factor=0.25, patience=0)
        scheduler.step(report_of("accepted"))
        assert scheduler.get_last_edit() == [0.8]
        scheduler.step(report_of("rejected"))
        assert scheduler.get_last_edit() == [0.2]

    def test_its_state_goes_on_where_it_was(self):
        scheduler = optim.ReduceEditOnPlateau(optimizer(0.8), patience=1)
        for loss in (0.5, 0.5):
            scheduler.step(loss)
        other = optim.ReduceEditOnPlateau(optimizer(0.8), patience=1)
        other.load_state_dict(json.loads(json.dumps(scheduler.state_dict())))
        for one in (scheduler, other):
            one.step(0.5)
        assert scheduler.get_last_edit() == other.get_last_edit() == [0.4]
        with pytest.raises(StateDictError, match="no state of a ReduceEditOnPlateau"):
            other.load_state_dict(optim.StepEdit(optimizer(0.8), 2).state_dict())

    @pytest.mark.parametrize("options", [{"factor": 1}, {"factor": 0}, {"patience": -1}, {"threshold": -1}])
    def test_what_is_out_of_range_is_refused(self, options):
        with pytest.raises(ValueError, match="factor lies in"):
            optim.ReduceEditOnPlateau(optimizer(0.8), **options)
        with pytest.raises(TypeError, match="in losses or reports of steps"):
            optim.ReduceEditOnPlateau(optimizer(0.8)).step()


class TestTrustRegion:
    def test_it_follows_the_gate_group_by_group(self):
        scheduler = optim.TrustRegionEdit(optimizer(0.4, 0.4, 0.4), grow=2, shrink=0.5)
        scheduler.step(report_of("accepted", "rejected", "untouched"))
        assert scheduler.get_last_edit() == [0.8, 0.2, 0.4]
        scheduler.step(report_of("accepted", "rejected", "rejected"))
        assert scheduler.get_last_edit() == [1.0, 0.1, 0.2]

    def test_what_was_not_measured_is_no_evidence(self):
        scheduler = optim.TrustRegionEdit(optimizer(0.4))
        refused = optim.Change("p0", "instruction", "rejected", "it drops the placeholder {text}")
        scheduler.step(optim.StepReport((refused,), proposals=(refused,)))
        installed = optim.Change("p0", "instruction", "accepted", "", "a", "b")
        scheduler.step(optim.StepReport((installed,), proposals=(installed,)))
        assert scheduler.get_last_edit() == [0.4]

    def test_it_needs_the_report(self):
        with pytest.raises(TypeError, match=r"report = optimizer\.step\(closure\)"):
            optim.TrustRegionEdit(optimizer(0.4)).step()

    @pytest.mark.parametrize("options", [{"grow": 0.5}, {"shrink": 0}, {"min_edit": 0}, {"max_edit": 2}])
    def test_factors_out_of_range(self, options):
        with pytest.raises(ValueError, match="not"):
            optim.TrustRegionEdit(optimizer(0.4), **options)

    def test_a_measured_step_moves_the_bound_that_the_next_is_checked_against(self):
        model = nn.Predict("text -> word", instruction="Take one of the words.")
        list(model.named_parameters())
        model.to(lm.FunctionLM(lambda m: "[[ ## word ## ]]\nx\n\n[[ ## completed ## ]]"))
        texts = iter(["Take two of the words.", "Copy two of all words."])
        writer = lm.FunctionLM(lambda m: f"[[ ## new_instruction ## ]]\n{next(texts)}\n\n[[ ## completed ## ]]")
        opt = optim.TGD([model.instruction], lm=writer, max_edit=0.6, proposals=1)
        scheduler = optim.TrustRegionEdit(opt)
        batch = [{"text": f"t{i}", "word": "y"} for i in range(4)]
        from promptgrad import Example, metrics

        batch = [Example(row).with_inputs("text") for row in batch]
        criterion = nn.MetricLoss(metrics.exact_match)
        for _ in range(2):
            model.instruction.grad = Gradient([Critique("e", "", 0, "instruction", "no")])
            report = opt.step(lambda: criterion(model.map(batch), batch))
            scheduler.step(report)
        assert "more than max_edit=0.3" in report.changes[0].reason
        assert scheduler.get_last_edit() == [pytest.approx(0.45)], "nothing could be tried, for its size alone"


class TestState:
    def test_it_goes_on_where_it_stood(self):
        first = optim.CosineAnnealingEdit(optimizer(0.8, 0.6), T_max=10)
        for _ in range(4):
            first.step()
        state = json.loads(json.dumps(first.state_dict()))
        second = optim.CosineAnnealingEdit(optimizer(0.3, 0.3), T_max=10)
        second.load_state_dict(state)
        assert second.get_last_edit() == first.get_last_edit()
        assert values(second, 5) == values(first, 5)

    def test_a_trust_region_too(self):
        first = optim.TrustRegionEdit(optimizer(0.4), grow=2)
        first.step(report_of("accepted"))
        second = optim.TrustRegionEdit(optimizer(0.4), grow=2)
        second.load_state_dict(first.state_dict())
        second.step(report_of("rejected"))
        assert second.get_last_edit() == [0.4]
        second.reset()
        assert second.get_last_edit() == [0.4]

    def test_of_another_number_of_groups(self):
        state = optim.StepEdit(optimizer(0.4), 1).state_dict()
        with pytest.raises(StateDictError, match="1 groups, and this optimizer has 2"):
            optim.StepEdit(optimizer(0.4, 0.4), 1).load_state_dict(state)

    @pytest.mark.parametrize("name", ["base_edits", "edits"])
    @pytest.mark.parametrize(("values", "why"), [(None, "is a list"), ([], "of 0 groups"), ([0.5, 0.5], "of 2 groups")])
    def test_of_values_that_are_not_one_a_group(self, name, values, why):
        scheduler = optim.StepEdit(optimizer(0.4), 1)
        before = scheduler.state_dict()
        with pytest.raises(StateDictError, match=why):
            scheduler.load_state_dict({"last_epoch": 3, "base_edits": [0.4], "edits": [0.2], name: values})
        assert scheduler.state_dict() == before

    def test_a_group_that_was_added_is_in_it(self):
        def made():
            opt = optimizer(0.4)
            scheduler = optim.StepEdit(opt, 1)
            opt.add_param_group({"params": [Parameter("Later.")], "max_edit": 0.8})
            return scheduler

        state = made().state_dict()
        assert state["base_edits"] == state["edits"] == [0.4, 0.8]
        second = made()
        second.load_state_dict(state)
        second.step()
        assert second.get_last_edit() == [0.2, 0.4]

    def test_the_settings_are_part_of_the_optimizers(self):
        opt = optimizer(0.4)
        assert "schedulers" not in opt.config()
        optim.StepEdit(opt, step_size=3)
        config = json.loads(json.dumps(opt.config()))
        assert config["schedulers"] == [
            {"scheduler": "StepEdit", "step_size": 3, "gamma": 0.5, "min_edit": 0.01, "base_edits": [0.4]}
        ]
        assert "StepEdit(max_edit 0.4 after 0 steps)" in repr(optim.StepEdit(optimizer(0.4), 3))


class TestMisuse:
    def test_an_optimizer_without_the_bound(self):
        with pytest.raises(TypeError, match="LabeledFewShot has none"):
            optim.StepEdit(optim.LabeledFewShot(nn.Predict("a -> b").parameters()), 1)
        with pytest.raises(TypeError, match=r"moves max_edit of an optimizer such as optim\.TGD"):
            optim.EditScheduler(nn.Predict("a -> b"))

    def test_numbers_out_of_range(self):
        for make in (
            lambda: optim.StepEdit(optimizer(0.4), 0),
            lambda: optim.StepEdit(optimizer(0.4), 1, gamma=0),
            lambda: optim.CosineAnnealingEdit(optimizer(0.4), 0),
            lambda: optim.StepEdit(optimizer(0.4), 1, min_edit=0),
        ):
            with pytest.raises(ValueError, match="not"):
                make()

    def test_the_base_has_no_rule(self):
        with pytest.raises(NotImplementedError, match=r"override edit\(group\)"):
            optim.EditScheduler(optimizer(0.4))


class TestAttachment:
    def test_one_that_fails_is_not_attached(self):
        class NoRule(optim.EditScheduler):
            pass

        class Half(optim.EditScheduler):
            def edit(self, group):
                return [0.1][group]

        opt = optimizer(0.4, 0.3)
        for make in (NoRule, Half, lambda opt: optim.LambdaEdit(opt, lambda step: "x")):
            with pytest.raises((NotImplementedError, IndexError, ValueError)):
                make(opt)
        assert opt._schedulers == []
        assert [group["max_edit"] for group in opt.param_groups] == [0.4, 0.3]
        assert "schedulers" not in opt.config()

    def test_a_second_one_is_refused(self):
        opt = optimizer(0.4)
        first = optim.StepEdit(opt, 1)
        with pytest.raises(ValueError, match="has a scheduler already, StepEdit"):
            optim.CosineAnnealingEdit(opt, 4)
        assert opt._schedulers == [first]
        assert "StepEdit(max_edit 0.4 after 0 steps)" in repr(opt)

    def test_functions_for_fewer_groups_than_there_are_now(self):
        opt = optimizer(0.4)
        scheduler = optim.LambdaEdit(opt, [lambda step: 0.5])
        opt.add_param_group({"params": [Parameter("More.")]})
        with pytest.raises(ValueError, match="group 1 was added to the optimizer, and this scheduler has 1 functions"):
            scheduler.step()

    @pytest.mark.parametrize(
        "wrong",
        [None, {}, {"last_epoch": -1}, {"edits": [5.0]}, {"base_edits": ["x"]}, {"last_epoch": 1.5}],
    )
    def test_a_state_that_makes_no_sense_changes_nothing(self, wrong):
        scheduler = optim.StepEdit(optimizer(0.4), 1)
        state = {**scheduler.state_dict(), **wrong} if wrong else wrong
        with pytest.raises(StateDictError):
            scheduler.load_state_dict(state)
        assert (scheduler.last_epoch, scheduler.base_edits, scheduler.get_last_edit()) == (0, [0.4], [0.4])
