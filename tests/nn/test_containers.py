import copy

import pytest

from promptgrad import Parameter, nn


def steps(n=3):
    return [nn.Predict(f"x -> y{i}") for i in range(n)]


def names(module):
    return [name for name, _ in module.named_children()]


def test_module_list_registers_indexes_and_slices():
    a, b, c = steps()
    modules = nn.ModuleList([a, b])
    assert modules.append(c) is modules
    assert (len(modules), modules[0], modules[-1]) == (3, a, c)
    assert list(modules) == [a, b, c]
    assert isinstance(modules[1:], nn.ModuleList)
    assert list(modules[1:]) == [b, c]
    assert b in modules
    assert names(modules) == ["0", "1", "2"]
    with pytest.raises(IndexError, match="out of range for a container of 3"):
        modules[3]


@pytest.mark.parametrize("index", [-4, 3, 4])
def test_an_index_out_of_range_is_told(index):
    modules = nn.ModuleList([nn.Module() for _ in range(3)])
    with pytest.raises(IndexError, match=f"index {index} is out of range for a container of 3"):
        modules[index]
    with pytest.raises(IndexError):
        modules.pop(index)


def test_module_list_changes_keep_the_numbering():
    a, b, c = steps()
    modules = nn.ModuleList([a, c])
    modules.insert(1, b)
    assert list(modules) == [a, b, c]
    assert modules.pop(0) is a
    assert names(modules) == ["0", "1"]
    modules[0] = a
    assert list(modules) == [a, c]
    del modules[-1]
    modules.extend([b, c])
    assert [name for name, _ in modules.named_parameters()][::2] == ["0.instruction", "1.instruction", "2.instruction"]
    with pytest.raises(TypeError, match="holds modules, not str"):
        modules[0] = "x"
    with pytest.raises(TypeError, match="add_module takes a Module"):
        modules.append("x")


def test_module_dict_is_a_dict_of_registered_modules():
    a, b, c = steps()
    modules = nn.ModuleDict({"math": a, "art": b})
    modules["misc"] = c
    assert list(modules) == list(modules.keys()) == ["math", "art", "misc"]
    assert list(modules.values()) == [a, b, c]
    assert dict(modules.items())["art"] is b
    assert "math" in modules
    assert modules.pop("math") is a
    del modules["art"]
    assert (len(modules), modules["misc"]) == (1, c)
    with pytest.raises(KeyError, match="the keys are misc"):
        modules["math"]
    with pytest.raises(KeyError, match="choose another"):
        modules["map"] = a
    modules.clear()
    assert len(modules) == 0


def test_lists_are_joined_as_in_torch():
    first, second, third = nn.Identity(), nn.Identity(), nn.Identity()
    alone, more = nn.ModuleList([first]), [second]
    joined = alone + more
    assert type(joined) is nn.ModuleList
    assert [*joined] == [first, second]
    joined += nn.ModuleList([third])
    assert list(joined._modules) == ["0", "1", "2"]
    both = nn.Sequential(first) + nn.Sequential(second)
    assert type(both) is nn.Sequential
    assert [*both] == [first, second]


def test_parameter_list_registers_its_members():
    model = nn.Module()
    model.tones = nn.ParameterList([Parameter("warm"), Parameter("cold")])
    model.tones.append(Parameter("dry"))
    model.tones[1] = Parameter("cool")
    assert [(name, p.data) for name, p in model.named_parameters()] == [
        ("tones.0", "warm"),
        ("tones.1", "cool"),
        ("tones.2", "dry"),
    ]
    assert len(model.tones) == 3
    assert [p.data for p in model.tones] == ["warm", "cool", "dry"]
    with pytest.raises(TypeError, match="holds parameters"):
        model.tones.append("x")


@pytest.mark.parametrize(
    "container", [nn.ModuleList(), nn.ModuleDict(), nn.ParameterList(), nn.ParameterDict(), nn.Module()]
)
def test_what_has_no_forward_says_so(container):
    with pytest.raises(NotImplementedError):
        container()


def test_containers_survive_a_deepcopy():
    modules = nn.ModuleList(steps(2))
    twin = copy.deepcopy(modules)
    twin[0].instruction.data = "Changed."
    assert modules[0].instruction.data != "Changed."
    assert len(twin) == 2


# --------------------------------------------------------------------- Sequential


class Upper(nn.Module):
    def forward(self, text):
        return text.upper()


def test_sequential_passes_fields_by_name_and_keeps_the_earlier_ones(scripted):
    model = scripted(
        lambda text, summary=None: {"summary": f"sum {text}"} if summary is None else {"title": summary + text}
    )
    chain = nn.Sequential(nn.Predict("text -> summary"), nn.Predict("text, summary -> title")).to(model)
    assert chain(text="t").title == "sum tt"
    assert chain("t").title == "sum tt"
    assert chain.input_names() == ("text",)
    assert names(chain) == ["0", "1"]


def test_sequential_hands_a_sole_field_to_a_sole_input_of_another_name(scripted):
    model = scripted(lambda **fields: {"b": fields["a"] + "1"} if "a" in fields else {"d": fields["c"] + "2"})
    chain = nn.Sequential(nn.Predict("a -> b"), nn.Predict("c -> d")).to(model)
    assert chain(a="x").d == "x12"


def test_sequential_passes_plain_values_on(scripted):
    chain = nn.Sequential({"up": Upper(), "ask": nn.Predict("text -> n: int")}).to(
        scripted(lambda text: {"n": len(text)})
    )
    assert chain("abc").n == 3
    assert names(chain) == ["up", "ask"]
    assert chain.map(["a", "bb"])[1].n == 2


def test_an_empty_sequential_is_an_identity(scripted):
    assert nn.Sequential()("x") == "x"
    assert dict(nn.Sequential()(a="x", b="y")) == {"a": "x", "b": "y"}
    with pytest.raises(TypeError, match="one input"):
        nn.Sequential()()
    model = scripted(lambda **fields: {"b": fields["a"] + "1"} if "a" in fields else {"c": fields["b"] + "2"})
    for empty in (nn.Sequential(), nn.Sequential(nn.Sequential(), nn.Identity())):
        out = nn.Sequential(empty, nn.Predict("a -> b"), empty, nn.Predict("b -> c"), empty).to(model)(a="x")
        assert dict(out) == {"c": "x12"}


def test_the_graph_of_a_sequential_has_an_exact_edge(scripted):
    from promptgrad import autograd

    model = scripted(lambda **fields: {"b": "one two"} if "a" in fields else {"c": "three"})
    chain = nn.Sequential(nn.Predict("a -> b"), nn.Predict("b -> c")).to(model)
    out = chain(a="x")
    edges = [(edge.kind, edge.source.path, edge.field) for edge in autograd.graph(out).edges if edge.field]
    assert edges == [("exact", "0", "b")]
