import copy
import dataclasses
import datetime
import decimal
import enum
import json
import pickle
import warnings

import pydantic
import pytest

from promptgrad import Example, Parameter, lm, nn
from promptgrad.errors import ConstraintError, StateDictError
from promptgrad.testing import Fields


class Pair(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Predict("question -> query")
        self.second = nn.Predict("query -> answer")
        self.tone = Parameter("formal", kind="choice", options=["formal", "casual"])

    def forward(self, question):
        return self.second(query=self.first(question=question).query)


def test_attributes_register_modules_and_parameters_in_order():
    model = Pair()
    assert [name for name, _ in model.named_parameters()] == [
        "tone",
        "first.instruction",
        "first.demos",
        "second.instruction",
        "second.demos",
    ]
    assert [name for name, _ in model.named_modules()] == ["", "first", "second"]
    assert dict(model.named_children()) == {"first": model.first, "second": model.second}
    assert list(model.children()) == [model.first, model.second]


def test_what_asks_for_paths_leaves_nothing_behind_on_the_parameters():
    model = Pair().to(lm.FunctionLM(Fields(query="1", answer="2")))
    held = [model.tone, *(part for each in (model.first, model.second) for part in (each.instruction, each.demos))]
    before = [dict(vars(parameter)) for parameter in held]
    list(model.parameters())
    list(model.named_parameters(prefix="x"))
    list(model.first.named_parameters())
    model.state_dict()
    model(question="1")
    assert [vars(parameter) for parameter in held] == before
    assert [parameter.name for parameter in held] == [""] * 5


def test_the_iterator_over_parameters_knows_their_paths_in_the_module_that_was_asked():
    model = Pair()
    outer, inner = model.parameters(), model.first.parameters()
    assert list(inner) == [model.first.instruction, model.first.demos]
    assert outer.paths == {}
    assert next(outer) is model.tone
    assert outer.paths == {model.tone: "tone"}
    assert [outer.paths[parameter] for parameter in outer] == [
        "first.instruction",
        "first.demos",
        "second.instruction",
        "second.demos",
    ]
    assert list(inner.paths.values()) == ["instruction", "demos"]


def test_a_loop_after_the_last_parameter_begins_again():
    parameters = Pair().parameters()
    first, rest = next(parameters), list(parameters)
    assert list(parameters) == [first, *rest]
    assert next(iter(parameters.paths.values())) == "tone"
    assert len(list(parameters)) == len(rest) + 1
    with pytest.raises(StopIteration):
        next(parameters)


def test_a_loop_over_a_state_meets_parameters_alone_and_what_describes_them_is_beside_them():
    state = nn.Predict("question -> answer").state_dict()
    assert [*state] == ["instruction", "demos"]
    assert "_meta" not in dict(state.items())
    assert state["_meta"]["program"] == "Predict"
    for other in (state.copy(), copy.deepcopy(state), pickle.loads(pickle.dumps(state))):
        assert other == state
        assert other["_meta"] == state["_meta"]
    with pytest.raises(KeyError):
        state["instructions"]
    model = nn.Predict("question -> answer")
    prefixed = {f"x.{path}": value for path, value in state.items()}
    model.load_state_dict({path.removeprefix("x."): value for path, value in prefixed.items()})
    assert nn.state_of_whole(nn.whole_state({"model": state, "epoch": 3}))["model"]["_meta"] == state["_meta"]


def test_a_shared_module_is_given_once_under_its_first_path():
    model = nn.Module()
    model.a = nn.Predict("x -> y")
    model.b = model.a
    assert [name for name, _ in model.named_parameters()] == ["a.instruction", "a.demos"]
    assert [name for name, _ in model.named_parameters(remove_duplicate=False)][2:] == ["b.instruction", "b.demos"]
    assert [name for name, _ in model.named_modules()] == ["", "a"]
    assert [*model.state_dict()] == ["a.instruction", "a.demos", "b.instruction", "b.demos"]


def test_forgetting_the_super_call_does_no_harm():
    class Careless(nn.Module):
        def __init__(self):
            self.step = nn.Predict("x -> y")

    assert [name for name, _ in Careless().named_parameters()] == ["step.instruction", "step.demos"]


def test_a_parameter_is_not_overwritten_by_a_value():
    model = Pair()
    with pytest.raises(TypeError, match=r"write `.instruction.data = \.\.\.`"):
        model.first.instruction = "Do it."
    with pytest.raises(TypeError, match="is a module"):
        model.first = "x"
    model.first = None
    assert [name for name, _ in model.named_modules()] == ["", "second"]
    del model.second
    assert not hasattr(model, "second")
    assert [name for name, _ in model.named_parameters()] == ["tone"]


def test_replacing_a_module_registers_the_new_one():
    model = Pair()
    model.first = nn.Predict("question -> query", instruction="New.")
    assert dict(model.named_parameters())["first.instruction"].data == "New."


@pytest.mark.parametrize("held", [lambda m: [m], lambda m: (m,), lambda m: {"a": m}])
def test_a_plain_container_of_modules_warns(held):
    model = nn.Module()
    with pytest.warns(UserWarning, match=r"steps is a plain \w+ that holds modules.*nn\.Module(List|Dict)"):
        model.steps = held(nn.Predict("x -> y"))
    assert list(model.parameters()) == []


def test_plain_values_do_not_warn():
    model = nn.Module()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.names = ["a", "b"]
        model.empty = []


@pytest.mark.parametrize("name", ["forward", "map", "to", "training"])
def test_a_child_may_not_hide_a_method(name):
    model = nn.Module()
    with pytest.raises(KeyError, match="choose another"):
        setattr(model, name, nn.Predict("x -> y"))


def test_dotted_names_are_refused():
    with pytest.raises(KeyError, match="without dots"):
        nn.Module().add_module("a.b", nn.Predict("x -> y"))


def test_get_submodule_and_get_parameter_name_the_nearest():
    model = Pair()
    assert model.get_submodule("first") is model.first
    assert model.get_submodule("") is model
    assert model.get_parameter("second.demos") is model.second.demos
    with pytest.raises(AttributeError, match="did you mean 'first'"):
        model.get_submodule("frist")
    with pytest.raises(AttributeError, match=r"did you mean 'first\.instruction'"):
        model.get_parameter("first.instructions")


def test_apply_visits_children_first_and_returns_the_module():
    model, seen = Pair(), []
    assert model.apply(lambda module: seen.append(type(module).__name__)) is model
    assert seen == ["Predict", "Predict", "Pair"]


def test_train_and_eval_set_a_flag():
    model = Pair()
    assert model.training
    assert model.eval() is model
    assert not model.first.training
    assert model.train().second.training


def test_requires_grad_and_zero_grad():
    model = Pair()
    assert [p.requires_grad for p in model.parameters()] == [False, True, True, True, True]
    model.first.requires_grad_(False)
    assert not model.first.instruction.requires_grad
    assert model.second.instruction.requires_grad
    model.second.instruction.grad = "something"
    model.zero_grad()
    assert model.second.instruction.grad is None


def test_print_shows_a_tree():
    model = Pair()
    model.first.instruction.data = "Write a search query. " * 10
    shown = repr(model)
    assert shown.splitlines()[0] == "Pair("
    assert "  (first): Predict(question -> query, instruction='Write a search query." in shown
    assert "..." in shown
    assert "(tone): Parameter(" in shown
    assert shown.endswith("\n)")
    assert repr(nn.Module()) == "Module()"


def test_deepcopy_copies_parameters_and_shares_language_models():
    model = Pair().to(lm.FunctionLM(lambda messages: "x", name="echo"))
    twin = copy.deepcopy(model)
    twin.first.instruction.data = "Changed."
    assert model.first.instruction.data != "Changed."
    assert twin.first.lm is model.first.lm
    assert twin.get_submodule("first") is twin.first
    assert [name for name, _ in twin.named_parameters()] == [name for name, _ in model.named_parameters()]
    assert list(twin.parameters())[1] is twin.first.instruction


def test_a_module_cannot_hold_itself():
    inner = nn.Predict("question -> answer")
    outer = nn.Sequential({"inner": inner, "list": nn.ModuleList([])})
    for holds in (
        lambda: setattr(outer, "me", outer),
        lambda: setattr(inner, "parent", outer),
        lambda: inner.add_module("parent", outer),
        lambda: outer.get_submodule("list").append(outer),
    ):
        with pytest.raises(ValueError, match="cannot be a module that holds this one"):
            holds()
    assert list(outer.state_dict()) == ["inner.instruction", "inner.demos"]


def test_a_deepcopy_keeps_what_is_shared_shared():
    model = nn.Module()
    model.a = nn.Predict("x -> y")
    model.b = model.a
    twin = copy.deepcopy(model)
    assert twin.a is twin.b
    assert twin.a is not model.a


def test_pickle_gives_an_equal_program():
    model = Pair()
    model.first.instruction.data = "Hello."
    twin = pickle.loads(pickle.dumps(model))
    assert twin.state_dict() == model.state_dict()


def test_buffers_belong_to_the_state_unless_transient():
    model = nn.Module()
    model.register_buffer("seen", 3)
    model.register_buffer("scratch", object(), persistent=False)
    assert model.seen == 3
    model.seen = 4
    assert dict(model.named_buffers())["seen"] == 4
    state = model.state_dict()
    assert state["seen"] == 4
    assert "scratch" not in state
    other = nn.Module()
    other.register_buffer("seen", 0)
    other.load_state_dict(state)
    assert other.seen == 4
    state = {**state, "seen": [1]}
    other.load_state_dict(state)
    kept = other.state_dict()
    other.seen.append(2)
    assert (state["seen"], kept["seen"]) == ([1], [1])
    model.names = 1
    with pytest.raises(KeyError, match="already has"):
        model.register_buffer("names", 2)


def test_a_parameter_of_a_module_has_shape_and_can_be_assigned():
    model = Pair()
    model.first.instruction.data = "Answer in one word."
    assert model.first.instruction.shape == ()
    assert model.first.demos.shape == (0,)
    model.first.demos.data = [{"question": "a", "query": "b"}]
    assert model.first.demos.shape == (1,)
    with pytest.raises(ConstraintError, match="no output field of the signature"):
        model.first.demos.data = [{"question": "a"}]
    assert model.first.demos.shape == (1,)


# --------------------------------------------------------------------- .to


def test_to_reaches_all_modules_but_the_pinned():
    one, two = lm.FunctionLM(lambda m: "1", name="one"), lm.FunctionLM(lambda m: "2", name="two")
    model = Pair()
    model.second.to(two, pin=True)
    assert model.to(one) is model
    assert (model.lm, model.first.lm, model.second.lm) == (one, one, two)
    model.second.to(one)
    model.to(two)
    assert model.second.lm is two
    model.to(None)
    assert model.first.lm is None


def test_to_takes_names_and_refuses_devices():
    model = Pair().to("openai/gpt-4o-mini")
    assert model.first.lm.name == "openai/gpt-4o-mini"
    with pytest.raises(TypeError, match="device of a program is its language model"):
        model.to("cuda")


def test_weights_are_empty_without_local_models():
    assert Pair().to("openai/gpt-4o-mini").weights() == []


# --------------------------------------------------------------------- candidates


def test_a_candidate_is_laid_over_the_parameters():
    model = Pair()
    before = model.first.instruction.data
    with model.candidate({"first.instruction": "Try this."}):
        assert model.first.instruction.data == "Try this."
        assert model.state_dict()["first.instruction"] == "Try this."
    assert model.first.instruction.data == before
    with pytest.raises(StateDictError, match=r"is it 'first\.instruction'"):
        model.candidate({"frist.instruction": "x"})


# --------------------------------------------------------------------- state


def test_the_state_round_trips_through_json():

    model = Pair()
    model.first.instruction.data = "Search."
    model.first.demos.data = [Example(question="q", query="a").with_inputs("question"), {"question": "r", "query": "b"}]
    model.tone.data = "casual"
    state = json.loads(json.dumps(model.state_dict()))
    other = Pair()
    assert other.load_state_dict(state) == ((), (), {})
    assert other.state_dict() == model.state_dict()
    assert other.first.demos.data == (Example(question="q", query="a"), Example(question="r", query="b"))
    assert other.first.demos.data[0].input_keys == ("question",)


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


@dataclasses.dataclass
class Place:
    name: str
    since: datetime.date


class Bag(pydantic.BaseModel):
    items: set[int]


DAY = datetime.date(2020, 1, 1)


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (datetime.date, DAY),
        (datetime.timedelta, datetime.timedelta(hours=3)),
        (decimal.Decimal, decimal.Decimal("1.50")),
        (Color, Color.RED),
        (bytes, b"\xff\x00"),
        (list[datetime.date], [DAY, DAY]),
        (dict[int, Color], {1: Color.BLUE}),
        (set[int], {2, 1}),
        (tuple[int, str], (1, "a")),
        (Place, Place("Rome", DAY)),
        (Bag, Bag(items={8, 0})),  # in this order
        (list[Bag], [Bag(items={8, 0})]),
        (int, "3"),
        (float, 3),
        (datetime.date | None, None),
    ],
)
def test_demos_of_any_type_round_trip_through_json(annotation, value):
    types = {"t": annotation}
    model = nn.Predict("question -> out: t", types=types)
    model.demos.data = [Example(question="q", out=value).with_inputs("question"), {"question": "r", "out": value}]
    other = nn.Predict("question -> out: t", types=types)
    other.load_state_dict(json.loads(json.dumps(model.state_dict())))
    assert other.demos.data == tuple(map(Example, model.demos.data))
    assert type(other.demos.data[0].out) is type(value)
    assert other.demos.data[0].input_keys == ("question",)
    assert other.render("q") == model.render("q")
    assert other.state_dict() == model.state_dict()


def test_a_demo_that_no_type_can_write_is_told():
    model = nn.Predict("question -> out: date", types={"date": datetime.date})
    model.demos.data = [{"question": "q", "out": object()}]
    with pytest.raises(StateDictError, match="demos holds what has no JSON form: field 'out'"):
        model.state_dict()
    model.demos.data = [{"question": "q", "out": DAY, "else": DAY}]
    with pytest.raises(StateDictError, match="demos holds a date, which has no JSON form"):
        model.state_dict()


def test_the_state_says_what_it_is_without_secrets():
    model = Pair().to(lm.HTTP("gpt", "http://127.0.0.1:1/v1", "sk-secret"))
    state = model.state_dict()
    meta = state["_meta"]
    assert meta["schema"] == 1
    assert meta["program"] == "Pair"
    assert meta["kinds"]["first.demos"] == "demos"
    assert meta["fields"]["first"] == {"inputs": {"question": "str"}, "outputs": {"query": "str"}}
    assert meta["lms"]["first"] == "gpt"
    assert "sk-secret" not in repr(state)


def test_loading_reports_all_misfits_at_once_and_changes_nothing():
    model = Pair()
    state = model.state_dict()
    state["frist.instruction"] = state.pop("first.instruction")
    state["second.instruction"] = 3
    state["tone"] = "rude"
    state["first.demos"] = [{"question": "kept out", "query": "x"}]
    with pytest.raises(StateDictError) as caught:
        model.load_state_dict(state)
    assert caught.value.missing == ("first.instruction",)
    assert caught.value.unexpected == ("frist.instruction",)
    assert set(caught.value.invalid) == {"second.instruction", "tone"}
    text = str(caught.value)
    assert "state_dict does not fit Pair:" in text
    assert "(is it 'first.instruction'?)" in text
    assert "must be a str, not int" in text
    assert "strict=False" in text
    assert model.first.demos.data == ()


def test_loading_without_strict_takes_what_fits():
    model = Pair()
    misfits = model.load_state_dict({"first.instruction": "Taken.", "other": "x"}, strict=False)
    assert model.first.instruction.data == "Taken."
    assert misfits.unexpected == ("other",)
    assert "second.demos" in misfits.missing


def test_a_state_of_another_program_is_told_by_its_fields():
    class Other(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Predict("text, hint -> label: int")

    state = Other().state_dict()
    model = Pair()
    with pytest.raises(StateDictError) as caught:
        model.load_state_dict(state)
    assert "'text, hint -> label: int' in the state and 'question -> query' here" in str(caught.value)


def test_a_state_of_a_later_schema_is_refused():
    state = Pair().state_dict()
    state["_meta"]["schema"] = 99
    with pytest.raises(StateDictError, match="schema version 99"):
        Pair().load_state_dict(state)


def test_load_state_dict_wants_a_mapping():
    with pytest.raises(TypeError, match="not list"):
        Pair().load_state_dict([])


def test_what_has_no_json_form_is_named():
    model = nn.Module()
    model.register_buffer("thing", object())
    with pytest.raises(StateDictError, match="thing holds a object"):
        model.state_dict()


# --------------------------------------------------------------------- slips


@pytest.mark.parametrize(
    ("slip", "said"),
    [
        ("set_lm", r"write module\.to\(lm\)"),
        ("batch", r"write module\.map\(batch\)"),
        ("save", r"promptgrad\.save\(module\.state_dict\(\), path\)"),
        ("cuda", "the device of a program is its language model"),
        ("firts", "did you mean 'first'"),
        ("named_paramters", "did you mean 'named_parameters'"),
    ],
)
def test_a_slip_on_a_module_is_pointed_to_the_right_name(slip, said):
    with pytest.raises(AttributeError, match=f"Pair has no attribute '{slip}': .*{said}"):
        getattr(Pair(), slip)


@pytest.mark.parametrize(("name", "said"), [("lm", r"module\.to\(lm\)"), ("signature", r"nn\.Predict\(signature\)")])
def test_what_is_read_and_not_assigned_says_what_to_write(name, said):
    with pytest.raises(AttributeError, match=rf"Predict\.{name} is read, not assigned: write {said}"):
        setattr(nn.Predict("a -> b"), name, None)


def test_a_property_of_a_user_speaks_for_itself():
    class Own(nn.Module):
        @property
        def size(self):
            return 1

    with pytest.raises(AttributeError) as raised:
        Own().size = 2
    assert "read, not assigned" not in str(raised.value)


@pytest.mark.parametrize(
    ("slip", "said"),
    [
        ("Linear", "nn.Predict"),
        ("CrossEntropyLoss", "nn.MetricLoss"),
        ("clip_grad_norm_", "promptgrad.clip_grad_tokens_"),
        ("utils", "promptgrad.clip_grad_tokens_.* for torch.nn.utils.clip_grad_norm_"),
        ("Modul", "did you mean nn.Module"),
    ],
)
def test_a_slip_on_nn_is_pointed_to_the_right_name(slip, said):
    with pytest.raises(AttributeError, match=f"has no attribute '{slip}': .*{said}"):
        getattr(nn, slip)


def test_a_parameter_is_found_where_torch_has_it():
    assert nn.Parameter is Parameter
