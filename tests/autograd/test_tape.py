import gc
import sys
import threading

from promptgrad.autograd import Node, Parameter, Tape, Text, current_tape, no_grad, record_reads
from promptgrad.autograd import graph as graph_of
from tests.autograd.programs import Call, run
from tests.counting import growth, steps


def test_calls_are_recorded_in_order_with_what_they_read():
    solve = Call("solve", lambda q: f"about {q}")
    _, tape = run(lambda q: solve(q=solve(q=q).out), q="x")
    first, second = tape.nodes
    assert (first.path, first.index, first.order, second.index, second.order) == ("solve", 0, 0, 1, 1)
    assert first.inputs == {"q": "x"}
    assert first.outputs == {"out": "about x"}
    assert first.outputs["out"].grad_fn is first
    assert [(r.parameter, r.name, r.value) for r in first.reads] == [
        (solve.instruction, "instruction", "do solve"),
        (solve.demos, "demos", ()),
    ]
    assert [read.parameter for read in tape.reads] == [solve.instruction, solve.demos]
    assert repr(tape) == "<Tape of 2 nodes, finished>"


def test_facts_of_a_call_are_kept():
    tape = Tape()
    node = tape.node("solve", inputs={"q": "x"}, output_fields=["a"], replicate=3)
    node.finish({"a": 1}, messages=["m"], reply="r", usage="u", lm="lm")
    assert (node.messages, node.reply, node.usage, node.lm) == (["m"], "r", "u", "lm")
    assert (node.output_fields, node.replicate) == (("a",), 3)


def test_lists_are_kept_as_they_were_at_the_call():
    solve = Call("solve", lambda notes: f"note {len(notes)}")

    def forward():
        notes = []
        for _ in range(3):
            notes += [solve(notes=notes).out]
        return notes

    _, tape = run(forward)
    assert [len(node.inputs["notes"]) for node in tape.nodes] == [0, 1, 2]
    assert tape.output == ["note 0", "note 1", "note 2"]


def test_reads_of_predictions_count_only_during_the_forward():
    solve = Call("solve", lambda: {"a": "x", "b": "y"})
    record, tape = run(lambda: solve())
    _ = record.a
    assert tape.nodes[0].touched == []

    def forward():
        record = solve()
        _ = record.b, record.b
        return record

    _, tape = run(forward)
    assert tape.nodes[0].touched == ["b"]


def test_a_failed_forward_is_finished_with_its_error():
    def boom():
        raise LookupError("gone")

    _, tape = run(boom, raises=LookupError)
    assert tape.finished
    assert isinstance(tape.error, LookupError)


def test_a_parameter_read_by_the_programs_own_code_is_a_leaf_once():
    persona = Parameter("You are kind.", "description")

    def forward():
        for _ in range(3):
            _ = persona.data
        with no_grad():
            _ = Parameter("other").data

    _, tape = run(forward)
    assert [leaf.parameter for leaf in tape.leaves] == [persona]


def test_reads_on_a_tape_reach_an_outer_log():
    solve, persona = Call("solve", lambda: "x"), Parameter("kind", "description")

    def forward():
        return solve().out + persona.data + str(Parameter("x"))

    with record_reads() as log:
        run(forward)
    assert [read.parameter for read in log.reads][:3] == [solve.instruction, solve.demos, persona]
    assert len(log.reads) == 4


def test_no_grad_allocates_no_node():
    solve = Call("solve", lambda q: q)
    gc.collect()
    before = sum(type(thing) is Node for thing in gc.get_objects())

    def forward(q):
        with no_grad():
            for _ in range(100):
                q = solve(q=q).out.strip() + "!"
        return q

    output, tape = run(forward, q="x")
    assert tape.nodes == []
    assert sum(type(thing) is Node for thing in gc.get_objects()) == before
    assert type(output) is Text


def test_free_lets_go_of_payloads_and_keeps_names():
    solve = Call("solve", lambda q: "y" * 1000)
    output, tape = run(lambda q: solve(q=q).out, q="x" * 1000)
    node = tape.nodes[0]
    tape.free()
    assert (node.inputs, node.outputs, node.reads, node.reply) == ({}, {}, [], None)
    assert repr(node) == "<Call solve[0]>"
    assert repr(tape) == "<Tape of 1 nodes, freed>"
    assert [edge.source for edge in graph_of(output).edges] == [node]  # the text still knows; nothing leads further


def test_tapes_of_concurrent_threads_are_apart():
    tapes = []

    def one(i):
        solve = Call("solve", lambda: f"{i}")
        tapes.append(run(lambda: [solve().out for _ in range(20)])[1])

    threads = [threading.Thread(target=one, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [len(tape.nodes) for tape in tapes] == [20] * 8
    assert current_tape() is None


def test_threads_that_share_a_tape_count_calls_without_gaps():
    tape = Tape()

    def work():
        for _ in range(500):
            tape.node("solve").finish({})

    threads = [threading.Thread(target=work) for _ in range(4)]
    switch = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(switch)
    assert sorted(node.index for node in tape.nodes) == list(range(2000))


def test_recording_a_call_is_cheap():
    """About 30 microseconds, or 130 steps, a call, whether it is the first of its tape or the thousandth."""
    instruction, demos = Parameter("x"), Parameter((), "demos")

    def calls(count):
        tape = Tape()

        def work():
            for _ in range(count):
                node = tape.node("solve", inputs={"question": "q", "notes": ["a", "b", "c"]}, module_name="Predict")
                node.read(instruction, "instruction")
                node.read(demos, "demos")
                node.finish({"answer": "x"}, messages=(), reply="x")

        return work

    calls(1)()
    assert steps(calls(100)) / 100 < 200
    assert growth(calls, 100, times=8) < 10
