"""Rows: what was paid for on training data, kept while the values it speaks of have not moved."""

import json
import re

import pytest

import promptgrad as pg
from promptgrad import lm, nn
from promptgrad.autograd import Critique, Gradient, Trace
from promptgrad.search import Candidate, Row, in_order, right_rows, side_by_side
from promptgrad.search._row import few, labeled_rows
from promptgrad.testing import Fields
from tests.search.sessions import session_of, within


def ticket(text, code):
    return pg.Example(text=text, code=code).with_inputs("text")


TICKETS = [ticket("pay 300", "P2"), ticket("pay 3", "P4"), ticket("two users, pay 3", "P1")]


def coded(example, output):
    right = output.code == example.code
    return pg.Score(right, "" if right else f"should be {example.code}")


def coder(answer="P4"):
    model = nn.Predict("text -> code", instruction="Classify.")
    return model.to(lm.FunctionLM(lambda messages: f"[[ ## code ## ]]\n{answer}"))


class Router(nn.Module):
    """Money goes through two steps, everything else through one."""

    def __init__(self):
        super().__init__()
        self.amount = nn.Predict("text -> amount", instruction="Find it.")
        self.decide = nn.Predict("text, amount -> code", instruction="Decide.")

    def forward(self, text):
        amount = self.amount(text=text).amount if "pay" in text else "0"
        return self.decide(text=text, amount=amount)


def router():
    model = Router()

    return model.to(lm.FunctionLM(Fields(amount=lambda inputs: re.search(r"\d+", inputs["text"])[0], code="P4")))


class TestWhatARowHolds:
    def test_of_a_program_with_one_call(self):
        session = session_of(coder(), coded, TICKETS)
        within(session, lambda: session.forward(session.base, TICKETS, scope="a"))
        (place,) = session.places(("instruction",))
        wrong, right, other = session.rows.of(place, session.base)
        assert wrong == Row(
            TICKETS[0].id, {"text": "pay 300"}, {"code": "P4"}, 0.0, 1.0, "should be P2", {"code": "P2"}
        )
        assert (wrong.right, right.right, other.right) == (False, True, False)

    def test_of_one_step_of_several_with_what_the_program_returned(self):
        session = session_of(router(), coded, TICKETS)
        within(session, lambda: session.forward(session.base, TICKETS[:1], scope="a"))
        rows = {place.path: session.rows.of(place, session.base) for place in session.places(("instruction",))}
        (amount,), (decide,) = rows.values()
        assert (amount.inputs, amount.outputs) == ({"text": "pay 300"}, {"amount": "300"})
        assert (amount.returned, amount.expected, amount.score) == ({"code": "P4"}, {}, 0.0)
        assert decide.inputs == {"text": "pay 300", "amount": "300"}
        assert (decide.returned, decide.expected) == ({}, {"code": "P2"})

    def test_of_a_later_step_with_what_the_program_was_given_and_the_step_was_not(self):
        class Pipeline(nn.Module):
            def __init__(self):
                super().__init__()
                self.amount = nn.Predict("text -> amount", instruction="Find it.")
                self.decide = nn.Predict("amount, currency -> code", instruction="Decide.")

            def forward(self, text, currency):
                return self.decide(amount=self.amount(text=text).amount, currency=currency)

        model = Pipeline().to(lm.FunctionLM(Fields(amount="3", code="P4")))
        example = pg.Example(text="two users, pay 3", currency="usd", code="P1").with_inputs("text", "currency")
        session = session_of(model, coded, [example])
        within(session, lambda: session.forward(session.base, [example], scope="a"))
        (amount,), (decide,) = [session.rows.of(p, session.base) for p in session.places(("instruction",))]
        assert amount.program_inputs == {"currency": "usd"}
        assert (decide.inputs, decide.program_inputs) == (
            {"amount": "3", "currency": "usd"},
            {"text": "two users, pay 3"},
        )

    def test_what_the_metric_says_of_one_module_goes_to_its_rows(self):
        def metric(example, output):
            return pg.Score(0.0, "wrong", module_feedback={"amount": "with the currency"})

        session = session_of(router(), metric, TICKETS)
        within(session, lambda: session.forward(session.base, TICKETS[:1], scope="a"))
        (amount,), (decide,) = [session.rows.of(p, session.base) for p in session.places(("instruction",))]
        assert (amount.feedback, decide.feedback) == ("wrong\nwith the currency", "wrong")

    def test_a_critique_stands_beside_its_row_once_the_record_is_gone(self):
        session = session_of(coder(), coded, TICKETS)
        (place,) = session.places(("instruction",))
        loss = within(session, lambda: session.forward(session.base, TICKETS, scope="a"))
        for tape in loss.tapes:
            tape.free()
        critique = Critique(TICKETS[0].id, "", 0, "instruction", "money matters", examples=(TICKETS[2].id,))
        session.rows.add(session.base, loss, {"instruction": Gradient([critique])})
        assert [row.critique for row in session.rows.of(place, session.base)] == ["money matters", "", "money matters"]

    def test_of_several_calls_the_blamed_one_else_the_last(self):
        class Twice(nn.Module):
            def __init__(self):
                super().__init__()
                self.shout = nn.Predict("word -> answer", instruction="Shout.")

            def forward(self, word):
                return self.shout(word=self.shout(word=word).answer)

        model = Twice().to(lm.FunctionLM(Fields(answer=lambda inputs: inputs["word"] + "!")))
        example = pg.Example(word="hey").with_inputs("word")
        session = session_of(model, lambda example, output: 0.0, [example])
        (place,) = session.places(("instruction",))
        loss = within(session, lambda: session.forward(session.base, [example], scope="a"))
        assert session.rows.of(place, session.base)[0].outputs == {"answer": "hey!!"}
        blame = Gradient([Critique(example.id, "shout", 0, "instruction", "too loud")])
        session.rows.add(session.base, loss, {place.path: blame})
        (row,) = session.rows.of(place, session.base)
        assert (row.outputs, row.critique, row.returned) == ({"answer": "hey!"}, "too loud", {"answer": "hey!!"})

    def test_of_a_shared_text_the_call_of_the_module_that_was_blamed(self):
        class Shared(nn.Module):
            def __init__(self):
                super().__init__()
                self.first = nn.Predict("word -> answer", instruction="Shout.")
                self.second = nn.Predict("word -> answer")
                self.second.instruction = self.first.instruction

            def forward(self, word):
                return self.first(word=self.second(word=word).answer)

        model = Shared().to(lm.FunctionLM(Fields(answer=lambda inputs: inputs["word"] + "!")))
        example = pg.Example(word="hey").with_inputs("word")
        session = session_of(model, lambda example, output: 0.0, [example])
        (place,) = session.places(("instruction",))
        loss = within(session, lambda: session.forward(session.base, [example], scope="a"))
        blame = Gradient([Critique(example.id, "second", 0, "instruction", "too loud")])
        session.rows.add(session.base, loss, {place.path: blame})
        assert session.rows.of(place, session.base)[0].outputs == {"answer": "hey!"}

    def test_an_unreadable_reply_is_shown_with_its_error(self):
        model = nn.Predict("text -> code: int", instruction="Classify.")
        model.to(lm.FunctionLM(lambda messages: "[[ ## code ## ]]\nfour"))
        session = session_of(model, coded, TICKETS)
        within(session, lambda: session.forward(session.base, TICKETS[:1], scope="a"))
        (row,) = session.rows.of(session.places(("instruction",))[0], session.base)
        assert "four" in row.outputs["reply"]
        assert "ParseError" in row.error
        assert not row.right


class TestRightRows:
    def test_of_the_blamed_module_with_the_best_score_the_last_call_of_each_example(self):
        blame = Gradient([Critique("1", "code", 0, "instruction", "No.")])
        traces = [
            Trace("1", "code", 0, {"text": "a"}, {"code": "A"}, 1.0, best=2.0),
            Trace("2", "code", 0, {"text": "b"}, {"code": "B"}, 2.0, best=2.0),
            Trace("2", "code", 1, {"text": "c"}, {"code": "C"}, 2.0, best=2.0),
            Trace("2", "clean", 0, {"text": "b"}, {"text": "B"}, 2.0, best=2.0),
        ]
        assert right_rows(blame, traces) == (Row("2", {"text": "c"}, {"code": "C"}, 2.0, 2.0),)
        assert right_rows(Gradient(), traces) == ()

    def test_traces_know_the_best_score_of_their_forward(self):
        def of_three(example, output):
            return 3.0 * coded(example, output).value

        of_three.best = 3.0
        model = coder()
        nn.MetricLoss(of_three)(model.map(TICKETS), TICKETS).backward()
        traces = model.demos.grad.traces
        assert [(trace.score, trace.best) for trace in traces] == [(0.0, 3.0), (3.0, 3.0), (0.0, 3.0)]
        (row,) = right_rows(model.instruction.grad, traces)
        assert row.inputs == {"text": "pay 3"}


class TestWhatIsForgotten:
    def test_rows_speak_of_their_values_and_come_back_with_them(self):
        session = session_of(coder(), coded, TICKETS)
        (place,) = session.places(("instruction",))
        child = session.base.child({"instruction": "Classify well."}, "step 0")
        within(
            session,
            lambda: session.forward(session.base, TICKETS[:2], scope="a"),
            lambda: session.forward(child, TICKETS[2:], scope="b"),
        )
        assert [row.example for row in session.rows.of(place, session.base)] == [e.id for e in TICKETS[:2]]
        assert [row.example for row in session.rows.of(place, child)] == [TICKETS[2].id]

    def test_a_change_that_a_run_never_read_forgets_nothing(self):
        tickets = [*TICKETS[:1], ticket("hello", "P4")]
        session = session_of(router(), coded, tickets)
        within(session, lambda: session.forward(session.base, tickets, scope="a"))
        decide = session.places(("instruction",))[1]
        child = session.base.child({"amount.instruction": "Find the amount."}, "step 0")
        assert [row.inputs["text"] for row in session.rows.of(decide, child)] == ["hello"]

    def test_the_newest_run_of_an_example_counts(self):
        answers = iter(["P4", "P2"])
        model = nn.Predict("text -> code").to(lm.FunctionLM(Fields(code=lambda inputs: next(answers))))
        session = session_of(model, coded, TICKETS)
        again = [lambda n=n: session.forward(session.base, TICKETS[:1], scope=f"{n}", replicate=n) for n in (0, 1)]
        within(session, *again)
        (row,) = session.rows.of(session.places(("instruction",))[0], session.base)
        assert row.outputs == {"code": "P2"}
        measured = session.rows.measured(session.base, TICKETS[:2])
        assert measured.ids == tuple(example.id for example in TICKETS[:2])
        assert measured.scores == (row.score, None)

    def test_phases_share_them_and_a_teacher_leaves_none(self):
        session = session_of(coder(), coded, TICKETS)
        (place,) = session.places(("instruction",))

        async def work():
            part = await session.phase("part")
            await part.forward(part.base, TICKETS[:1], scope="a")
            await part.forward(part.base, TICKETS[1:2], scope="b", teacher=lm.FunctionLM(Fields(code="P1")))

        within(session, work)
        assert [row.example for row in session.rows.of(place, session.base)] == [TICKETS[0].id]

    def test_what_was_only_scored_counts_if_it_is_training_data(self):
        held = [ticket("pay 400", "P2")]
        session = session_of(coder(), coded, TICKETS, held)
        (place,) = session.places(("instruction",))
        within(
            session,
            lambda: session.evaluate(session.base, TICKETS, scope="train"),
            lambda: session.evaluate(session.base, held, scope="val"),
        )
        scored = session.rows.of(place, session.base)
        assert [row.inputs["text"] for row in scored] == [example.text for example in TICKETS]
        within(session, lambda: session.forward(session.base, TICKETS, scope="again"))
        assert session.rows.of(place, session.base) == scored


def row(number, text, answer="A", expected="A", **more):
    right = answer == expected
    return Row(f"{number}", {"text": text}, {"answer": answer}, float(right), expected={"answer": expected}, **more)


class TestSideBySide:
    def test_failures_first_then_the_success_most_like_them(self):
        rows = [
            row(1, "the cat sat on a mat"),
            row(2, "two users cannot log in"),
            row(3, "one user cannot log in", "B"),
        ]
        assert [shown["inputs"]["text"].split()[0] for shown in side_by_side(rows)] == ["one", "two", "the"]

    def test_a_success_with_another_answer_comes_before_an_equal_one(self):
        fail = row(1, "pay 300 now", "B")
        same, other = row(2, "pay 400 now"), row(3, "pay 500 now", "B", "B")
        for order in ([fail, same, other], [fail, other, same]):
            assert [shown["outputs"]["answer"] for shown in side_by_side(order)] == ["B", "B", "A"]

    def test_each_kind_of_mistake_has_its_turn_and_successes_have_room(self):
        rows = [row(n, f"w{n} x{n} y{n} z{n}", "B") for n in range(40)] + [row(99, "odd one", "C", "D")]
        rows += [row(100 + n, f"w{n} u{n}") for n in range(40)]
        shown = side_by_side(rows, tokens=600)
        answers = [item["outputs"]["answer"] for item in shown]
        assert "C" in answers
        assert answers.count("A") >= 2
        assert answers == sorted(answers, key=lambda answer: answer == "A")

    @pytest.mark.parametrize("bound", [200, 1000, 3000])
    def test_long_rows_are_shortened_in_the_middle_and_the_bound_holds(self, bound):
        rows = [row(n, f"begin{n} " + "word " * 900 + f"end{n}", "B" if n % 2 else "A") for n in range(30)]
        shown = side_by_side([*rows, row(77, "short")], tokens=bound)
        assert len(re.findall(r"\w+|[^\w\s]+", json.dumps(shown))) <= bound * 1.1
        assert len(shown) >= bound // 150
        long = [item["inputs"]["text"] for item in shown if item["inputs"]["text"] != "short"]
        assert all(text.startswith("begin") and "[...]" in text and re.search(r"end\d+$", text) for text in long)

    def test_a_text_of_any_length_costs_what_one_of_36000_letters_does(self):
        text = "begin " + "word " * 2000 + "{}" + " word" * 2000 + " end"
        long, longer = (row(1, "a", "B", feedback=text.format("x" * size)) for size in (40_000, 4_000_000))
        assert side_by_side([long]) == side_by_side([longer])
        (shown,) = side_by_side([longer])
        assert shown["feedback"].startswith("begin word")
        assert shown["feedback"].endswith("word end")
        assert in_order([long]) == in_order([longer])

    def test_24_short_rows_fit_and_none_is_shortened(self):
        rows = [row(n, f"ticket {n}: " + "some words of it " * 5, "B" if n % 3 else "A") for n in range(24)]
        shown = side_by_side(rows)
        assert len(shown) == 24
        assert "[...]" not in str(shown)

    def test_a_critique_of_several_rows_is_counted_once_and_shortens_none(self):
        long = "the rule is missing, " * 30
        rows = [row(n, f"letter {n}: " + "some words of it " * 15, "B", critique=long) for n in range(20)]
        shown = side_by_side([*rows, row(99, "like letter 7", critique=long)])
        assert "[...]" not in str(shown)
        assert [item["critique"] for item in shown] == [long, *["as in row 1"] * 20]

    def test_the_marks_of_json_are_not_counted_one_by_one(self):
        rows = [Row(f"{n}", {f"field {k}": f"value {n}" for k in range(16)}, {"answer": "A"}, 0.0) for n in range(24)]
        shown = side_by_side(rows)
        assert len(shown) == 24
        assert "[...]" not in str(shown)

    @pytest.mark.parametrize(
        "text",
        ["\u5ba2\u6237\u8bf4\u5e94\u7528\u6253\u4e0d\u5f00" * 300, "aGVsbG8gd29ybGQ" * 300],
        ids=["Chinese", "base64"],
    )
    def test_text_without_blanks_is_counted_and_shortened_too(self, text):
        shown = side_by_side([row(n, f"{text}{n}") for n in range(8)], tokens=1000)
        assert len(shown) == 8
        assert all("[...]" in item["inputs"]["text"] for item in shown)
        letters = len("".join(item["inputs"]["text"] for item in shown))
        assert letters <= (1000 if text.isalpha() and not text.isascii() else 6000)

    @pytest.mark.parametrize("show", [side_by_side, in_order])
    def test_what_the_step_was_not_given_stands_beside_where_there_is_room(self, show):
        rows = [row(n, f"facts {n} " * 12, "B", program_inputs={"ticket": "so many words " * 40}) for n in range(8)]
        seen = show(rows, 10_000)
        assert all(item["program_inputs"] == {"ticket": "so many words " * 40} for item in seen)
        few = show(rows, 700)
        assert [item["inputs"] for item in few] == [item["inputs"] for item in seen]
        assert 0 < sum("program_inputs" in item for item in few) < 8
        assert "[...]" not in str(few)
        assert "program_inputs" not in str(show(rows, 400))

    def test_nothing_that_is_empty_is_shown(self):
        assert side_by_side([row(1, "x")]) == [
            {"row": 1, "inputs": {"text": "x"}, "outputs": {"answer": "A"}, "expected": {"answer": "A"}, "score": 1.0}
        ]
        assert side_by_side([]) == []


def test_each_proposal_of_a_narrow_model_is_shown_a_few_other_rows_with_right_answers():
    wrong = [Row(f"w{n}", {"text": f"t{n}"}, {"answer": "no"}, 0.0, expected={"answer": "yes"}) for n in range(9)]
    right = [Row(f"r{n}", {"text": f"t{n}"}, {"answer": "yes"}, 1.0) for n in range(9)]
    silent = [Row("s", {"text": "t"}, {"answer": "no"}, 0.0, feedback="no"), Row("f", {}, {}, 0.0, error="failed")]
    drawn = [[row.example for row in few([*wrong, *silent, *right], number)] for number in range(30)]
    assert all(sum(key.startswith(side) for key in ids) == 3 for ids in drawn for side in "wr")
    assert all(len(set(ids)) == 6 for ids in drawn)
    assert len({frozenset(ids) for ids in drawn}) > 25
    assert {key for ids in drawn for key in ids} == {row.example for row in (*wrong, *right)}
    assert [row.example for row in few([*silent, *right[:1]], 0)] == ["r0"]


def test_candidates_of_other_programs_have_rows_of_their_own():
    session = session_of(coder(), coded, TICKETS)
    model = coder().to(lm.FunctionLM(lambda messages: "[[ ## code ## ]]\nP2", name="another"))
    other = Candidate({}, "other", model, "other")
    within(session, lambda: session.forward(other, TICKETS[:1], scope="a"))
    (place,) = session.places(("instruction",))
    assert session.rows.of(place, session.base) == ()
    assert session.rows.of(place, other)[0].outputs == {"code": "P2"}
    within(session, lambda: session.forward(session.base, TICKETS[:1], scope="b"))
    found = [session.rows.of(place, one)[0].outputs for one in (session.base, other)]
    assert found == [{"code": "P4"}, {"code": "P2"}]


class Greeting(nn.Module):
    """A text of its own beside a step."""

    def __init__(self):
        super().__init__()
        self.hello = pg.Parameter("Hello.", kind="instruction", requires_grad=True)
        self.ask = nn.Predict("question -> answer")

    def forward(self, question):
        return f"{self.hello.data} {self.ask(question=question).answer}"


def test_examples_with_all_inputs_and_a_label_of_a_step_are_rows_of_it_without_a_run():
    whole = pg.Example(question="q1", answer="a1", note="n").with_inputs("question")
    bare, other = pg.Example(question="q2").with_inputs("question"), pg.Example(text="q3", answer="a3")
    session = session_of(Greeting().to(lm.FunctionLM(lambda messages: "")), coded, [whole, bare, other])
    places = {place.path: place for place in session.places()}
    (row,) = labeled_rows(places["ask.instruction"], session.train)
    assert (row.example, row.inputs, row.expected) == (whole.id, {"question": "q1"}, {"answer": "a1"})
    assert labeled_rows(places["hello"], session.train) == ()
