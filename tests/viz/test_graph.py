"""`viz.graph`: what was recorded can be seen."""

import re
from xml.etree import ElementTree

import pytest

from promptgrad import autograd, lm, nn, viz
from promptgrad.autograd import Loss
from promptgrad.data import Example
from promptgrad.errors import GraphError
from promptgrad.metrics import exact_match

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def flow(programs):
    """A router, a step whose text passes through an f-string, and an answer."""
    route = programs.Call("route", lambda text: {"label": "long way"})
    look = programs.Call("look", lambda text: "seven small brown birds")
    answer = programs.Call("answer", lambda note: f"answer from {note}")

    def forward(text):
        if route(text=text).label == "long way":
            note = look(text=text).out
            return answer(note=f"note: {note}").out
        return ""

    return forward


@pytest.fixture
def loss(programs, flow):
    rows = [
        programs.row(flow, Example(text="right"), 1.0, "", text="right"),
        programs.row(flow, Example(text="wrong"), 0.0, "name the <colour> & the size", text="wrong"),
    ]
    return Loss(rows, programs.ScriptedCritic(lambda path, target, feedback: f"{path} needs work on {target}"))


def edges(drawing):
    boxes = drawing.picture.boxes
    return [(boxes[e.source].title, boxes[e.target].title, e.kind) for e in drawing.picture.links]


def titles(drawing):
    return [box.title for box in drawing.picture.boxes]


def test_calls_outputs_and_edges_by_kind(programs, flow):
    _, tape = programs.run(flow, text="x")
    drawing = viz.graph(tape)
    assert titles(drawing) == ["route[0]", "look[0]", "answer[0]", "output"]
    assert edges(drawing) == [
        ("look[0]", "answer[0]", "content"),
        ("answer[0]", "output", "exact"),
        ("route[0]", "output", "control"),
    ]
    known = autograd.graph(tape)
    assert len(drawing.picture.links) == len(known.edges)
    assert repr(drawing).startswith("<Drawing of 3 calls; edges: ")


def test_every_kind_has_its_line(programs):
    give = programs.Call("give", lambda: "four brown old bears")
    lonely = programs.Call("lonely", lambda: "nobody reads this")
    use = programs.Call("use", lambda note: "done at last")

    def forward():
        lonely()
        read = give()
        return use(note="".join(list(read.out))).out

    _, tape = programs.run(forward)
    svg = viz.graph(tape).svg()
    dashes = {
        path.get("class"): path.get("stroke-dasharray")
        for path in ElementTree.fromstring(svg).iter(f"{SVG}path")
        if path.get("class")
    }
    assert dashes == {"edge exact": None, "edge content": "6 4", "edge order": "2 3"}
    dot = viz.graph(tape).dot()
    assert [dot.count(f"style={style}") for style in ("solid", "dashed", "dotted")] == [1, 1, 1]
    assert viz.graph(tape).mermaid().count("stroke-dasharray") == 2


def test_blame_is_seen_after_a_backward_that_retains_the_graph(loss):
    before = viz.graph(loss)
    assert [box.state for box in before.picture.boxes if box.kind == "call"] == [""] * 6
    loss.backward(retain_graph=True)
    drawing = viz.graph(loss)
    assert titles(drawing)[-2:] == ["output 0", "output 1"]
    states = [box.state for box in drawing.picture.boxes]
    assert states == ["", "", "", "blamed", "blamed", "blamed", "right", "blamed"]
    answer = drawing.picture.boxes[5]
    assert [line.text for line in answer.lines if line.kind == "blame"] == [
        "instruction: answer needs work on instruc...",
        "input note: answer needs work on note",
    ]
    assert "instruction: answer needs work on instruction" in answer.tooltip
    assert "seven small brown birds" in answer.tooltip
    assert "instruction (version 0): do answer" in answer.tooltip
    assert "feedback: name the <colour> & the size" in drawing.picture.boxes[7].tooltip


def test_a_freed_graph_and_a_missing_one_say_what_to_do(loss):
    loss.backward()
    with pytest.raises(GraphError, match="retain_graph=True"):
        viz.graph(loss)
    with pytest.raises(GraphError, match="nothing was recorded"):
        viz.graph("plain text")


def test_failed_samples_are_drawn_first(programs, flow):
    rows = [programs.row(flow, Example(text=str(n)), float(n != 2), text=str(n)) for n in range(4)]
    drawing = viz.graph(Loss(rows), limit=2)
    assert [title for title in titles(drawing) if "output" in title] == ["output 0", "output 2"]
    assert "2 more samples are not drawn" in drawing.svg()
    assert "2 more samples are not drawn" in drawing.mermaid()
    with pytest.raises(ValueError, match="at least 1"):
        viz.graph(Loss(rows), limit=0)


def test_a_failed_call_is_seen_with_its_error(programs):
    def fail(text):
        raise LookupError("no <such> thing")

    step = programs.Call("step", fail)
    drawing = viz.graph(Loss([programs.row(step, Example(text="a"), raises=LookupError, text="a")]))
    call = drawing.picture.boxes[0]
    assert (call.title, call.state, call.lines[0].text) == ("step[0]", "error", "LookupError: no <such> thing")
    assert "Traceback" in call.tooltip
    ElementTree.fromstring(drawing.svg())


def test_a_parameter_that_the_code_reads_is_a_vertex_and_blamed_itself(programs):
    tone = nn.Parameter("be kind to everybody")
    tone.name = "tone"
    say = programs.Call("say", lambda tone: "hello", requires_grad=False)
    rows = [programs.row(lambda: say(tone=str(tone)).out, Example(text="a"))]
    loss = Loss(rows, programs.ScriptedCritic())
    loss.backward(retain_graph=True)
    parameter = next(box for box in viz.graph(loss).picture.boxes if box.kind == "parameter")
    assert (parameter.title, parameter.state) == ("tone", "blamed")
    assert parameter.lines[0].text == "be kind to everybody"
    assert edges(viz.graph(loss))[0] == ("tone", "say[0]", "exact")


def test_any_text_gives_valid_documents(programs):
    nasty = 'a "quoted" <b>&amp; ]]> `code` \\n | {x} [y] #35; \x00\x1b\ud800 ' + "long " * 100 + "\nnew\nline"
    step = programs.Call('s"<p', lambda text: nasty)
    _, tape = programs.run(step, text=nasty)
    drawing = viz.graph(tape)
    root = ElementTree.fromstring(drawing.svg().encode())
    tooltips = [title.text for title in root.iter(f"{SVG}title")]
    assert any('"quoted" <b>&amp; ]]>' in tooltip and "new\nline" in tooltip for tooltip in tooltips)
    for line in drawing.mermaid().splitlines():
        match = re.fullmatch(r'  n\d+\["(.*)"\]:::\w+', line)
        if match:
            assert not re.search(r'["`\[\]{}|]', match.group(1))
    dot = drawing.dot().encode().decode()
    assert re.sub(r'"(?:[^"\\]|\\.)*"', "", dot, flags=re.DOTALL).count('"') == 0


def test_real_programs_batches_and_predictions(tmp_path):
    model = nn.ChainOfThought("question -> answer")
    reply = "[[ ## reasoning ## ]]\nI know.\n\n[[ ## answer ## ]]\nParis"
    model.to(lm.FunctionLM(lambda messages: reply, name="one"))
    batch = [Example(question="Capital of France?", answer="Paris").with_inputs("question")]
    outputs = model.map(batch)
    for drawing in (viz.graph(outputs), viz.graph(outputs[0]), viz.graph(outputs[0].answer), viz.graph(list(outputs))):
        assert titles(drawing) == ["program[0]", "output"]
        assert edges(drawing) == [("program[0]", "output", "exact")]
    drawing = viz.graph(nn.MetricLoss(exact_match)(outputs, batch))
    assert [line.text for line in drawing.picture.boxes[1].lines] == ["reasoning: I know.", "answer: Paris"]
    assert drawing.picture.boxes[1].subtitle == "score 1 of 1"
    assert drawing._repr_svg_() == drawing.svg()
    assert drawing.svg() in drawing._repr_html_()
    for suffix in ("svg", "html", "mmd", "dot"):
        assert drawing.save(tmp_path / f"graph.{suffix}").read_text(encoding="utf-8").strip()
    with pytest.raises(ValueError, match=r"\.svg"):
        drawing.save(tmp_path / "graph.png")


def test_a_long_program_can_be_drawn(programs):
    step = programs.Call("step", lambda text: text + " x")

    def forward(text):
        for _ in range(1500):
            text = step(text=text).out[-6:]
        return text

    _, tape = programs.run(forward, text="x y z")
    drawing = viz.graph(tape)
    assert len(drawing.picture.boxes) == 1501
    ElementTree.fromstring(drawing.svg())


def test_several_losses_of_one_forward_are_drawn_as_one(programs, flow):
    wrong = programs.row(flow, Example(text="wrong"), 0.0, "wrong", text="wrong")
    look = wrong.tape.nodes[1]
    about_look = autograd.LossRow(wrong.example, look.outputs["out"], 0.5, 1.0, "not there", wrong.tape, node=look)
    critic = programs.ScriptedCritic(lambda path, target, feedback: f"{path}: {' & '.join(feedback)}")
    loss = Loss([wrong], critic) + 0.5 * Loss([about_look])
    loss.backward(retain_graph=True)
    drawing = viz.graph(loss)
    assert titles(drawing) == ["route[0]", "look[0]", "answer[0]", "output 0", "look[0]"]
    assert ("look[0]", "look[0]", "exact") in edges(drawing)
    judged = drawing.picture.boxes[-1]
    assert judged.subtitle == "score 0.5 of 1"
    call = drawing.picture.boxes[1]
    assert call.state == "blamed"
    assert any("not there" in line.text for line in call.lines), "blame is found whichever loss it came from"
