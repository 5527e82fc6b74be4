"""Where a local model is looked for: a folder, what was downloaded before, the hub."""

import http.server
import json
import os
import shutil
import subprocess
import sys
import threading

import pytest

from promptgrad.errors import LMError
from promptgrad.lm import Local

pytest.importorskip("huggingface_hub")

from promptgrad.lm._local_load import is_here, near_folder


class Hub(http.server.BaseHTTPRequestHandler):
    """It has no models at all."""

    asked = ()

    def do_GET(self):
        Hub.asked = (*Hub.asked, self.path)
        self.send_response(404)
        self.send_header("X-Error-Code", "RepoNotFound")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *arguments):
        pass


@pytest.fixture
def hub():
    Hub.asked = ()
    made = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=made.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{made.server_port}"
    made.shutdown()
    thread.join(60)
    made.server_close()


@pytest.fixture
def here(tmp_path, monkeypatch):
    (tmp_path / "models" / "smol").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)


def test_a_folder_needs_no_hub(here):
    assert is_here("models/smol", endpoint="http://127.0.0.1:1")


def test_a_name_that_nobody_has_takes_one_request(here, hub):
    code = f"from promptgrad.lm._local_load import is_here; is_here('models/smoll', endpoint={hub!r})"
    online = {**os.environ, "HF_HUB_OFFLINE": "0"}
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=online, check=False).stderr
    assert "no folder 'models/smoll' (did you mean 'models/smol'?), and the hub has no such model" in said
    assert Hub.asked == ("/api/models/models/smoll",)


def test_a_hub_that_is_not_reached_is_not_asked_again_and_again(here):
    with pytest.raises(
        LMError, match=r"no folder 'a/b', nothing of such a model was downloaded before, and the hub canno"
    ):
        is_here("a/b", endpoint="http://127.0.0.1:1")


def test_what_is_no_name_of_a_model_is_told(here, hub):
    with pytest.raises(LMError, match=r"no folder 'my model!'"):
        is_here("my model!", endpoint=hub)
    assert Hub.asked == ()


def test_a_folder_that_is_not_there_is_told_when_the_lm_is_made(here):
    with pytest.raises(ValueError, match=r"no folder './modls/smol' to load a model from \(did you mean 'models'\?\)"):
        Local("./modls/smol")
    assert near_folder("qwerty/z") == ""


def test_what_a_folder_lacks_is_said_before_anything_is_loaded(tmp_path, models, tokenizer):
    folder = tmp_path / "run"
    whole = folder / "checkpoint-3"
    models["llama"].save_pretrained(whole)
    tokenizer.save_pretrained(whole)
    with pytest.raises(
        LMError, match=r"there is no model in .*run': a folder of one has config.json.*mean '.*point-3'"
    ):
        Local(folder)("w1")
    assert Local(whole, temperature=0, max_tokens=3)("w1").text

    def without(*names, **files):
        made = tmp_path / "-".join(names)
        shutil.copytree(whole, made)
        for name in names:
            (made / name).unlink()
        for name, text in files.items():
            (made / name.replace("_bin", ".bin")).write_text(text)
        return Local(made)

    with pytest.raises(LMError, match=r"there are no weights in .*: they were not saved"):
        without("model.safetensors")("w1")
    with pytest.raises(LMError, match=r"no weights in .*: model.bin is a pickle, which can run code"):
        without("model.safetensors", "generation_config.json", model_bin="x")("w1")
    with pytest.raises(
        LMError, match=r"there is no tokenizer in .* that can be loaded \(.*lm.Local\(model, tokenizer\)"
    ):
        without("tokenizer.json")("w1")
    broken = without("config.json", **{"config.json": "{"})
    for use in (lambda: broken("w1"), broken.plan):
        with pytest.raises(LMError, match=r"config.json' cannot be read: Expecting property name"):
            use()


def test_weights_of_another_model_are_refused_rather_than_made_up(tmp_path, models, tokenizer):
    models["llama"].save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    for change, names in (
        (
            {"num_hidden_layers": 3},
            r"not those of a LlamaForCausalLM.*9 of its weights.*model.layers.2.input_layernorm",
        ),
        ({"intermediate_size": 48}, r"or of another shape \(model.layers.0.mlp.down_proj.weight"),
    ):
        (tmp_path / "config.json").write_text(json.dumps({**config, **change}))
        with pytest.raises(LMError, match=names):
            Local(tmp_path)("w1")


@pytest.fixture
def whole(tmp_path, models, tokenizer):
    """Copies of a good folder, each with some files written anew; None leaves one out."""
    models["llama"].save_pretrained(tmp_path / "whole")
    tokenizer.save_pretrained(tmp_path / "whole")

    def made(name, **files):
        folder = tmp_path / name
        shutil.copytree(tmp_path / "whole", folder)
        for file, data in files.items():
            place = folder / file.replace("__", ".")
            place.unlink(missing_ok=True)
            if data is not None:
                place.write_bytes(data)
        return folder

    return made


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 123\n"


def test_a_damaged_file_is_named(whole):
    good = (whole("good") / "model.safetensors").read_bytes()
    for name, data in (("cut", good[:-100]), ("short", good[:4]), ("empty", b"")):
        with pytest.raises(LMError, match=rf"{name}/model.safetensors' cannot be read: .* copy it again"):
            Local(whole(name, model__safetensors=data))("w1")
    for file in ("model__safetensors", "config__json"):
        name = file.replace("__", ".")
        with pytest.raises(LMError, match=rf"{name}' cannot be read: .* pointer of Git LFS, .* git lfs pull"):
            Local(whole(f"lfs-{file}", **{file: POINTER}))("w1")
    with pytest.raises(LMError, match=r"config.json' cannot be read: it holds a list, and no object"):
        Local(whole("list", config__json=b"[]"))("w1")


def test_a_folder_without_any_file_of_a_tokenizer(whole, models, tmp_path):
    """Transformers makes an empty tokenizer of it, without a word."""
    models["qwen3"].save_pretrained(tmp_path / "bare")
    with pytest.raises(LMError, match=r"there is no tokenizer in .*bare' that can be loaded"):
        Local(tmp_path / "bare")("w1")


def test_no_code_that_comes_with_weights_is_run_and_nobody_is_asked_whether_to(whole, tmp_path):
    config = {"model_type": "own", "auto_map": {"AutoConfig": "own.Own", "AutoModelForCausalLM": "own.Own"}}
    code = f"open({str(tmp_path / 'ran')!r}, 'w')".encode()
    folder = whole("own", config__json=json.dumps(config).encode(), own__py=code)
    asks = (
        "import sys\nfrom promptgrad.lm import Local\n"
        "for use in (lambda lm: lm('w1'), lambda lm: lm.plan()):\n"
        "    try:\n        use(Local(sys.argv[1]))\n"
        "    except Exception as error:\n        print(type(error).__name__, error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", asks, str(folder)], input="y\ny\ny\n", capture_output=True, text=True, check=True
    )
    assert done.stdout.count("LMError") == done.stdout.count("needs code of its own to be loaded") == 2
    assert "[y/N]" not in done.stdout
    assert not (tmp_path / "ran").exists()


def test_a_model_that_writes_no_text(whole):
    config = json.loads((whole("good") / "config.json").read_text())
    for kind in ("LlamaForSequenceClassification", "BertForMaskedLM", "LlamaForTokenClassification"):
        folder = whole(kind, config__json=json.dumps({**config, "architectures": [kind]}).encode())
        for use in (lambda lm: lm("w1"), lambda lm: lm.plan()):
            with pytest.raises(LMError, match=f"holds a {kind}, which writes no text"):
                use(Local(folder))


def test_what_is_no_model_and_no_type_of_numbers(whole):
    for nothing in ("", None, 3):
        with pytest.raises(ValueError, match=r"a local model is a folder, a name, or a model object"):
            Local(nothing)
    folder = whole("good")
    for odd in ("float33", "int8", 16):
        for use in (lambda lm: lm("w1"), lambda lm: lm.plan()):
            with pytest.raises(LMError, match=rf"dtype is 'float32', 'bfloat16', .* not {odd!r}"):
                use(Local(folder, dtype=odd))
    assert Local(folder, dtype="torch.bfloat16", max_tokens=2)("w1").text is not None
