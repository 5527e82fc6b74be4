"""`nn.BestOfN`: several attempts, of which the best is returned."""

import asyncio

import pytest

import promptgrad as pg
from promptgrad import lm, nn
from promptgrad.errors import BudgetExceeded, LMError, MetricError, NoLMError
from tests.nn.numbered import numbered

CASE = [pg.Example(question="q", answer="Oslo").with_inputs("question")]


def length(inputs, output):
    return len(output.answer)


def best_of(answers, n=3, reward=length, threshold=None, **options):
    model, asked = numbered(*answers)
    return nn.BestOfN(nn.Predict("question -> answer").to(model), n, reward, threshold, **options), asked


class TestChoice:
    def test_the_highest_reward_wins_and_of_equal_ones_the_earliest(self):
        assert best_of(["a", "ccc", "bbb"])[0]("q").answer == "ccc"

    @pytest.mark.parametrize("concurrency", [None, 1, 2])
    def test_the_first_that_is_good_enough_ends_it(self, concurrency):
        best, asked = best_of(["a", "bb", "cccc", "dd"], 4, threshold=2, concurrency=concurrency)
        assert best("q").answer == "bb"
        assert len(asked) <= 2 + (concurrency or 1) - 1
        assert asyncio.run(best.acall("q")).answer == "bb"

    def test_what_is_in_flight_then_is_cancelled(self):
        ended = []

        class Waiting(nn.Module):
            async def forward(self, question):
                number = lm.current().replicate
                if number == 1:
                    return "good"
                if number == 0:
                    await asyncio.sleep(0)
                    return "bad"
                try:
                    await asyncio.sleep(60)
                finally:
                    ended.append(number)

        best = nn.BestOfN(Waiting(), 4, lambda inputs, output: output == "good", 1, concurrency=4)
        assert best("q") == "good"
        assert sorted(ended) == [2, 3]

    def test_an_attempt_that_fails_is_an_attempt(self):
        best, asked = best_of([ValueError("broken"), "b", "aa"], 3, threshold=1)
        assert best("q").answer == "b"
        assert len(asked) == 2

    def test_if_all_fail_the_last_error_is_raised(self):
        with pytest.raises(LMError, match="second"):
            best_of([ValueError("first"), ValueError("second")], 2)[0]("q")

    def test_what_the_next_attempt_would_meet_as_well_is_raised_at_once(self):
        with pytest.raises(NoLMError):
            nn.BestOfN(nn.Predict("question -> answer"), 3, length)("q")
        best, asked = best_of([BudgetExceeded("spent")] * 3, concurrency=1)
        with pytest.raises(BudgetExceeded):
            best("q")
        assert len(asked) == 1


class TestAttempts:
    def test_the_first_is_the_plain_call_and_the_others_are_told_apart(self):
        best, asked = best_of(["a", "b", "c"], concurrency=1)
        best("q")
        assert [(request.replicate, request.temperature) for request in asked] == [(0, None), (1, 1.0), (2, 1.0)]

    def test_a_cache_answers_no_two_alike_and_knows_them_all_the_next_time(self):
        model, asked = numbered("a", "b", "ccc")
        best = nn.BestOfN(nn.Predict("question -> answer").to(lm.Cache(model)), 3, length)
        assert [best("q").answer for _ in range(2)] == ["ccc", "ccc"]
        assert len(asked) == 3

    def test_rollouts_and_attempts_within_attempts_are_told_apart(self):
        best, asked = best_of("abcdefghijkl", 3)
        best.map(CASE, n=2)
        assert sorted(request.replicate for request in asked) == [0, 1, 2, 3, 4, 5]
        asked.clear()
        nn.BestOfN(best, 2, length)("q")
        assert sorted(request.replicate for request in asked) == [0, 1, 2, 3, 4, 5]

    def test_the_temperature_of_the_module_is_kept_on_request(self):
        best, asked = best_of(["a", "b"], 2, temperature=None)
        best("q")
        assert {request.temperature for request in asked} == {None}


class TestReward:
    def test_it_gets_the_inputs(self):
        seen = []
        best, _ = best_of(["a", "b"], 2, lambda inputs, output: seen.append((inputs["question"], output.answer)) or 0)
        best("why")
        assert sorted(seen) == [("why", "a"), ("why", "b")]

    def test_it_may_be_async_a_score_or_a_judge(self):
        async def later(inputs, output):
            await asyncio.sleep(0)
            return pg.Score(1 - len(output.answer) / 10, "long")

        assert best_of(["bb", "a"], 2, later)[0]("q").answer == "a"

        def verdict(messages):
            return f"[[ ## feedback ## ]]\nok\n\n[[ ## score ## ]]\n{float('aaa' in messages[-1].content)}"

        judge = nn.Judge("It is long.", lm=lm.FunctionLM(verdict, name="judge"))
        best, _ = best_of(["bb", "aaa"], 2, judge)
        assert best("q").answer == "aaa"
        assert "reward.predict.instruction" in best.state_dict()

    @pytest.mark.parametrize("reward", [lambda i, o: float("nan"), lambda i, o: o.nothing, lambda i, o: "good"])
    def test_one_that_fails_is_an_error_of_the_call(self, reward):
        with pytest.raises(MetricError, match=r"the reward .*attempt 0"):
            best_of(["a", "b"], 2, reward, concurrency=1)[0]("q")

    def test_what_it_takes_is_checked(self):
        predict = nn.Predict("question -> answer")
        with pytest.raises(TypeError, match="those of a module"):
            nn.BestOfN("question -> answer", 3, length)
        with pytest.raises(ValueError, match="n is at least 1, not 0"):
            nn.BestOfN(predict, 0, length)
        with pytest.raises(TypeError, match="reward is a function"):
            nn.BestOfN(predict, 3, 1.0)
        with pytest.raises(TypeError, match=r"write reward="):
            nn.BestOfN(predict, n=3, reward_fn=length)


class Judging:
    def __init__(self):
        self.asked = []

    async def critique(self, failure):
        self.asked.append(failure.node.replicate)
        return {target.name: "say Oslo" for target in failure.targets}


class TestBackward:
    @pytest.mark.parametrize("concurrency", [1, None])
    def test_only_the_attempt_that_was_returned_is_blamed(self, concurrency):
        best, _ = best_of(["Rome", "Paris", ValueError("broken")], concurrency=concurrency)
        critic = Judging()
        loss = nn.MetricLoss(pg.metrics.exact_match, critic=critic)(best.map(CASE), CASE)
        loss.backward()
        assert critic.asked == [1]
        assert len(best.module.instruction.grad.critiques) == 1

    def test_in_a_program_of_several_steps_each_step_of_it_is(self):
        class Two(nn.Module):
            def __init__(self):
                super().__init__()
                self.one = nn.Predict("question -> fact")
                self.two = nn.Predict("fact -> answer")

            async def forward(self, question):
                fact = (await self.one.acall(question=question)).fact
                return await self.two.acall(fact=fact)

        def answer(request):
            asked = "fact" if "question" in request.messages[-1].content else "answer"
            return f"[[ ## {asked} ## ]]\nthe {asked} of attempt {'x' * request.replicate}"

        answer.__annotations__["request"] = lm.Request
        best = nn.BestOfN(Two(), 3, lambda inputs, output: -len(output.answer)).to(lm.FunctionLM(answer, name="two"))
        critic = Judging()
        nn.MetricLoss(pg.metrics.exact_match, critic=critic)(best.map(CASE), CASE).backward()
        assert critic.asked == [0, 0]
        assert len(best.module.one.instruction.grad.critiques) == 1


def test_a_run_with_attempts_is_journalled_and_resumed(tmp_path):
    def program():
        best, asked = best_of(["no", "Oslo", "no"], 3, lambda inputs, output: output.answer == "Oslo", 1)
        return best, asked

    cases = [pg.Example(question=f"q{n}", answer="Oslo").with_inputs("question") for n in range(6)]
    digests = []
    for name, concurrency in (("a", 1), ("b", 8)):
        best, asked = program()
        trainer = pg.Trainer(
            best,
            pg.optim.LabeledFewShot(best.parameters(), k=1),
            metric=pg.metrics.exact_match,
            run_dir=tmp_path / name,
            concurrency=concurrency,
            progress=False,
        )
        trainer.fit(cases[:2], cases[2:])
        digests.append(pg.run.Journal(tmp_path / name / "journal.jsonl").digest())
        assert asked
    assert digests[0] == digests[1]
    best, asked = program()
    optimizer = pg.optim.LabeledFewShot(best.parameters(), k=1)
    pg.Trainer.resume(tmp_path / "a", best, optimizer, pg.metrics.exact_match, progress=False)
    assert asked == []


@pytest.mark.parametrize(("said", "shown"), [(None, "None, .*: is a `return` missing"), ("good", "'good', ")])
def test_a_reward_that_is_no_number_is_told(said, shown):
    with pytest.raises(MetricError, match=f"it returned {shown}"):
        best_of(["a", "b", "c"], reward=lambda inputs, output: said)[0]("q")
