import copy
import json
import os
import signal
import stat
import subprocess
import sys
import threading
import warnings

import pytest

import promptgrad as pg
from promptgrad import nn, optim
from promptgrad.errors import StateDictError
from promptgrad.train import load, save


def program():
    model = nn.Sequential(nn.Predict("text -> word"), nn.Predict("word -> answer"))
    return model


def trained():
    model = program()
    model[0].instruction.data = "Take the last word. Ünïcode 😀 \n[[ ## x ## ]]"
    model[1].demos.data = [pg.Example(word="ab", answer="ba").with_inputs("word")]
    return model


def plain(model):
    return {path: value for path, value in model.state_dict().items() if path != "_meta"}


def test_a_state_comes_back(tmp_path):
    model, other = trained(), program()
    save(model.state_dict(), tmp_path / "deep" / "state.json")
    state = load(tmp_path / "deep" / "state.json")
    assert state == json.loads(json.dumps(model.state_dict()))
    other.load_state_dict(state)
    assert plain(other) == plain(model)
    assert other[1].demos.data == model[1].demos.data


def test_a_program_comes_back_from_a_folder(tmp_path):
    model = trained()
    save(model, tmp_path / "program")
    save(model, tmp_path / "program")  # once more, over the old one
    other = load(tmp_path / "program", program())
    assert plain(other) == plain(model)
    assert [path.name for path in tmp_path.iterdir()] == ["program"]  # nothing is left beside it
    assert load(tmp_path / "program") == json.loads(json.dumps(model.state_dict()))


def test_an_optimizer_comes_back(tmp_path):
    model = trained()
    opt = optim.TGD(model.parameters(), max_edit=0.5)
    rejected = [{"text": "Take any word.", "effect": "taken back", "measured": True}]
    opt.state[model[0].instruction]["rejected"] = rejected
    save(opt, tmp_path / "opt.json")
    other_model = program()
    other = optim.TGD(other_model.parameters())
    other.load_state_dict(load(tmp_path / "opt.json"))
    assert other.state[other_model[0].instruction] == {"rejected": rejected}
    assert other.param_groups[0]["max_edit"] == 0.5


def test_all_misfits_are_told_at_once_and_nothing_changes(tmp_path):
    save({"0.instruction": "x", "1.instruction": 3, "2.demos": []}, tmp_path / "s.json")
    model = trained()
    before = plain(model)
    with pytest.raises(StateDictError) as caught:
        load(tmp_path / "s.json", model)
    assert set(caught.value.missing) == {"0.demos", "1.demos"}
    assert caught.value.unexpected == ("2.demos",)
    assert "1.instruction" in str(caught.value)
    assert plain(model) == before


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("not json", "not JSON"),
        ("[1, 2]", "not a state that promptgrad.save wrote"),
        ('{"format": "promptgrad.state", "version": 99, "state": {}}', "upgrade promptgrad"),
        ('{"format": "other", "version": 1, "state": {}}', "not a state that promptgrad.save wrote"),
    ],
)
def test_other_files_are_refused(tmp_path, text, message):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(StateDictError, match=message):
        load(tmp_path / "x.json")


def test_nothing_there(tmp_path):
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "absent.json")


def test_what_has_no_state_or_no_json_form(tmp_path):
    with pytest.raises(TypeError, match="not int"):
        save(3, tmp_path / "x.json")
    with pytest.raises(TypeError, match="no form for"):
        save({"a": object()}, tmp_path / "x.json")
    with pytest.raises(TypeError, match="cannot be written"):
        save({"a": float("nan")}, tmp_path / "x.json")
    assert list(tmp_path.iterdir()) == []


def test_a_failed_save_leaves_the_old_file(tmp_path):
    save({"a": 1}, tmp_path / "x.json")
    with pytest.raises(TypeError):
        save({"a": object()}, tmp_path / "x.json")
    assert load(tmp_path / "x.json") == {"a": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"]


KILLED = """
import os, signal, sys
import promptgrad as pg
from promptgrad import nn

calls = 0

def counted(real):
    def call(*args, **kwargs):
        global calls
        calls += 1
        if calls == int(sys.argv[2]):
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **kwargs)
    return call

for name in ("open", "replace", "rename", "fsync", "mkdir", "rmdir", "unlink", "write", "chmod", "close", "listdir"):
    setattr(os, name, counted(getattr(os, name)))
model = nn.Sequential(nn.Predict("text -> word"), nn.Predict("word -> answer"))
model[0].instruction.data = "new"
pg.save(model, sys.argv[1])
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
@pytest.mark.parametrize("name", ["program", "state.json"])
def test_a_save_that_is_killed_anywhere_leaves_the_old_or_the_new(tmp_path, name):
    script = tmp_path / "killed.py"
    script.write_text(KILLED)
    model = program()
    model[0].instruction.data = "old"
    folder = tmp_path / "saved"
    seen, step, code = set(), 0, -signal.SIGKILL
    while code:
        step += 1
        save(model, folder / name)
        assert [path.name for path in folder.rglob("*") if path.name.endswith(".tmp")] == []  # the next save cleans up
        code = subprocess.run([sys.executable, str(script), str(folder / name), str(step)], check=False).returncode
        assert code in (0, -signal.SIGKILL)
        seen.add(load(folder / name, program())[0].instruction.data)
    assert step > 3
    assert seen == {"old", "new"}
    save(model, folder / name)
    assert {path.name for path in folder.rglob("*")} <= {name, "state.json"}


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no modes")
def test_what_is_saved_is_for_its_owner_alone(tmp_path):
    before = os.umask(0)
    try:
        save(trained(), tmp_path / "program")
        save(trained(), tmp_path / "state.json")
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "program", *tmp_path.rglob("*.json"))}
    assert modes == {"program": 0o700, "state.json": 0o600}


def test_files_of_others_in_the_folder_are_left_alone(tmp_path):
    save(trained(), tmp_path / "program")
    (tmp_path / "program" / "README.md").write_text("mine")
    save(program(), tmp_path / "program")
    assert (tmp_path / "program" / "README.md").read_text() == "mine"


DEEP = "[" * 100_000 + "]" * 100_000


def written(state, **more):
    return json.dumps({"format": "promptgrad.state", "version": 1, "state": state, **more})


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (DEEP, "nested too deeply"),
        ('{"format": "promptgrad.state", "version": 1, "state": ' + '{"a":' * 100_000 + "1" + "}" * 100_001, "deeply"),
        (written({"x": 1}).replace("1}", "[" * 500 + "]" * 500 + "}"), "nested too deeply"),
        (written({"x": float("nan")}), "NaN is no number"),
        (written({"x": float("-inf")}), "-Infinity is no number"),
        (written({"x": 1}).replace("1}", "1e999}"), "1e999 is no number"),
        (written({"x": 1}).replace("1}", "1" * 10_000 + "}"), "digits"),
        (written({"x": 1}).replace("1}", '1, "x": 2}'), "the key 'x' comes twice"),
        (written({}, weights=7), "weights is a list, not 7"),
        (written({}, weights=[7]), "weights have a name, a folder, a kind and modules, not 7"),
        (written({}, weights=[{"name": "x"}]), "weights have a name"),
        (written({}, weights=[{"name": "x", "folder": 3, "kind": "full", "modules": []}]), "weights have"),
        (written({}, weights=[{"name": "x", "folder": "w", "kind": "pickle", "modules": []}]), "weights have"),
        (written({}, weights=[{"name": "x", "folder": "w", "kind": "full", "modules": [[]]}]), "weights have"),
    ],
)
def test_a_damaged_file_is_refused_with_its_path_and_reason(tmp_path, text, reason):
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "state.json").write_text(text)
    for given in ((folder,), (folder, program()), (folder / "state.json", program())):
        with pytest.raises(StateDictError, match=reason) as caught:
            load(*given)
        assert str(folder / "state.json") in str(caught.value)


DEMO = {"word": "w", "count": 1, "tags": ["a"], "answer": 0.5, "__inputs__": ["word", "count"]}


def nested(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("demos", "reason"),
    [
        ([DEMO, {**DEMO, "count": "many"}], "demo 2 does not fit the signature: .*'count'"),
        ([{**DEMO, "count": [1]}], "demo 1 does not fit the signature"),
        ([{**DEMO, "tags": 5}], "demo 1 does not fit the signature: .*'tags'"),
        ([{**DEMO, "answer": {"a": 1}}], "demo 1 does not fit the signature: .*'answer'"),
        ([{**DEMO, "__inputs__": 5}], "iterable"),
        ([{**DEMO, "__inputs__": ["other"]}], "no field 'other'"),
        ([{**DEMO, "word": {"__part__": {"type": "image", "data": 7}}}], ""),
        ([{"other": 1}], "has no input field"),
        ([7], "a demo is an object of fields"),
        ({"selector": ["neighbours"]}, "unhashable"),
        ({"selector": "neighbours"}, "vectorizer"),
        ([{**DEMO, "word": nested(5000)}], "nested too deeply"),
        ([{**DEMO, "answer": float("nan")}], "nan, which is no number that JSON can hold"),
        ([{**DEMO, "tags": [float("-inf")]}], "-inf, which is no number"),
        (7, "must be a list of examples"),
    ],
)
def test_demos_that_no_call_could_show_are_refused_with_their_path(demos, reason):
    model = nn.Sequential(nn.Predict("word, count: int -> tags: list[str], answer: float"))
    model[0].demos.data = [DEMO]
    before = plain(model)
    with pytest.raises(StateDictError, match=rf"invalid     0\.demos: .*{reason}"):
        model.load_state_dict({**before, "0.instruction": "changed", "0.demos": demos})
    assert plain(model) == before


def test_states_in_memory_are_as_sound_as_those_of_files(tmp_path):
    model = nn.Predict("a -> b")
    model.register_buffer("seen", [1])
    itself = []
    itself += [itself, itself]
    for value, reason in ((float("inf"), "inf, which is no"), (nested(100_000), "too deeply"), (itself, "too deeply")):
        with pytest.raises(StateDictError, match=f"invalid     seen: .*{reason}"):
            model.load_state_dict({**model.state_dict(), "seen": [value]})
        with pytest.raises(TypeError, match="cannot be written as JSON"):
            save({"seen": value}, tmp_path / "x.json")
    with pytest.raises(StateDictError, match="the keys of a state are paths, not 7"):
        model.load_state_dict({**model.state_dict(), 7: 8})
    assert model.seen == [1]
    assert not (tmp_path / "x.json").exists()


@pytest.mark.parametrize("place", ["state", "steps", "param_groups", "whole"])
def test_a_deep_state_of_an_optimizer_is_refused(place):
    opt = optim.TGD(program().parameters())
    deep = nested(100_000)
    with pytest.raises(StateDictError):
        opt.load_state_dict(deep if place == "whole" else {**opt.state_dict(), place: deep})


def test_a_state_of_an_optimizer_with_strange_names_is_refused():
    opt = optim.TGD(program().parameters())
    for params in ([["x"]], [{}], [None]):
        with pytest.raises(StateDictError, match="what state_dict"):
            opt.load_state_dict({"param_groups": [{"params": params}]})


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_save_that_the_disk_refuses_leaves_nothing_beside_the_old_file(tmp_path, monkeypatch, step):
    def full(*arguments):
        raise OSError("no space left on device")

    save({"a": 1}, tmp_path / "x.json")
    with monkeypatch.context() as patch:
        patch.setattr(os, step, full)
        with pytest.raises(OSError, match="no space left"):
            save({"a": 2}, tmp_path / "x.json")
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"]
    assert load(tmp_path / "x.json") == {"a": 1}


class TestWeights:
    """Folders with the weights of a local model."""

    @pytest.fixture
    def trained_lm(self):
        torch = pytest.importorskip("torch")
        lm = pg.lm.pocket()
        model = copy.deepcopy(lm.model)
        with torch.no_grad():
            for weight in model.parameters():
                weight.add_(0.01)
        return lm.with_model(model, "mine")

    def test_trained_weights_come_back(self, tmp_path, trained_lm):
        torch = pytest.importorskip("torch")
        model = program().to(trained_lm)
        save(model, tmp_path / "mine")
        assert (tmp_path / "mine" / "weights" / "0" / "model.safetensors").is_file()
        other = load(tmp_path / "mine", program().to("pocket"))
        made = other[0]._lm.transport
        assert made is other[1]._lm.transport
        assert made is not pg.lm.pocket()
        assert made.name == "mine"
        assert all(
            torch.equal(one, two)
            for one, two in zip(made.model.parameters(), trained_lm.model.parameters(), strict=True)
        )
        assert made.identity() == trained_lm.identity()

    def test_a_second_save_takes_the_place_of_the_first(self, tmp_path, trained_lm):
        torch = pytest.importorskip("torch")
        save(program().to(trained_lm), tmp_path / "mine")
        with torch.no_grad():
            other = copy.deepcopy(trained_lm.model)
            next(other.parameters()).add_(0.5)
        again = trained_lm.with_model(other, "other")
        save(program().to(again), tmp_path / "mine")
        assert load(tmp_path / "mine", program().to("pocket"))[0].lm.identity() == again.identity()
        assert len(list((tmp_path / "mine" / "weights").iterdir())) == 1
        save(program(), tmp_path / "mine")
        assert [path.name for path in (tmp_path / "mine").iterdir()] == ["state.json"]

    def test_who_loads_while_another_saves_gets_the_old_or_the_new(self, tmp_path, trained_lm):
        model = program().to(trained_lm)
        save(model, tmp_path / "mine")
        ends = []

        def saving():
            for number in range(15):
                model[0].instruction.data = f"version {number}"
                save(model, tmp_path / "mine")
            ends.append("saved")

        thread = threading.Thread(target=saving)
        thread.start()
        while thread.is_alive():
            assert load(tmp_path / "mine", program().to("pocket"))[0].lm.transport.name == "mine"
        thread.join()
        assert ends == ["saved"]

    @pytest.mark.parametrize("data", [b"", b"x" * 100, b"\xff" * 8 + b"{}", None])
    def test_damaged_weights_are_refused_and_nothing_is_installed(self, tmp_path, trained_lm, data):
        model = program().to(trained_lm)
        model[0].instruction.data = "saved"
        save(model, tmp_path / "mine")
        file = tmp_path / "mine" / "weights" / "0" / "model.safetensors"
        file.write_bytes(file.read_bytes()[:-1000] if data is None else data)
        other = program().to("pocket")
        before = plain(other)
        with pytest.raises(StateDictError, match="the weights of 'mine' do not fit"):
            load(tmp_path / "mine", other)
        assert plain(other) == before
        assert other[0].lm.transport is pg.lm.pocket()

    def test_two_trained_models_of_one_name_come_back_as_two(self, tmp_path, trained_lm):
        torch = pytest.importorskip("torch")
        other = copy.deepcopy(trained_lm.model)
        with torch.no_grad():
            for weight in other.parameters():
                weight.add_(0.01)
        model = program()
        model[0].to(trained_lm)
        model[1].to(trained_lm.with_model(other, trained_lm.name))
        save(model, tmp_path / "two")
        base = program()
        base[0].to("pocket")
        base[1].to(pg.lm.Local(pg.lm.pocket()._source))
        again = load(tmp_path / "two", base)
        first = [next(part.lm.transport.model.parameters()) for part in (*model, *again)]
        assert torch.equal(first[0], first[2])
        assert torch.equal(first[1], first[3])
        assert not torch.equal(first[0], first[1])

    def test_a_folder_that_cannot_be_written_is_not_left_behind(self, tmp_path, trained_lm, monkeypatch):
        def full(*arguments, **options):
            raise OSError("no space left on device")

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="no space left"):
            save(program().to(trained_lm), tmp_path / "mine")
        assert list(tmp_path.iterdir()) == []

    def test_a_lora_comes_back(self, tmp_path):
        torch = pytest.importorskip("torch")
        peft = pytest.importorskip("peft")
        lm = pg.lm.pocket()
        config = peft.LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # peft reads a name that transformers deprecates
            model = peft.get_peft_model(copy.deepcopy(lm.model), config)
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if "lora_B" in name:
                    weight.add_(0.3)
        mine = lm.with_model(model, "mine")
        save(program().to(mine), tmp_path / "mine")
        files = {path.name for path in (tmp_path / "mine" / "weights" / "0").iterdir()}
        assert files == {"adapter_config.json", "adapter_model.safetensors"}
        other = load(tmp_path / "mine", program().to("pocket"))
        ids = torch.tensor([[5, 6, 7, 8]])
        with torch.no_grad():
            ours, theirs = other[0]._lm.transport.model(ids).logits, model(ids).logits
        assert torch.equal(ours, theirs)

    def test_untrained_weights_are_not_written(self, tmp_path):
        save(program().to("pocket"), tmp_path / "plain")
        assert [path.name for path in (tmp_path / "plain").iterdir()] == ["state.json"]

    def test_a_file_cannot_hold_weights(self, tmp_path, trained_lm):
        with pytest.raises(ValueError, match="into a folder"):
            save(program().to(trained_lm), tmp_path / "mine.json")

    def test_nor_can_the_file_of_a_state(self, tmp_path, trained_lm):
        model = program().to(trained_lm)
        for state in (model.state_dict(), {"model": model.state_dict(), "epoch": 3}):
            for name in ("mine.json", "mine"):
                with pytest.raises(ValueError, match="the trained weights of 'mine': save the program into a folder"):
                    save(state, tmp_path / name)
        assert list(tmp_path.iterdir()) == []
        save(program().to("pocket").state_dict(), tmp_path / "pocket.json")

    def test_a_state_without_its_weights_is_told(self, tmp_path, trained_lm):
        model = program().to(trained_lm)
        state = json.loads(json.dumps(nn.whole_state(model.state_dict())))
        assert state["_meta"]["trained"] == {"": "mine", "0": "mine", "1": "mine"}
        for other in (program(), program().to("pocket")):
            with pytest.warns(UserWarning, match="trained weights of 'mine', which it does not hold"):
                other.load_state_dict(state)
        save(model, tmp_path / "mine")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            model.load_state_dict(state)
            load(tmp_path / "mine", program().to("pocket")).load_state_dict(state)

    def test_weights_trained_in_place_are_told(self, tmp_path):
        torch = pytest.importorskip("torch")
        lm = pg.lm.Local(pg.lm.pocket()._source)
        model = program().to(lm)
        lm.model  # noqa: B018 - loads it
        assert "trained" not in model.state_dict()["_meta"]
        with torch.no_grad():
            next(lm.model.parameters()).add_(0.01)
        with pytest.raises(ValueError, match="into a folder"):
            save(model.state_dict(), tmp_path / "x.json")

    def test_layers_stay_around_loaded_weights(self, tmp_path, trained_lm):
        save(program().to(pg.lm.Cache(trained_lm)), tmp_path / "mine")
        cache = pg.lm.Cache(pg.lm.pocket())
        other = load(tmp_path / "mine", program().to(cache))
        made = other[0].lm
        assert isinstance(made, pg.lm.Cache)
        assert made is other[1].lm
        assert made is not cache
        assert cache.lm is pg.lm.pocket()
        assert made.identity() == trained_lm.identity()

    def test_the_root_has_a_name(self, tmp_path, trained_lm):
        save(program().to(trained_lm), tmp_path / "mine")
        with pytest.raises(StateDictError, match="  the program, 0, 1: trained weights were saved"):
            load(tmp_path / "mine", program())

    def test_misfits_of_weights_and_state_are_told_together(self, tmp_path, trained_lm):
        save(program().to(trained_lm), tmp_path / "mine")
        other = nn.Sequential(nn.Predict("text -> word"))
        with pytest.raises(StateDictError) as caught:
            load(tmp_path / "mine", other)
        assert "1.instruction" in str(caught.value)
        assert "not on a local model" in str(caught.value)

    def test_weights_that_fit_are_not_installed_beside_a_state_that_does_not(self, tmp_path, trained_lm):
        save(program().to(trained_lm), tmp_path / "mine")
        other = nn.Sequential(nn.Predict("text -> word"), nn.Predict("word -> answer"), nn.Predict("answer -> x"))
        other.to("pocket")
        with pytest.raises(StateDictError, match=r"missing\s+2\.instruction"):
            load(tmp_path / "mine", other)
        assert all(part.lm.transport is pg.lm.pocket() for part in other)

    def test_no_other_format_is_read(self, tmp_path, trained_lm):
        save(program().to(trained_lm), tmp_path / "mine")
        file = tmp_path / "mine" / "weights" / "0" / "model.safetensors"
        file.rename(file.with_suffix(".bin"))
        with pytest.raises(StateDictError, match="there is no"):
            load(tmp_path / "mine", program().to("pocket"))
        state = tmp_path / "mine" / "state.json"
        state.write_text(state.read_text().replace("weights/0", "../elsewhere"))
        with pytest.raises(StateDictError, match="outside"):
            load(tmp_path / "mine", program().to("pocket"))
