import json

import pytest

from promptgrad.autograd import Edge, ForwardOutput, Loss, Parameter, edges, graph
from tests.autograd.programs import Call, row, run

CITY = "the town hall stands beside the river"


def shown(tape):
    """Edges as 'source -kind-> target.field'."""

    def name(vertex):
        if isinstance(vertex, ForwardOutput):
            return "Output"
        return f"{vertex.path}{vertex.index or ''}" if hasattr(vertex, "path") else type(vertex).__name__

    return [
        f"{name(e.source)} -{e.kind}{'?' if e.ambiguous else ''}-> {name(e.target)}{'.' + e.field if e.field else ''}"
        for e in edges(tape)
    ]


def test_the_same_text_and_what_is_derived_from_it_are_exact():
    a, b = Call("a", lambda q: f"{CITY} {q}"), Call("b", lambda text, extra: "fine")
    _, tape = run(lambda q: b(text=a(q=q).out, extra=a(q=q).out.strip()[3:].upper()).out, q="x")
    assert shown(tape) == ["a -exact-> b.text", "a1 -exact-> b.extra", "b -exact-> Output"]


def test_texts_made_of_two_join():
    a, b, c = Call("a", lambda: "alpha beta gamma"), Call("b", lambda: "delta epsilon zeta"), Call("c", lambda x: "z")
    _, tape = run(lambda: c(x=a().out + " and " + b().out).out)
    assert shown(tape) == ["Join -exact-> c.x", "c -exact-> Output"]


SHEDDING = {
    "f-string": lambda text: f"Given {text}, what?",
    "str": str,
    "join": lambda text: "\n".join(["a list", text]),
    "json": lambda text: json.dumps({"it": text}),
    "json back": lambda text: json.loads(json.dumps({"it": text}))["it"],
    "json of lines": lambda text: json.dumps([text.replace(" ", "\n")]),
    "re": lambda text: __import__("re").search("hall.*beside", text).group(0),
    "encoded": lambda text: text.encode().decode(),
    "percent": lambda text: "of %s and %s" % (text, "more"),  # noqa: UP031
    "template": lambda text: __import__("string").Template("see $x here").substitute(x=text),
    "in a list": lambda text: ["first thing", f"* {text}"],
    "in a dict": lambda text: {"k": {"v": f"{text}."}},
    "textwrap": lambda text: __import__("textwrap").fill(text, 12),
    "html": lambda text: __import__("html").escape(f"<p>{text}</p>"),
}


@pytest.mark.parametrize("how", SHEDDING)
def test_what_sheds_provenance_is_found_by_content(how):
    a, b = Call("a", lambda q: CITY), Call("b", lambda x: "fine")
    _, tape = run(lambda q: b(x=SHEDDING[how](a(q=q).out)).out, q="where is it")
    assert shown(tape) == ["a -content-> b.x", "b -exact-> Output"]


def test_validation_sheds_provenance_and_content_finds_it():
    pydantic = pytest.importorskip("pydantic")

    class Note(pydantic.BaseModel):
        text: str

    a, b = Call("a", lambda q: CITY), Call("b", lambda note: "fine")
    _, tape = run(lambda q: b(note=Note(text=a(q=q).out)).out, q="x")
    assert shown(tape)[0] == "a -content-> b.note"


def test_lists_objects_and_numbers():
    class Thing:
        pass

    a = Call("a", lambda: {"items": ["one", "two"], "thing": Thing(), "ratio": 0.625, "count": 7})
    b = Call("b", lambda **inputs: "fine")

    def forward():
        record = a()
        return b(items=record.items, copied=list(record.items), thing=record.thing, ratio=record.ratio).out

    _, tape = run(forward)
    assert shown(tape)[:4] == [
        "a -exact-> b.items",
        "a -exact-> b.copied",
        "a -exact-> b.thing",
        "a -content?-> b.ratio",
    ]


def test_a_whole_record_is_exact():
    a, b = Call("a", lambda: "x"), Call("b", lambda record: "y")
    _, tape = run(lambda: b(record=a()))
    assert shown(tape) == ["a -exact-> b.record", "b -exact-> Output"]


def test_the_latest_of_equal_producers_counts_and_is_called_ambiguous():
    a, b = Call("a", lambda: CITY), Call("b", lambda x: "fine")
    _, tape = run(lambda: [a(), a(), b(x=f"It is said: {CITY}!").out][-1])
    assert "a1 -content?-> b.x" in shown(tape)


def test_only_what_came_before_can_be_a_source():
    a, b = Call("a", lambda x: CITY), Call("b", lambda x: "fine")
    _, tape = run(lambda: [a(x=f"say: {CITY}").out, b(x="z")][0])
    assert not [edge for edge in edges(tape) if edge.source is tape.nodes[0] and edge.target is tape.nodes[0]]


def test_a_list_that_grows_later_makes_no_cycle():
    a = Call("a", lambda notes: f"note number {len(notes)} is here")

    def forward():
        notes = []
        for _ in range(4):
            notes += [a(notes=notes).out]
        return notes[-1]

    _, tape = run(forward)
    for edge in edges(tape):
        if hasattr(edge.target, "order"):
            assert edge.source.order < edge.target.order
    assert len([edge for edge in edges(tape) if edge.kind == "exact"]) == 0 + 1 + 2 + 3 + 1


class TestControlAndOrder:
    def test_a_router_gets_a_control_edge_to_the_output(self):
        route, solve = Call("route", lambda q: "math"), Call("solve", lambda q: "4")

        def forward(q):
            return solve(q=q).out if route(q=q).out == "math" else "?"

        _, tape = run(forward, q="what is two plus two")
        assert shown(tape) == ["solve -exact-> Output", "route -control-> Output"]

    def test_an_unread_call_gets_an_order_edge(self):
        a, b = Call("a", lambda q: "x"), Call("b", lambda q: "y")
        _, tape = run(lambda q: [a(q=q), b(q=q).out][1], q="what is it")
        assert "a -order-> Output" in shown(tape)

    def test_it_goes_to_the_first_later_call_with_an_unexplained_input(self):
        table = {"seven": "quite another text from nowhere known"}
        count, plain, use = (
            Call("count", lambda q: "seven"),
            Call("plain", lambda q: "p"),
            Call("use", lambda q, c: "u"),
        )

        def forward(q):
            key = count(q=q).out
            plain(q=q)
            return use(q=q, c=table[key]).out

        _, tape = run(forward, q="what is it all about")
        assert "count -control-> use.c" in shown(tape)
        assert "plain -order-> use.c" in shown(tape)

    def test_a_tool_between_two_calls(self):
        query, answer = Call("query", lambda q: "river town"), Call("answer", lambda q, docs: "Rouen")

        def search(text):
            return ["Completely different words about boats", "and harbours"] if text else []

        _, tape = run(lambda q: answer(q=q, docs=search(query(q=q).out)).out, q="which town is it")
        assert shown(tape) == ["query -control-> answer.docs", "answer -exact-> Output"]

    def test_at_most_one_such_edge_a_call(self):
        noise, use = Call("noise", lambda i: "x"), Call("use", lambda c: "u")

        def forward():
            for i in range(20):
                noise(i=i)
                use(c=f"new text number {i} out of nowhere")
            return "constant"

        _, tape = run(forward)
        extra = [edge for edge in edges(tape) if edge.kind in ("control", "order")]
        assert len(extra) == len({id(edge.source) for edge in extra}) == 40

    def test_inputs_and_constants_of_the_code_are_explained(self):
        route, solve = Call("route", lambda q: "math"), Call("solve", lambda q, style, k: "4")

        class Program:
            tone = "calm and friendly as ever"

            def __init__(self):
                self.mood = "a rather sunny mood today"

            def modules(self):
                return [self]

            def forward(self, q):
                route(q=q)
                style = f"Write in {self.mood} please, dear model: {q}"
                return solve(q=q, style=style, k=3).out

        program = Program()
        _, tape = run(program.forward, program, q="what is two plus two")
        assert shown(tape) == ["solve -exact-> Output", "route -order-> Output"]
        _, tape = run(program.forward, None, q="what is two plus two")
        assert "route -order-> solve.style" in shown(tape)

    @pytest.mark.parametrize("wrote", [41, "about 41"])
    def test_a_number_that_nothing_explains_comes_from_a_call_that_wrote_one(self, wrote):
        route, count = Call("route", lambda q: "math"), Call("count", lambda q: wrote)
        use = Call("use", lambda n, ok: "u")

        def forward(q):
            if route(q=q).out == "math":
                return use(n=int(str(count(q=q).out).split()[-1]) + 1, ok=True).out

        _, tape = run(forward, q="how many is it")
        assert shown(tape) == ["count -control-> use.n", "use -exact-> Output", "route -control-> Output"]

    @pytest.mark.parametrize("n", [7, 12, 2, 0, True])
    def test_a_number_of_the_code_the_inputs_or_the_calls_is_explained(self, n):
        class Program:
            width = 7

            def modules(self):
                return [self]

        count, use = Call("count", lambda q, k: 41), Call("use", lambda n: "u")
        _, tape = run(lambda q, k: [count(q=q, k=k).out, use(n=n).out][1], Program(), q="how many", k=12)
        assert shown(tape) == ["use -exact-> Output", "count -control-> Output"]

    @pytest.mark.parametrize("question", ["short", "what is the color of the cat"])
    def test_attempts_that_only_a_number_tells_apart_do_not_use_one_another(self, question):
        class Program(Call):
            def modules(self):
                return [self]

            def forward(self, q):
                votes = [self(question=f"{q} (attempt {i})").out for i in range(3)]
                return "one of " + "them" if max(votes, key=votes.count) else ""

        answers = iter(["red wine", "dark blue", "light green"])
        program = Program("a", lambda question: next(answers))
        _, tape = run(program.forward, program, q=question)
        assert shown(tape) == ["a -control-> Output", "a1 -control-> Output", "a2 -control-> Output"]

    def test_restating_the_question_is_no_edge(self):
        a, b = Call("a", lambda q: "The question 'where does the river end' is hard"), Call("b", lambda x: "sea")
        _, tape = run(lambda q: [a(q=q), b(x=f"Answer: {q}").out][1], q="where does the river end")
        assert "a -content-> b.x" not in shown(tape)

    def test_a_scalar_output_reaches_the_loss_through_a_control_edge(self):
        a = Call("a", lambda q: {"n": 3, "ok": True})
        _, tape = run(lambda q: a(q=q).ok and 41 + 1, q="how many")
        assert shown(tape) == ["a -control-> Output"]


class TestParameters:
    def test_a_parameters_text_in_an_input_is_an_edge(self):
        persona, solve = Parameter("You are a very patient teacher.", "description"), Call("solve", lambda sys, q: "4")
        _, tape = run(lambda q: solve(sys=f"{persona}", q=q).out, q="x")
        assert shown(tape) == ["AccumulateGrad -exact-> solve.sys", "solve -exact-> Output"]
        _, tape = run(lambda q: solve(sys=f"{persona.data} {q}", q=q).out, q="x")
        assert shown(tape) == ["AccumulateGrad -content-> solve.sys", "solve -exact-> Output"]

    def test_a_choice_read_by_the_code_is_a_control_edge(self):
        hops, solve = Parameter(2, "choice", options=[1, 2, 3]), Call("solve", lambda q: "4")

        def forward(q):
            for _ in range(hops.data):
                answer = solve(q=q).out
            return answer

        _, tape = run(forward, q="what now")
        assert "AccumulateGrad -control-> Output" in shown(tape)


def test_exact_edges_cross_tapes():
    a, b = Call("a", lambda: CITY), Call("b", lambda x: "fine")
    memory, first = run(lambda: a().out)
    _, second = run(lambda: b(x=memory).out)
    assert shown(second) == ["a -exact-> b.x", "b -exact-> Output"]
    both = graph(second)
    assert [node.path for node in both.nodes] == ["a", "b"]
    assert first.nodes[0] in both.nodes


def test_graph_of_a_loss_a_text_and_a_tape():
    a, b = Call("a", lambda q: CITY), Call("b", lambda x: "fine")
    one = row(lambda q: b(x=a(q=q).out).out, None, q="x")
    for thing in (Loss([one]), one.output, one.tape):
        found = graph(thing)
        assert [node.path for node in found.nodes] == ["a", "b"]
        assert [edge.kind for edge in found.edges] == ["exact", "exact"]
        assert all(isinstance(edge, Edge) for edge in found.edges)


def test_edges_have_a_repr_worth_reading():
    a = Call("a", lambda q: "x")
    _, tape = run(lambda q: a(q=q).out, q="x")
    assert repr(edges(tape)[0]) == "<exact <Call a[0]> -> <Output>>"


def test_a_call_whose_error_was_caught_decided_a_branch():
    def fail(q):
        raise ValueError("no")

    a, b = Call("a", fail), Call("b", lambda q: "fine")

    def forward(q):
        try:
            return a(q=q).out
        except ValueError:
            return b(q=q).out

    _, tape = run(forward, q="x")
    assert shown(tape) == ["b -exact-> Output", "a -control-> Output"]
