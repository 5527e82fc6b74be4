"""What DSPy saved is read: all vintages, every misfit reported, nothing unpickled, nobody contacted."""

import json
import socket
from pathlib import Path

import pytest

import promptgrad as pg
from promptgrad import nn
from promptgrad.train import from_dspy

FILES = Path(__file__).parent / "dspy_programs"


def program(**modules):
    made = nn.Module()
    for name, module in modules.items():
        setattr(made, name, module)
    return made


def of_react():
    tools = nn.Predict("question, trajectory -> next_thought, next_tool_name, next_tool_args: dict")
    return program(react=tools, extract=nn.ChainOfThought("question, trajectory -> answer"))


def of_papillon():
    return program(
        prompt_creater=nn.ChainOfThought("user_query -> created_prompt"),
        info_aggregator=nn.Predict("user_query, model_response -> final_output"),
    )


def of_xmc():
    infer = program(infer=program(cot=nn.ChainOfThought("text -> output")))
    return program(infer_retrieve=infer, rank=program(cot=nn.ChainOfThought("text, options: list[str] -> output")))


def of_hipporag():
    return program(prog=nn.Predict("question, fact_before_filter -> fact_after_filter"))


def saved(name):
    return json.loads((FILES / name).read_text())


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("nothing is contacted")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def test_a_react_program_of_dspy_3():
    model, state = of_react(), saved("dspy_react.json")
    report = pg.load_dspy(FILES / "dspy_react.json", model)
    assert report.loaded == {"react": "react", "extract.predict": "extract"}
    assert model.react.instruction.data == state["react"]["signature"]["instructions"]
    assert model.extract.instruction.data == state["extract.predict"]["signature"]["instructions"]
    (shown,) = model.react.demos.data  # the other has no output, and DSPy does not show it
    assert (shown.next_tool_name, shown.next_tool_args) == ("finish", {})
    first, second = model.extract.demos.data
    assert first.reasoning == state["extract.predict"]["demos"][0]["reasoning"]
    assert second.to_dict() == {"question": "Are Smyrnium and Nymania both types of plant?", "answer": "yes"}
    assert report.remarks == {
        "metadata": "written by DSPy 3.0.0",
        "react.demos.2": "has no output, so DSPy does not show it either",
    }
    assert report.unexpected == ("react.demos.answer",)
    assert (report.missing, report.invalid) == ((), {})
    messages = model.extract.render(question="q", trajectory="t")
    assert "very verbose fields" in messages[0]["content"]
    assert any("Walt Disney Productions" in message["content"] for message in messages)


def test_the_old_form_with_stores_and_a_language_model():
    model = of_xmc()
    before = model.rank.cot.instruction.data
    report = pg.load_dspy(FILES / "xmc_esco_house.json", model, strict=True)
    assert report.loaded == {"infer_retrieve.infer.cot": "infer_retrieve.infer.cot", "rank.cot": "rank.cot"}
    old = saved("xmc_esco_house.json")["rank.cot"]["demos"][0]["_store"]
    (demo,) = model.rank.cot.demos.data
    assert demo.to_dict() == {
        "text": old["text"], "options": old["options"], "reasoning": old["rationale"], "output": old["output"],
    }  # fmt: skip
    assert model.rank.cot.instruction.data == before
    assert "gpt-4-1106-preview" in report.remarks["rank.cot.lm"]
    assert report.remarks["config"] == "is no predictor, and is left out"
    assert model.rank.cot.lm is None


def test_flat_keys_with_an_extended_signature():
    model, state = of_papillon(), saved("papillon_llama_31_8b.json")
    report = pg.load_dspy(str(FILES / "papillon_llama_31_8b.json"), model, strict=True)
    assert report.fits
    assert not report.remarks
    assert model.prompt_creater.instruction.data == state["prompt_creater"]["extended_signature_instructions"]
    assert model.info_aggregator.instruction.data == state["info_aggregator"]["signature_instructions"]


def test_descriptions_and_many_demos():
    model = of_hipporag()
    report = pg.load_dspy(FILES / "hipporag_filter.json", model, strict=True)
    assert len(model.prog.demos.data) == 10
    assert model.prog.signature.fields["fact_after_filter"].description == "Filtered facts in JSON format"
    assert "Candidate facts to be filtered" in model.prog.render(question="q", fact_before_filter="f")[0]["content"]
    assert report.remarks == {"prog.system": "has no place here"}
    assert "prog -> prog: instruction, 10 demos, descriptions of question" in repr(report)


@pytest.mark.parametrize(
    ("make", "own"), [(of_react, "dspy"), (of_papillon, "papillon"), (of_xmc, "xmc"), (of_hipporag, "hipporag")]
)
def test_a_program_that_does_not_fit_is_left_as_it_was(make, own):
    model = make()
    before = model.state_dict()
    strange = [file for file in sorted(FILES.glob("*.json")) if not file.name.startswith(own)]
    assert len(strange) == 3
    for file in strange:
        with pytest.raises(pg.errors.StateDictError, match=r"no predictor .*\n[\s\S]*rename=") as caught:
            pg.load_dspy(file, model)
        assert caught.value.missing
        assert caught.value.unexpected
    assert model.state_dict() == before


def test_the_converted_state_is_loaded_as_any_other():
    model, twin = of_papillon(), of_papillon()
    report = from_dspy(saved("papillon_llama_31_8b.json"), model)
    assert model.state_dict() == twin.state_dict()
    twin.load_state_dict(report.state)
    pg.load_dspy(FILES / "papillon_llama_31_8b.json", model)
    assert model.state_dict() == twin.state_dict()


def predictor(instructions="Do it.", demos=(), **more):
    return {"traces": [], "train": [], "demos": list(demos), "lm": None,
            "signature": {"instructions": instructions, "fields": []}, **more}  # fmt: skip


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("hops[1].generate", "hops.1.generate"),
        ("hops[1].generate.predict", "hops.1.generate"),
        ("parts['solve']", "parts.solve"),
        ("parts.solve", "parts.solve"),
        ("alone", "alone.inner"),
    ],
)
def test_paths_are_found(theirs, ours):
    hops = nn.ModuleList([program(generate=nn.Predict("a -> b")), program(generate=nn.Predict("a -> b"))])
    model = program(hops=hops, parts=nn.ModuleDict({"solve": nn.Predict("a -> b")}))
    model.alone = program(inner=nn.Predict("a -> b"))
    report = from_dspy({theirs: predictor()}, model)
    assert report.loaded == {theirs: ours}
    assert report.state[f"{ours}.instruction"] == "Do it."
    assert len(report.missing) == 3


@pytest.mark.parametrize("state", [predictor(), {"self": predictor()}, {"predict": predictor()}, {"x.y": predictor()}])
def test_a_sole_predictor_is_the_sole_module(state):
    model = nn.ChainOfThought("a -> b")
    assert from_dspy(state, model).state["instruction"] == "Do it."


def test_what_belongs_together_can_be_named():
    model = program(one=nn.Predict("a -> b"), two=nn.Predict("a -> b"))
    state = {"first": predictor("First."), "two": predictor("Second."), "third": predictor()}
    report = from_dspy(state, model, rename={"first": "one"})
    assert report.state["one.instruction"] == "First."
    assert report.unexpected == ("third",)
    with pytest.raises(pg.errors.StateDictError, match="'uno' is neither"):
        from_dspy(state, model, rename={"first": "uno"})


def test_two_that_fit_one_place_are_not_guessed():
    model = program(solve=nn.Predict("a -> b"), other=nn.Predict("a -> b"))
    report = from_dspy({"solve.a": predictor(), "solve.b": predictor(), "other": predictor()}, model)
    assert report.loaded == {"other": "other"}
    assert report.unexpected == ("solve.a", "solve.b")
    assert "unexpected  solve.a (is it 'solve'?)" in repr(report)


def test_misfits_of_fields_and_demos_are_reported():
    model = nn.Predict("question -> score: float, why")
    demos = [
        {"question": "a", "score": "0.5", "why": "w"},
        {"question": "b", "score": "high", "why": "w"},
        {"question": "c", "score": 1, "why": {"because": "x"}, "extra": 1},
        {"augmented": True, "question": "<<CUSTOM-TYPE-START-IDENTIFIER>>[]<<CUSTOM-TYPE-END-IDENTIFIER>>", "score": 1},
        "no demo",
    ]
    fields = [{"prefix": "Q so far:", "description": "what is asked"}, {"prefix": "Score:", "description": "${score}"}]
    state = {"self": predictor(demos=demos) | {"signature": {"instructions": 3, "fields": fields}}}
    report = from_dspy(state, model)
    assert report.missing == ("question", "why")
    assert report.unexpected == ("q_so_far", "demos.extra")
    assert report.invalid["instruction"] == "must be str, not int"
    for part in ("demo 2 is left out", "demo 4 is left out: question holds an image", "demo 5 is no object"):
        assert part in report.invalid["demos"]
    assert report.state == {"demos": [
        {"question": "a", "score": "0.5", "why": "w"}, {"question": "c", "score": 1, "why": '{"because": "x"}'},
    ]}  # fmt: skip
    shown = repr(report)
    assert "1 predictors read, with misfits" in shown
    assert "invalid     instruction: must be str, not int" in shown


def test_a_value_that_does_not_fit_is_warned_of(tmp_path):
    file = tmp_path / "program.json"
    demos = [{"question": "a", "score": 1}, {"question": "b", "score": "high"}]
    file.write_text(json.dumps({"self": predictor(demos=demos)}))
    model = nn.Predict("question -> score: int")
    with pytest.warns(UserWarning, match=r"(?s)in all; left out: demos.*demo 2 is left out.*strict=True"):
        report = pg.load_dspy(file, model)
    assert [dict(demo) for demo in model.demos.data] == demos[:1]
    assert list(report.invalid) == ["demos"]


def test_strict_refuses_and_leaves_the_program(tmp_path):
    file = tmp_path / "program.json"
    file.write_text(json.dumps({"one": predictor("New."), "gone": predictor()}))
    model = program(one=nn.Predict("a -> b"))
    before = model.state_dict()
    with pytest.raises(pg.errors.StateDictError, match=r"unexpected  gone"):
        pg.load_dspy(file, model, strict=True)
    assert model.state_dict() == before
    with pytest.warns(UserWarning, match=r"(?s)in all; left out: gone.*unexpected  gone.*strict=True") as caught:
        assert pg.load_dspy(file, model).unexpected == ("gone",)
    assert caught[0].filename == __file__
    assert model.one.instruction.data == "New."


def test_fields_by_place_and_found_prefixes():
    model = nn.Predict("question -> answer")
    fields = [{"prefix": "Frage:", "description": "the question"}, {"prefix": "In short:", "description": "one word"}]
    report = from_dspy({"self": predictor() | {"signature": {"instructions": "x", "fields": fields}}}, model)
    assert report.fits
    assert report.descriptions == {"": {"question": "the question", "answer": "one word"}}
    assert "'In short:'" in report.remarks["answer"]


def test_a_state_that_holds_itself_is_refused():
    demos = [{"question": "q", "answer": "a"}]
    demos.append({"question": demos})
    with pytest.raises(pg.errors.StateDictError, match="not a state of DSPy: it is nested too deeply"):
        from_dspy({"self": predictor(demos=demos)}, nn.Predict("question -> answer"))


def test_a_pickle_is_never_opened(tmp_path):
    folder = tmp_path / "saved"
    folder.mkdir()
    (folder / "metadata.json").write_text('{"dependency_versions": {"dspy": "2.6.1"}}')
    (folder / "program.pkl").write_bytes(b"cos\nsystem\n(S'exit 1'\ntR.")
    model = nn.Predict("a -> b")
    with pytest.raises(pg.errors.StateDictError, match=r"written by DSPy 2.6.1.* never opened here"):
        pg.load_dspy(folder, model)
    with pytest.raises(pg.errors.StateDictError, match="never opened here"):
        pg.load_dspy(folder / "program.pkl", model)
    with pytest.raises(pg.errors.StateDictError, match=r"DSPy pickled, which is never opened.*load_dspy"):
        pg.load(folder, model)
    (folder / "program.json").write_text(json.dumps({"self": predictor()}))
    assert pg.load_dspy(folder, model).loaded == {"self": ""}


@pytest.mark.parametrize(
    "text",
    [
        *("", "[" * 100_000, "[]", "{}", '{"a": {"demos": []}}', '{"a": {"demos": 3, "lm": 1}}'),
        '{"a": {"demos": [{"a": NaN, "b": "x"}], "lm": null}}',
        '{"a": {"demos": [], "lm": null}, "a": {"demos": [{"a": "x"}], "lm": null}}',
    ],
)
def test_other_files_are_refused(tmp_path, text):
    file = tmp_path / "x.json"
    file.write_text(text)
    with pytest.raises(pg.errors.StateDictError, match="not a state of DSPy"):
        pg.load_dspy(file, nn.Predict("a -> b"))


def test_load_says_who_reads_it():
    with pytest.raises(pg.errors.StateDictError, match=r"promptgrad.load_dspy\(path, program\) reads it"):
        pg.load(FILES / "dspy_react.json")
    with pytest.raises(pg.errors.StateDictError, match=r"DSPy writes such states.*load_dspy\(path, program\)"):
        of_react().load_state_dict(saved("dspy_react.json"))
    with pytest.raises(TypeError, match="from_dspy"):
        pg.load_dspy(saved("dspy_react.json"), of_react())


def test_a_predictor_that_was_saved_alone_says_who_wrote_it():
    state = predictor(metadata={"dependency_versions": {"dspy": "3.4.1"}}, other=1)
    report = from_dspy(state, nn.Predict("a -> b"))
    assert report.remarks == {"metadata": "written by DSPy 3.4.1", "other": "has no place here"}
