import asyncio
import dataclasses
import json
import re
from random import Random

import pytest

import promptgrad as pg
from promptgrad import func, nn
from promptgrad.data import Example
from promptgrad.errors import ContextWindowError, GraphError, InputError, LMConnectionError
from promptgrad.lm import HTTP, Completion, FunctionLM, Request, TextPart, ToolCall, Usage
from promptgrad.testing import LoopbackLM


class Asked:
    """A function as LM that keeps the last message of every call it answers."""

    def __init__(self, answer):
        self.answer = answer
        self.texts = []

    def __call__(self, messages):
        self.texts.append(messages[-1].content)
        return self.answer(messages)


@pytest.fixture
def asked(world):
    return Asked(world.answer)


@pytest.fixture
def model(world, asked):
    """`text -> word -> answer`; the first word is taken where the last is wanted."""
    model = world.Program().to(FunctionLM(asked, name="simulated"))
    model.spell.instruction.data = "Reverse the word."
    return model


@pytest.fixture
def row(world, model, asked):
    (row,) = model.map(world.examples(1)).rows
    asked.texts.clear()
    return row


def last(row):
    return row.example.text.split()[-1]


class TestCounterfactual:
    def test_a_better_first_call_costs_only_the_suffix_and_flips_the_loss(self, model, row, asked, world):
        found = func.counterfactual(model, row, "pick", {"word": last(row)}, metric=world.metric)
        assert found.output.answer == row.example.answer
        assert (found.before, found.after, found.gain, found.flips) == (0.0, 1.0, 1.0, True)
        assert (found.calls, found.served) == (1, 0)
        assert len(asked.texts) == 1
        assert repr(found) == "<Credit pick[0]; 0 -> 1 (+1, flips); 1 call made, 0 from the record>"

    def test_what_print_shows(self, model, row, world):
        found = func.counterfactual(model, row, "pick", {"word": last(row)}, metric=world.metric)
        several = dataclasses.replace(found, usage=Usage(calls=3), served=2, after=0.0)
        assert repr(several) == "<Credit pick[0]; 0 -> 0 (+0); 3 calls made, 2 from the record>"

    def test_a_better_last_call_costs_nothing(self, model, row, asked, world):
        found = func.counterfactual(model, row, ("spell", 0), {"answer": row.example.answer}, metric=world.metric)
        assert found.flips
        assert (found.calls, found.served, asked.texts) == (0, 1, [])

    def test_the_same_answer_again_costs_nothing_and_changes_nothing(self, model, row, asked, world):
        node = row.tape.nodes[0]
        found = func.counterfactual(model, row, node, dict(node.outputs), metric=world.metric)
        assert found.output == row.output
        assert (found.gain, found.flips, found.calls, found.served, asked.texts) == (0.0, False, 0, 1, [])

    def test_without_a_metric_there_is_an_output_and_no_gain(self, model, row):
        found = func.counterfactual(model, row, "pick", {"word": "abc"})
        assert found.output.answer == "cba"
        assert (found.before, found.after, found.flips) == (None, None, False)
        with pytest.raises(ValueError, match="metric="):
            _ = found.gain

    def test_a_tape_will_do_and_so_will_the_row_of_a_loss(self, model, row, world):
        assert func.counterfactual(model, row.tape, "pick", {"word": "abc"}).output.answer == "cba"
        with pytest.raises(InputError, match="a tape has no example"):
            func.counterfactual(model, row.tape, "pick", {"word": "abc"}, metric=world.metric)
        batch = world.examples(3)
        loss = nn.MetricLoss(world.metric)(model.map(batch), batch)
        found = [func.counterfactual(model, r, "pick", {"word": last(r)}, metric=world.metric) for r in loss.rows]
        assert [credit.after for credit in found] == [1.0] * 3

    def test_the_record_stays_as_it_was_and_backward_still_works(self, model, row, world):
        nodes = list(row.tape.nodes)
        outputs = [dict(node.outputs) for node in nodes]
        func.counterfactual(model, row, "pick", {"word": last(row)}, metric=world.metric)
        assert [dict(node.outputs) for node in row.tape.nodes] == outputs
        assert all(parameter.grad is None for parameter in model.parameters())
        loss = nn.MetricLoss(world.metric)([row.output], [row.example])
        assert loss.backward().reached

    def test_the_new_output_has_a_graph_of_its_own(self, model, row, world):
        found = func.counterfactual(model, row, "pick", {"word": "abc"}, metric=world.metric)
        assert [(node.path, node.index) for node in found.tape.nodes] == [("pick", 0), ("spell", 0)]
        assert found.tape.nodes[0].outputs == {"word": "abc"}
        assert found.output.answer.grad_fn is found.tape.nodes[1]
        loss = nn.MetricLoss(world.metric)([found.output], [row.example])
        loss.backward()
        assert [c.evidence["outputs"]["word"] for c in model.pick.instruction.grad.critiques] == ["abc"]

    def test_from_a_coroutine(self, model, row, world):
        async def main():
            return await func.acounterfactual(model, row, "pick", {"word": last(row)}, metric=world.metric)

        assert asyncio.run(main()).flips

    def test_under_no_grad_it_works_and_in_inference_mode_it_says_why_not(self, model, row):
        with pg.no_grad():
            assert func.counterfactual(model, row, "pick", {"word": "abc"}).output.answer == "cba"
        with pg.inference_mode(), pytest.raises(GraphError, match="inference_mode"):
            func.counterfactual(model, row, "pick", {"word": "abc"})

    def test_rollouts_are_played_under_their_own_number(self, model, asked, world):
        rows = model.map(world.examples(1), n=3).rows
        asked.texts.clear()
        for row in rows:
            found = func.counterfactual(model, row, "spell", {"answer": "x"})
            assert (found.calls, found.served) == (0, 1)
            assert {node.replicate for node in found.tape.nodes} == {row.replicate}

    def test_over_the_wire_only_the_suffix_is_sent(self, world):
        with LoopbackLM(world.answer) as server:
            model = world.Program().to(HTTP("m", base_url=server.url, api_key="none"))
            (row,) = model.map(world.examples(1)).rows
            assert len(server.requests) == 2
            found = func.counterfactual(model, row, "pick", {"word": last(row)})
            assert len(server.requests) == 3
            assert found.usage.calls == 1
            assert found.usage.tokens > 0


class TestPrograms:
    """Control flow, loops, branches, threads: what is served is told by what is asked, not by its place."""

    def lm(self, asked):
        return FunctionLM(asked, name="letters")

    def letters(self, fields):
        """Answers each output with a letter more than the input has."""

        def answer(messages):
            asked = dict(re.findall(r"\[\[ ## (\w+) ## \]\]\n(.*)", messages[-1].content))
            text = asked.get("text", "")
            return "\n".join(f"[[ ## {name} ## ]]\n{text}{text[-1:] or 'a'}" for name in fields)

        return Asked(answer)

    def test_a_loop_of_one_module_replaces_the_call_of_that_index(self):
        class Loop(nn.Module):
            def __init__(self):
                super().__init__()
                self.step = nn.Predict("text -> word")

            def forward(self, text):
                for _ in range(4):
                    text = self.step(text=text).word
                return text

        asked = self.letters(["word"])
        model = Loop().to(self.lm(asked))
        (row,) = model.map([{"text": "a"}]).rows
        assert row.output == "aaaaa"
        asked.texts.clear()
        found = func.counterfactual(model, row, ("step", 1), {"word": "b"})
        assert found.output == "bbb"
        assert (found.calls, found.served) == (2, 1)
        assert [node.index for node in found.tape.nodes] == [0, 1, 2, 3]

    def test_an_answer_that_leads_back_into_the_record_is_served_from_there(self):
        class Loop(nn.Module):
            def __init__(self):
                super().__init__()
                self.step = nn.Predict("text -> word")

            def forward(self, text):
                for _ in range(3):
                    text = self.step(text=text).word
                return text

        asked = self.letters(["word"])
        model = Loop().to(self.lm(asked))
        (row,) = model.map([{"text": "a"}]).rows
        asked.texts.clear()
        found = func.counterfactual(model, row, ("step", 0), {"word": "a"})  # asks the replaced question once more
        assert found.output == "aaa"
        assert (found.calls, found.served, asked.texts) == (0, 2, [])

    @pytest.mark.parametrize("kind", ["sync", "async"])
    def test_control_flow_may_change_and_untouched_branches_are_served(self, kind):
        class Router(nn.Module):
            def __init__(self):
                super().__init__()
                self.route = nn.Predict("text -> word")
                self.left, self.right = nn.Predict("text -> word"), nn.Predict("text -> word")
                self.other = nn.Predict("text -> word")

            def forward(self, text):
                other = self.other(text=text + "x").word
                chosen = self.left if self.route(text=text).word == "aa" else self.right
                return str(other) + "|" + str(chosen(text=text).word)

        class AsyncRouter(Router):
            async def forward(self, text):
                call = pg.aio.gather([lambda: self.other.acall(text=text + "x"), lambda: self.route.acall(text=text)])
                other, route = await call
                chosen = self.left if route.word == "aa" else self.right
                return str(other.word) + "|" + str((await chosen.acall(text=text)).word)

        asked = self.letters(["word"])
        model = (Router if kind == "sync" else AsyncRouter)().to(self.lm(asked))
        (row,) = model.map([{"text": "a"}]).rows
        assert [node.path for node in row.tape.nodes][2] == "left"
        asked.texts.clear()
        found = func.counterfactual(model, row, "route", {"word": "elsewhere"})
        assert found.output == "axx|aa"
        assert "right" in [node.path for node in found.tape.nodes]
        assert (found.calls, found.served) == (1, 1)

    def test_a_map_inside_a_forward(self):
        class Fan(nn.Module):
            def __init__(self):
                super().__init__()
                self.part = nn.Predict("text -> word")
                self.join = nn.Predict("text -> word")

            def forward(self, text):
                words = [part.word for part in self.part.map([{"text": letter} for letter in text])]
                return self.join(text="".join(words)).word

        asked = self.letters(["word"])
        model = Fan().to(self.lm(asked))
        (row,) = model.map([{"text": "abcdef"}]).rows
        node = next(n for n in row.tape.nodes if n.path == "part" and n.inputs["text"] == "d")
        asked.texts.clear()
        found = func.counterfactual(model, row, node, {"word": "-"})
        assert found.output == "aabbcc-eefff"
        assert (found.calls, found.served) == (1, 5)

    def test_samples_of_one_question_are_told_apart_by_their_order(self):
        class Vote(nn.Module):
            def __init__(self):
                super().__init__()
                self.sample = nn.Predict("text -> word")

            def forward(self, text):
                return [self.sample(text=text).word for _ in range(3)]

        replies = iter("abcdefgh")
        asked = Asked(lambda messages: f"[[ ## word ## ]]\n{next(replies)}")
        model = Vote().to(self.lm(asked))
        (row,) = model.map([{"text": "q"}]).rows
        found = func.counterfactual(model, row, ("sample", 1), {"word": "X"})
        assert found.output == ["a", "X", "c"]
        assert found.calls == 0

    def test_types_are_those_of_the_signature_and_what_is_left_out_is_kept(self):
        class Sum(nn.Module):
            def __init__(self):
                super().__init__()
                self.read = nn.Predict("text -> numbers: list[int], note")

            def forward(self, text):
                found = self.read(text=text)
                return sum(found.numbers), found.note

        model = Sum().to(
            FunctionLM(lambda messages: "[[ ## numbers ## ]]\n[1, 2]\n[[ ## note ## ]]\nkept", name="sums")
        )
        (row,) = model.map([{"text": "1 2"}]).rows
        found = func.counterfactual(model, row, "read", {"numbers": ["3", 4]})
        assert found.output == (7, "kept")
        assert found.outputs == {"numbers": [3, 4], "note": "kept"}
        with pytest.raises(InputError, match="numbers"):
            func.counterfactual(model, row, "read", {"numbers": "many"})
        with pytest.raises(InputError, match=r"read\[0\] has no output 'nubmers': its outputs are numbers, note"):
            func.counterfactual(model, row, "read", {"nubmers": [1]})
        with pytest.raises(InputError, match="is a mapping of its outputs"):
            func.counterfactual(model, row, "read", [3])

    def test_what_is_kept_of_an_answer_is_a_copy(self):
        class Table(nn.Module):
            def __init__(self):
                super().__init__()
                self.read = nn.Predict("text -> rows: list, note")

            def forward(self, text):
                return self.read(text=text).note

        model = Table().to(
            FunctionLM(lambda messages: "[[ ## rows ## ]]\n[[1], [2]]\n[[ ## note ## ]]\nkept", name="table")
        )
        (row,) = model.map([{"text": "1 2"}]).rows
        func.counterfactual(model, row, "read", {"note": "new"}).outputs["rows"][0].append(5)
        assert row.tape.nodes[0].outputs == {"rows": [[1], [2]], "note": "kept"}

    def test_a_program_that_fails_with_the_new_answer_scores_nothing_and_says_why(self):
        class Number(nn.Module):
            def __init__(self):
                super().__init__()
                self.read = nn.Predict("text -> word")

            def forward(self, text):
                return int(self.read(text=text).word)

        example = Example(text="q", number=3).with_inputs("text")
        model = Number().to(FunctionLM(lambda messages: "[[ ## word ## ]]\nthree", name="spells"))
        (row,) = model.map([example]).rows
        assert isinstance(row.error, ValueError)

        def right(example, output):
            return output == example.number

        repaired = func.counterfactual(model, row, "read", {"word": "3"}, metric=right)
        assert (repaired.before, repaired.after, repaired.flips) == (0.0, 1.0, True)
        broken = func.counterfactual(model, row, "read", {"word": "four"}, metric=right)
        assert isinstance(broken.error, ValueError)
        assert (broken.output, broken.after, broken.flips) == (None, 0.0, False)
        assert "failed: ValueError" in repr(broken)

    def test_an_error_that_the_program_caught_is_raised_again_and_an_outage_is_no_result(self, world):
        class Careful(nn.Module):
            def __init__(self):
                super().__init__()
                self.try_ = nn.Predict("text -> n: int", retries=0)
                self.pick = nn.Predict("text -> word")
                self.spell = nn.Predict("word -> answer")

            def forward(self, text):
                try:
                    self.try_(text=text)
                except ValueError:
                    text = text + " lime"
                return self.spell(word=self.pick(text=text).word)

        asked = Asked(
            lambda m: (
                "[[ ## n ## ]]\nno number" if "`n`" in m[0].content or "## n ##" in m[0].content else world.answer(m)
            )
        )
        model = Careful().to(FunctionLM(asked, name="careful"))
        (row,) = model.map(world.examples(1)).rows
        assert row.error is None
        asked.texts.clear()
        found = func.counterfactual(model, row, "pick", {"word": "abc"})
        assert found.output.answer == "abc"
        assert len(asked.texts) == 1

        def down(messages):
            raise LMConnectionError("refused")

        asked.answer = down
        with pytest.raises(LMConnectionError, match="refused"):
            func.counterfactual(model, row, "pick", {"word": "xyz"})

    def test_an_outage_before_the_call_in_question_is_told_as_what_it_is(self, world, asked):
        class Aside(world.Program):
            def forward(self, text):
                with pg.no_grad():
                    self.spell(word="aside")  # in no record, so it is asked again
                return super().forward(text)

        model = Aside().to(FunctionLM(asked, name="aside"))
        (row,) = model.map(world.examples(1)).rows

        def down(messages):
            raise LMConnectionError("refused")

        asked.answer = down
        with pytest.raises(LMConnectionError, match="refused"):
            func.counterfactual(model, row, "pick", {"word": "abc"})

    def test_a_failure_before_the_call_in_question_is_the_cause_of_the_refusal(self, world, asked):
        class Fragile(world.Program):
            broken = False

            def forward(self, text):
                if self.broken:
                    raise LookupError("something else is gone")
                return super().forward(text)

        model = Fragile().to(FunctionLM(asked, name="fragile"))
        (row,) = model.map(world.examples(1)).rows
        model.broken = True
        with pytest.raises(GraphError, match="the call was not made") as caught:
            func.counterfactual(model, row, "pick", {"word": "abc"})
        assert isinstance(caught.value.__cause__, LookupError)

    def test_an_answer_that_makes_a_later_request_too_long_fails_and_is_measured(self, model, row, asked, world):
        def short(messages):
            if "very long" in messages[-1].content:
                raise ContextWindowError("the request is too long")
            return world.answer(messages)

        asked.answer = short
        better = {"pick": {"word": "very long"}, "spell": {"answer": row.example.answer}}
        long, right = func.credit(model, row, world.metric, better)
        assert isinstance(long.error, ContextWindowError)
        assert (long.after, long.flips, right.flips) == (0.0, False, True)


class TestCallsOfTools:
    """A reply that calls tools is more than its text."""

    @pytest.mark.parametrize("words", ["", "I look it up."])
    def test_calls_and_the_words_beside_them_are_played_again(self, words):
        def look(name: str) -> str:
            """Look something up."""
            return f"{name} is far away."

        made = []

        def answer(request):
            made.append(request)
            step = sum(message.role == "assistant" for message in request.messages)
            call = ToolCall(
                f"c{step}", *(("finish", {"answer": f"after {step}"}) if step == 2 else ("look", {"name": "Rome"}))
            )
            return Completion((TextPart(words), call) if words else (call,), Usage(calls=1))

        answer.__annotations__["request"] = Request
        agent = nn.ReAct("question -> answer", [look], native=True, adapter="chat").to(FunctionLM(answer, name="agent"))
        (row,) = agent.map([Example(question="How far?").with_inputs("question")]).rows
        again = func.counterfactual(agent, row, ("step", 2), row.tape.nodes[-1].outputs)
        assert (again.output, again.calls, again.served) == (row.output, 0, 2)
        other = {"calls": [ToolCall("c0", "look", {"name": "Oslo"})]}
        again = func.counterfactual(agent, row, "step", other)
        assert (again.output, again.calls, again.served) == (row.output, 2, 0)
        assert "Oslo is far away." in "".join(message.preview for message in made[-1].messages)


class TestRefusals:
    def test_what_is_not_there(self, model, row, world):
        with pytest.raises(GraphError, match=r"no call spell\[1\]; its LM calls: pick\[0\], spell\[0\]"):
            func.counterfactual(model, row, ("spell", 1), {"answer": "x"})
        with pytest.raises(GraphError, match="another program"):
            func.counterfactual(world.Program(), row, "pick", {"word": "x"})
        with pg.no_grad():
            (blind,) = model.map(world.examples(1)).rows
        with pytest.raises(GraphError, match="nothing was recorded"):
            func.counterfactual(model, blind, "pick", {"word": "x"})
        nn.MetricLoss(world.metric)([row.output], [row.example]).backward()
        with pytest.raises(GraphError, match="retain_graph=True"):
            func.counterfactual(model, row, "pick", {"word": "x"})

    def test_a_program_that_has_changed_since_is_not_paid_for(self, model, row, asked):
        model.pick.instruction.data = "Take the last word."
        with pytest.raises(GraphError, match=r"did not reach spell\[0\] again: pick\[0\] sent another request"):
            func.counterfactual(model, row, "spell", {"answer": "x"})
        assert asked.texts == []

    def test_a_tool_is_not_an_lm_call(self, world):
        @pg.op
        def upper(word):
            return word.upper()

        class Shout(nn.Module):
            def __init__(self):
                super().__init__()
                self.pick = nn.Predict("text -> word")
                self.upper = upper

            def forward(self, text):
                return self.upper(self.pick(text=text).word)

        model = Shout().to(FunctionLM(world.answer, name="simulated"))
        (row,) = model.map([{"text": "red blue"}]).rows
        with pytest.raises(GraphError, match=r"upper\[0\] asked no language model \(function\)"):
            func.counterfactual(model, row, "upper", {"out": "x"})
        assert func.counterfactual(model, row, "pick", {"word": "abc"}).output == "ABC"


class TestCredit:
    def oracle(self, row):
        word = last(row)
        return {"pick": {"word": word}, "spell": {"answer": word[::-1]}}

    def test_it_measures_each_call_in_the_order_of_the_calls(self, model, row, world):
        found = func.credit(model, row, world.metric, self.oracle(row))
        assert [(c.path, c.gain, c.flips, c.calls) for c in found] == [("pick", 1.0, True, 1), ("spell", 1.0, True, 0)]

    def test_a_call_that_did_its_part_gains_nothing(self, world, asked):
        model = world.Program().to(FunctionLM(asked, name="simulated"))
        model.pick.instruction.data = "Take the last word."
        (row,) = model.map(world.examples(1)).rows
        first, second = func.credit(model, row, world.metric, self.oracle(row))
        assert (first.gain, first.flips, first.calls) == (0.0, False, 0)
        assert second.flips

    @pytest.mark.parametrize("kind", ["function", "coroutine", "teacher"])
    def test_an_oracle_may_be_a_function_or_a_teacher_program(self, model, row, world, kind):
        def oracle(node):
            return self.oracle(row)[node.path] if node.path == "pick" else None

        async def slow(node):
            await asyncio.sleep(0)
            return oracle(node)

        teacher = world.Program().to(FunctionLM(world.answer, name="teacher"))
        teacher.pick.instruction.data = "Take the last word."
        teacher.spell.instruction.data = "Reverse the word."
        better = {"function": oracle, "coroutine": slow, "teacher": teacher}[kind]
        found = func.credit(model, row, world.metric, better)
        assert (found[0].path, found[0].flips) == ("pick", True)
        assert len(found) == (2 if kind == "teacher" else 1)
        if kind == "teacher":  # it reverses the word that it was given, as the student did
            assert (found[1].gain, found[1].calls) == (0.0, 0)

    def test_from_a_coroutine_and_for_one_index(self, model, row, world):
        found = asyncio.run(func.acredit(model, row, world.metric, self.oracle(row), index=0))
        assert len(found) == 2
        assert func.credit(model, row, world.metric, self.oracle(row), index=1) == []

    def test_an_answer_for_a_call_that_was_not_made_is_an_error(self, model, row, world):
        with pytest.raises(GraphError, match="no call pikc"):
            func.credit(model, row, world.metric, {"pikc": {"word": "x"}})


def test_chains_of_the_embedded_model_flip_where_the_first_call_was_wrong():
    pytest.importorskip("torch")
    from promptgrad.data import pocket

    class Chain(nn.Module):
        def __init__(self, task):
            super().__init__()
            self.first = nn.Predict("text -> answer", instruction=task.instruction("vague", step=0))
            self.second = nn.Predict("text -> answer", instruction=task.instruction("precise", step=1))

        def forward(self, text):
            return self.second(text=self.first(text=text).answer)

    flips = 0
    for name in ("chain-color-of-last", "chain-kind-of-first"):
        task = pocket.task(name)
        first = pocket.task(task.steps[0])
        model = Chain(task).to("pocket")
        batch = task.split(10, 0, 0)[0]
        loss = nn.MetricLoss(task.metric)(model.map(batch), batch)
        for row in loss.rows:
            right = " ".join(first.op.solve({"text": row.example.text.split()}).answer)
            (found,) = func.credit(model, row, task.metric, {"first": {"answer": right}})
            wrong = row.tape.nodes[0].outputs["answer"] != right
            asked = found.usage.calls + found.usage.cached
            assert asked == wrong  # the second call alone, and only where it is asked something else
            assert found.after == 1.0 or not wrong
            flips += found.flips
    assert flips >= 8


def test_random_programs_play_back_exactly():
    """Whatever call is given its own answer again, nothing is asked and the output is the same."""

    class Program(nn.Module):
        def __init__(self, plan):
            super().__init__()
            self.plan = plan
            self.parts = nn.ModuleList(nn.Predict("text -> word") for _ in range(3))

        def forward(self, text):
            known = [text]
            for part, source in self.plan:
                known.append(self.parts[part](text=str(known[source % len(known)])).word)
            return known[-1]

    def answer(messages):
        digest = Random(json.dumps([m.content for m in messages])).randrange(10**6)
        return f"[[ ## word ## ]]\nw{digest % 5}"

    for seed in range(20):
        r = Random(seed)
        asked = Asked(answer)
        model = Program([(r.randrange(3), r.randrange(10)) for _ in range(6)]).to(FunctionLM(asked, name="noise"))
        (row,) = model.map([{"text": "start"}]).rows
        asked.texts.clear()
        for node in row.tape.nodes:
            found = func.counterfactual(model, row, node, node.outputs)
            assert (found.output, found.calls, found.served) == (row.output, 0, 5)
        assert asked.texts == []
