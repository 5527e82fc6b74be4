import asyncio
import threading
from contextvars import copy_context

from promptgrad import aio, nn, no_grad, run, usage
from promptgrad.lm import Cache, FunctionLM, Usage, UsageTracker, track_usage


def test_it_counts_calls_below_in_threads_and_tasks_and_nested_blocks():
    lm = FunctionLM(lambda messages: "four letters")

    async def many():
        await asyncio.gather(*[lm.acall("q") for _ in range(5)])

    with track_usage() as outer:
        lm("q")
        with track_usage() as inner:
            aio.run(many())
            thread = threading.Thread(target=copy_context().run, args=(lm, "q"))
            thread.start()
            thread.join()
    lm("not counted")
    assert inner.calls == 6
    assert outer.calls == 7
    assert outer.total.calls == 7
    assert outer.tokens == outer.input_tokens + outer.output_tokens > 0
    assert outer.usd == 0.0
    assert outer.cached == 0
    assert outer.seconds > inner.seconds > 0
    assert "calls=7" in repr(outer)


def test_a_bare_thread_does_not_carry_the_block():
    lm = FunctionLM(lambda messages: "x")
    with track_usage() as usage:
        thread = threading.Thread(target=lm, args=("q",))
        thread.start()
        thread.join()
    assert usage.total == Usage()


def test_a_hit_of_a_reply_that_the_run_paid_for_counts_with_its_cost_where_that_is_asked():
    cache = Cache(FunctionLM(lambda messages: "four letters"))
    with track_usage() as before:
        cache("q")
    with run.active(), track_usage() as usage:
        cache("q")  # from before the run: its cost is not known
        cache("new")
        cache("new")
    assert (usage.calls, usage.cached) == (1, 2)
    assert (usage.uncached.calls, usage.uncached.cached) == (2, 1)
    assert usage.uncached.tokens == 2 * usage.total.tokens > 0
    assert usage.uncached.seconds == 2 * usage.total.seconds
    assert before.uncached == before.total


# ---- by module, phase and language model


class Hops(nn.Module):
    def __init__(self):
        super().__init__()
        self.query = nn.Predict("question -> query")
        self.answers = nn.ModuleList([nn.Predict("question, query -> answer") for _ in range(2)])

    def forward(self, question):
        query = self.query(question=question).query
        return [answer(question=question, query=query).answer for answer in self.answers]


def program():
    hops = Hops()
    hops.to(FunctionLM(lambda messages: "[[ ## query ## ]]\nx\n[[ ## answer ## ]]\ny", name="small"))
    hops.answers[1].to(FunctionLM(lambda messages: "[[ ## answer ## ]]\nz", name="large"))
    return hops


def test_usage_by_module_phase_and_lm():
    hops = program()
    with usage() as used:
        with run.phase("first"):
            hops.map(["a", "b"])
        with no_grad(), run.phase("second"):
            hops("c")
        hops.query(question="d")
        FunctionLM(lambda messages: "e", name="alone")("e")
    calls = {name: part.calls for name, part in used.by_module.items()}
    assert calls == {"(Predict)": 1, "(elsewhere)": 1, "answers.0": 3, "answers.1": 3, "query": 3}
    assert {name: part.calls for name, part in used.by_phase.items()} == {"": 2, "first": 6, "second": 3}
    assert {name: part.calls for name, part in used.by_lm.items()} == {"alone": 1, "large": 3, "small": 7}
    for parts in (used.by_module, used.by_lm, used.by_phase):
        assert sum(part.calls for part in parts.values()) == used.calls == 11
        assert sum(part.tokens for part in parts.values()) == used.tokens


def test_usage_counts_what_a_cache_answered_where_it_was_asked():
    cached = Cache(FunctionLM(lambda messages: "[[ ## answer ## ]]\ny", name="f"))
    qa = nn.ModuleDict({"qa": nn.Predict("question -> answer").to(cached)})
    with usage() as used:
        for _ in range(3):
            qa["qa"](question="a")
    assert (used.by_lm["f"].calls, used.by_lm["f"].cached) == (1, 2)
    assert (used.by_module["(Predict)"].calls, used.by_module["(Predict)"].cached) == (1, 2)


def test_asking_again_is_of_the_same_module():
    replies = iter(["nothing", "[[ ## value ## ]]\n3"])
    qa = nn.Predict("question -> value: int", retries=1).to(FunctionLM(lambda messages: next(replies)))
    with usage() as used:
        qa(question="a")
    assert used.by_module["(Predict)"].calls == 2


def test_the_table():
    hops = program()
    with usage() as used, run.phase("search"):
        hops("a")
    lines = str(used).splitlines()
    assert lines[0].split() == ["calls", "cached", "input", "output", "usd", "seconds"]
    assert lines[1].split()[:3] == ["total", "3", "0"]
    assert [line.split()[0] for line in lines[2:]] == [
        "module",
        "answers.0",
        "answers.1",
        "query",
        "phase",
        "search",
        "lm",
        "large",
        "small",
    ]
    assert len(str(track_usage()).splitlines()) == 2


def test_an_unknown_price_is_a_question_mark():
    tracker = UsageTracker(details=True)
    tracker.add(Usage(1, 1000, 2, None), "m")
    assert "1,000" in str(tracker)
    assert str(tracker).splitlines()[1].split()[-2] == "?"


def test_without_details_nothing_is_kept_apart():
    with track_usage() as used:
        program()("a")
    assert (used.calls, used.by_lm, used.by_phase, used.by_module) == (3, {}, {}, {})
