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
