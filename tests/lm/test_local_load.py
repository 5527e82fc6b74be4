"""Where a local model is looked for: a folder, what was downloaded before, the hub."""

import http.server
import os
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
