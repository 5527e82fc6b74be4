import asyncio
import json
import random
import re
from dataclasses import replace

import pytest

import promptgrad as pg
from promptgrad import lm, nn, optim
from promptgrad.data import Example
from promptgrad.errors import AsyncUsageError, DataError, GraphError, LMConnectionError
from promptgrad.train._gradcheck import BLANK, _derange
from tests.waiting import turns

WORDS = [f"{a}{b}{c}" for a in "bdfg" for b in "aeiou" for c in "klmn"]


class World:
    """A model that takes the first, the last or no word as its instruction says, and its critic and its writer.

    The critic learns from feedback alone: it says "Take the last word." if the answer that should have been is the
    last word of the text, and is at a loss where it is told of another text's answer, or of none.
    """

    def __init__(self, sections):
        self.sections = sections
        self.critic = 0
        self.fail_at = None
        self.rules = {"last": "Take the last word.", "first": "Take the first word."}

    def __call__(self, messages):
        asked = self.sections(messages[-1].content)
        if "rows" in asked:
            said = [row.get("critique", "") for row in json.loads(asked["rows"])]
            known = [text for text in said if text.startswith("Take")]
            return self.reply(new_instruction=(known or ["Guess wisely."])[0])
        if "runs" in asked:
            self.critic += 1
            if self.critic == self.fail_at:
                raise KeyboardInterrupt
            return self.reply(findings=json.dumps([self.finding(run) for run in json.loads(asked["runs"])]))
        instruction, text = messages[0].content.split("\n\nYou are given")[0], asked["text"].split()
        return self.reply(answer=text[-1] if "last" in instruction else text[0] if "first" in instruction else "none")

    def finding(self, run):
        text = run["calls"][0]["inputs"]["text"].split()
        gold = re.search(r"should be (\w+)", run.get("feedback", ""))
        said = self.rules["last"] if gold and gold.group(1) == text[-1] else "It guesses wrongly."
        return {
            "runs": [run["run"]],
            "parameter": "instruction",
            "critique": said,
            "to_blame": run["result"] == "wrong",
        }

    def reply(self, **fields):
        return "\n\n".join([*(f"[[ ## {k} ## ]]\n{v}" for k, v in fields.items()), "[[ ## completed ## ]]"])


def examples(count, seed):
    rng = random.Random(seed)
    texts = [rng.sample(WORDS, 4) for _ in range(count)]
    return [Example(text=" ".join(words), answer=words[-1]).with_inputs("text") for words in texts]


@pytest.fixture
def scripted(world):
    return World(world.sections)


@pytest.fixture
def model(scripted):
    return nn.Predict("text -> answer", instruction="Take a word.").to(lm.FunctionLM(scripted, name="scripted"))


TRAIN, FRESH = examples(40, 1), examples(25, 2)


def check(model, **options):
    options = {"batch_size": 6, "critic": model.lm, **options}
    return pg.gradcheck(model, TRAIN, FRESH, pg.metrics.exact_match, **options)


class TestTheFinding:
    def test_true_feedback_goes_downhill_and_beats_the_others(self, model):
        report = check(model)
        assert report.passed
        true, shuffled, blank = (report.arms[name] for name in ("true", "shuffled", "blank"))
        assert (true.gain.mean, true.better, true.worse, true.same) == (1.0, 6, 0, 0)
        assert (shuffled.gain.mean, blank.gain.mean) == (0.0, 0.0)
        assert report.differences["shuffled"].mean == report.differences["blank"].mean == 1.0
        assert report.differences["blank"].low > 0
        assert report.start == 0.0
        assert true.values == ({"instruction": "Take the last word."},) * 6
        assert blank.values == ({"instruction": "Guess wisely."},) * 6
        assert (report.failed, report.shuffled) == (36, 36)
        assert report.verdict.startswith("true feedback goes downhill (+1.00 [")
        assert "it beats shuffled feedback" in report.verdict
        assert "it beats blank feedback" in report.verdict

    def test_fewer_than_six_repeats_pass_nothing(self, model):
        report = replace(check(model), repeats=2)  # the same intervals, from fewer repeats
        assert report.downhill
        assert not report.passed
        assert "2 repeats are too few to pass" in report.verdict

    def test_without_a_difference_there_is_no_evidence(self, model, scripted):
        scripted.rules["last"] = "Take the middle."  # what the critic then says does not help
        report = check(model)
        assert not report.passed
        assert report.arms["true"].gain.mean == 0.0
        assert report.arms["true"].gain.low < 0 < report.arms["true"].gain.high
        assert report.verdict.startswith("no evidence that true feedback goes downhill (+0.00 [")
        assert "no evidence that it beats shuffled" in report.verdict

    def test_a_step_uphill_is_called_so(self, model, scripted):
        model.instruction.data = "Take the last word, mostly."
        scripted.rules["last"] = "Take the first word."
        lenient = [example.copy(answer=example.answer + "s") for example in TRAIN[:20]]
        batch = [*lenient, *TRAIN[20:]]

        def metric(example, output):
            right = output.answer == example.answer
            return pg.Score(float(right), feedback=f"the answer should be {example.text.split()[-1]}")

        report = pg.gradcheck(model, batch, FRESH, metric, batch_size=6)
        assert report.start == 1.0
        assert report.arms["true"].gain.high < 0
        assert "goes uphill" in report.verdict

    def test_feedback_that_is_the_same_for_all_cannot_be_shuffled(self, model):
        def metric(example, output):
            right = output.answer == example.answer
            return pg.Score(float(right), feedback="it should be the last word")

        report = pg.gradcheck(model, TRAIN, FRESH, metric, batch_size=6)
        assert report.failed == 36
        assert report.shuffled == 0
        assert not report.passed
        assert "shuffling changed no text" in report.verdict

    def test_where_nothing_fails_nothing_is_proposed(self, model, scripted):
        model.instruction.data = "Take the last word."
        report = check(model, steps=2)
        assert [arm.idle for arm in report.arms.values()] == [12, 12, 12]
        assert report.failed == 0
        assert scripted.critic == 0
        assert report.evaluation.calls == len(FRESH)  # the start alone: all candidates equal it

    def test_further_steps_go_on_from_the_candidate_of_the_arm(self, model, scripted):
        one, two = check(model, repeats=2), check(model, repeats=2, steps=2)
        assert one.arms["true"].values == two.arms["true"].values
        assert two.arms["true"].idle == 2  # after the first step nothing fails any more
        assert two.arms["blank"].idle == 2  # the rewrite repeats itself and is refused

    def test_a_program_that_fails_on_an_example_scores_nothing_there(self, scripted):
        class Number(nn.Module):
            def __init__(self):
                super().__init__()
                self.step = nn.Predict("text -> answer", instruction="Take a word.")

            def forward(self, text):
                answer = self.step(text=text).answer
                if answer == "none":
                    raise ValueError("there is no such word")
                return answer

        model = Number().to(lm.FunctionLM(scripted, name="scripted"))
        report = check(model, repeats=2)
        assert report.start == 0.0
        assert report.examples == len(FRESH)
        assert report.failed == 12


class TestTheProtocol:
    def test_forwards_are_shared_and_equal_candidates_are_measured_once(self, model, scripted):
        with pg.track_usage() as usage:
            report = check(model, repeats=3)
        assert report.usage.calls == usage.calls
        assert report.evaluation.calls == 3 * len(FRESH)  # the start and two different candidates
        arms = {name: arm.usage.calls for name, arm in report.arms.items()}
        assert arms == dict.fromkeys(arms, 3 * (1 + 1))  # one joint critique and one proposal in each repeat
        assert usage.calls == 3 * 6 + sum(arms.values()) + report.evaluation.calls

    def test_the_same_seed_repeats_it_and_another_draws_other_batches(self, model, scripted):
        seen = []

        class Watching(nn.Critic):
            async def critique_traces(self, group):
                seen.extend((failure.nodes[0].inputs["text"], failure.feedback) for failure in group)
                return await super().critique_traces(group)

        found = {}
        for name, options in {"a": {}, "b": {"concurrency": 1}, "c": {"seed": 5}}.items():
            seen.clear()
            report = check(model, critic=Watching(), repeats=2, **options)
            found[name] = (sorted(seen), report.to_dict()["arms"]["true"]["gain"])
        assert found["a"] == found["b"]
        assert found["a"][0] != found["c"][0]
        blanks = [feedback for _, feedback in found["a"][0] if feedback == (BLANK,)]
        assert len(blanks) == 12

    def test_a_deranged_batch_has_the_same_texts(self, model):
        seen = {}

        class Watching(nn.Critic):
            async def critique_traces(self, group):
                for failure in group:
                    seen.setdefault(failure.nodes[0].inputs["text"], []).append(failure.feedback[0])
                return await super().critique_traces(group)

        check(model, critic=Watching(), repeats=1)
        true, shuffled, blank = zip(*seen.values(), strict=True)
        assert sorted(true) == sorted(shuffled)
        assert all(one != two for one, two in zip(true, shuffled, strict=True))
        assert set(blank) == {BLANK}

    def test_what_is_used_is_left_as_it_was(self, model, scripted):
        batch = TRAIN[:4]
        nn.MetricLoss(pg.metrics.exact_match)(model.map(batch), batch).backward()
        grad = model.instruction.grad
        assert grad
        opt = optim.TGD(model.parameters())
        opt.state[model.instruction]["rejected"] = [
            {"text": text, "effect": "refused: x", "measured": False} for text in ("old", scripted.rules["last"])
        ]
        before = json.loads(json.dumps(opt.state_dict()))
        version = model.instruction.version
        check(model, optimizer=opt)
        assert model.instruction.grad is grad
        assert (model.instruction.data, model.instruction.version) == ("Take a word.", version)
        assert opt.state_dict() == before
        with pytest.raises(RuntimeError, match="nothing is pending"):
            opt.accept()

    @pytest.mark.parametrize("at", [1, 9])
    def test_so_it_is_after_an_interruption(self, model, scripted, at):
        batch = TRAIN[:4]
        nn.MetricLoss(pg.metrics.exact_match)(model.map(batch), batch).backward()
        grad, scripted.critic = model.instruction.grad, 0
        scripted.fail_at = at
        with pytest.raises(KeyboardInterrupt):
            check(model)
        assert model.instruction.grad is grad
        assert model.instruction.data == "Take a word."

    def test_an_optimizer_may_be_given_in_three_ways(self, model):
        for optimizer in (
            optim.TGD,
            lambda params: optim.TGD(params, max_edit=0.1),
            optim.TGD(model.parameters(), max_edit=0.1),
        ):
            report = check(model, optimizer=optimizer, repeats=2)
            assert (report.arms["true"].idle == 2) == (optimizer is not optim.TGD)  # the edit is too large

    def test_an_optimizer_of_two_programs_may_have_parameters_of_one_name(self, model):
        other = nn.Predict("text -> answer")
        report = check(model, optimizer=optim.TGD([*other.parameters(), *model.parameters()]), repeats=2)
        assert report.arms["true"].values == ({"instruction": "Take the last word."},) * 2

    def test_all_arms_keep_to_the_concurrency(self, model, scripted):
        flying, seen = [], []

        class Slow:
            async def critique(self, failure):
                flying.append(failure)
                seen.append(len(flying))
                await turns()
                flying.pop()
                return {}

        down = TRAIN[0].text  # a sample without an answer, so that the loss is made anew

        def flaky(messages):
            if down in messages[-1].content:
                raise LMConnectionError("lost")
            return scripted(messages)

        model.to(lm.FunctionLM(flaky, name="flaky"))
        with pg.context(concurrency=1):
            pg.gradcheck(model, TRAIN[:7], FRESH, pg.metrics.exact_match, critic=Slow(), batch_size=7, repeats=1)
        assert seen == [1] * 18

    def test_from_a_coroutine(self, model):
        async def main():
            with pytest.raises(AsyncUsageError, match=r"await promptgrad\.train\.agradcheck"):
                await pg.aio.on_program(wrong)
            return await pg.agradcheck(
                model, TRAIN, FRESH, pg.metrics.exact_match, critic=model.lm, batch_size=6, repeats=2
            )

        async def wrong():
            return check(model)

        assert asyncio.run(main()).arms["true"].gain.mean == 1.0

    def test_a_criterion_of_its_own_makes_the_loss(self, model):
        class Half(nn.MetricLoss):
            async def forward(self, outputs, examples=None):
                return 0.5 * await super().forward(outputs, examples)

        report = check(model, criterion=Half(pg.metrics.exact_match), repeats=2)
        assert report.arms["true"].gain.mean == 1.0
        same = pg.gradcheck(
            model, TRAIN, FRESH, nn.MetricLoss(pg.metrics.exact_match, critic=model.lm), batch_size=6, repeats=2
        )
        assert same.arms["true"].gain == report.arms["true"].gain
        with pytest.raises(TypeError, match="not a Loss"):
            check(model, criterion=_Three())

    def test_a_program_of_two_calls(self, world):
        program = world.Program().to(lm.FunctionLM(world.answer, name="simulated"))
        data = world.examples(60)
        report = pg.gradcheck(program, data[:30], data[30:], world.metric, batch_size=6, repeats=3)
        assert report.arms["true"].gain.mean > 0
        assert set(report.arms["true"].values[0]) == {"pick.instruction", "spell.instruction"}


class _Three(nn.Module):
    def forward(self, outputs, examples):
        return 3.0


class TestRefusals:
    def test_overlap(self, model):
        with pytest.raises(DataError, match="2 of 25 fresh examples are training examples"):
            pg.gradcheck(model, [*TRAIN, *FRESH[:2]], FRESH, pg.metrics.exact_match)

    def test_numbers_and_data(self, model):
        for name in ("batch_size", "steps", "repeats"):
            with pytest.raises(ValueError, match=name):
                check(model, **{name: 0})
        with pytest.raises(DataError, match="fresh data is a list of examples, and it is empty"):
            pg.gradcheck(model, TRAIN, [], pg.metrics.exact_match)
        with pytest.raises(DataError, match="not one Example"):
            pg.gradcheck(model, TRAIN[0], FRESH, pg.metrics.exact_match)

    def test_what_is_no_optimizer_and_what_it_does_not_train(self, model):
        with pytest.raises(TypeError, match="measures single steps, and MIPRO searches instead"):
            check(model, optimizer=optim.MIPRO(model.parameters()))
        with pytest.raises(TypeError, match="optimizer is an optimizer, or a function that makes one"):
            check(model, optimizer=list)
        other = nn.Predict("text -> answer")
        with pytest.raises(GraphError, match="trains no parameter of this program"):
            check(model, optimizer=optim.TGD(other.parameters()))
        with pytest.raises(
            GraphError, match=r"TGD has nothing to train.*instruction \(instruction, requires_grad is F"
        ):
            check(model.requires_grad_(False))

    def test_a_sample_or_a_fresh_example_without_an_answer_is_left_out(self, model, scripted):
        lost = [TRAIN[3].text, FRESH[4].text]

        def flaky(messages):
            if any(text in messages[-1].content for text in lost):
                raise LMConnectionError("lost")
            return scripted(messages)

        model.to(lm.FunctionLM(flaky, name="flaky"))
        report = check(model, batch_size=40, repeats=2)
        assert report.failed == 2 * 39
        assert (report.examples, report.left_out) == (24, 1)
        assert "24 fresh examples (1 left out: no answer)" in repr(report)

    def test_an_lm_that_is_down(self, model, scripted):
        asked = []

        def down(messages):
            asked.append(messages)
            raise LMConnectionError(f"refused {len(asked)}")

        model.to(lm.FunctionLM(down, name="down"))
        with pytest.raises(LMConnectionError, match=r"refused 1$"):  # the first row's
            check(model, concurrency=1)
        assert len(asked) > 1


class TestShowing:
    def test_text_html_and_json(self, model):
        report = check(model, repeats=2)
        text = repr(report)
        lines = text.splitlines()
        assert lines[0] == f"gradcheck: {'passed' if report.passed else 'not passed'}. {report.verdict}"
        assert "12 samples failed, 12 got another's text" in text
        assert [line.split()[0] for line in lines[3:6]] == ["true", "shuffled", "blank"]
        assert "true - shuffled  +1.000" in text
        assert lines[-1].startswith(f"cost: {report.usage.calls} calls")
        page = report._repr_html_()
        assert page.count("<tr>") == 6
        assert "true - blank" in page
        kept = json.loads(json.dumps(report.to_dict()))
        assert kept["arms"]["true"]["values"] == [{"instruction": "Take the last word."}] * 2
        assert kept["arms"]["true"]["gain"]["mean"] == 1.0
        assert len(kept["arms"]["blank"]["gains"][0]) == len(FRESH)


@pytest.mark.parametrize("texts", ["abcdef", "aabbcc", "aaabc", "aaaabc", "aaaa", "ab", "a", ""])
def test_a_derangement_changes_as_many_texts_as_any_permutation(texts):
    most = max([texts.count(text) for text in texts], default=0)
    possible = min(len(texts), 2 * (len(texts) - most))
    found = set()
    for seed in range(20):
        sources = _derange(texts, random.Random(seed))
        assert sorted(sources) == list(range(len(texts)))
        assert sum(texts[source] != text for source, text in zip(sources, texts, strict=True)) == possible
        found.add(tuple(sources))
    assert len(found) > 1 or len(texts) < 3 or not possible
