"""Importing is free and does nothing: checked in fresh interpreters in an empty folder."""

import json
import os
import subprocess
import sys

import pytest

REPORT = """
import json, sys
before = set(sys.modules)
{code}
new = set(sys.modules) - before
json.dump(sorted(new), sys.stderr)
"""


def modules_after(code, folder):
    """Run the code in a fresh interpreter; return what it loaded. It must be silent and leave the folder empty."""
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", REPORT.format(code=code)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert list(folder.iterdir()) == []
    return json.loads(done.stderr)


def third_party(modules):
    tops = {name.partition(".")[0] for name in modules}
    return sorted(top for top in tops if top not in sys.stdlib_module_names and top != "promptgrad")


def test_import_promptgrad_loads_next_to_nothing(tmp_path):
    loaded = modules_after("import promptgrad", tmp_path)
    assert third_party(loaded) == []
    assert "asyncio" not in loaded
    assert [name for name in loaded if name.startswith("promptgrad")] == ["promptgrad"]
    assert len(loaded) < 10


def test_dir_and_a_misspelt_name_load_no_room(tmp_path):
    loaded = modules_after(
        "import promptgrad\nassert 'Trainer' in dir(promptgrad)\nassert not hasattr(promptgrad, 'nonsense')", tmp_path
    )
    assert [name for name in loaded if name.startswith("promptgrad")] == ["promptgrad"]


@pytest.mark.parametrize(
    "room",
    [
        "errors",
        "aio",
        "run",
        "data",
        "autograd",
        "signature",
        "retrieve",
        "lm",
        "adapters",
        "metrics",
        "nn",
        "func",
        "evaluation",
        "finetune",
        "search",
        "optim",
        "train",
        "testing",
        "tools",
        "extend",
        "viz",
    ],
)
def test_importing_a_room_loads_no_third_party_module(room, tmp_path):
    loaded = modules_after(f"import promptgrad.{room}", tmp_path)
    assert third_party(loaded) == []


def test_a_first_text_call_needs_no_pydantic(tmp_path):
    code = """
import promptgrad as pg
from promptgrad import nn
lm = pg.lm.FunctionLM(lambda messages: "[[ ## answer ## ]]\\nParis\\n\\n[[ ## completed ## ]]", name="one")
assert nn.Predict("question -> answer", lm=lm)(question="What is the capital of France?").answer == "Paris"
"""
    loaded = modules_after(code, tmp_path)
    assert third_party(loaded) == []
    assert {"asyncio", "socket", "ssl", "http.client"} & set(loaded) == set(), "no call went over HTTP"
    layers = {f"promptgrad.lm._{name}" for name in ("cache", "limit", "retry", "samples", "providers", "http")}
    assert layers & set(loaded) == set(), "they are put around a name"


TO_START = """
from promptgrad import nn, optim
nn.Predict
optim.TGD
"""


def test_to_start_loads_neither_evaluation_nor_the_wire_nor_what_a_step_needs(tmp_path):
    loaded = [name for name in modules_after(TO_START, tmp_path) if name.startswith("promptgrad.")]
    assert {name.split(".")[1] for name in loaded} & {"evaluation", "retrieve", "metrics", "train"} == set()
    needed_later = {
        "lm._http",
        "lm._cache",
        "lm._retry",
        "nn._stream",
        "nn._events",
        "optim._descent",
        "search._session",
    }
    assert needed_later & {name.removeprefix("promptgrad.") for name in loaded} == set()
    assert len(loaded) < 170  # 313 when every room loaded all of its files


def test_no_pattern_is_compiled_before_it_is_used(tmp_path):
    modules_after(
        TO_START
        + """
import re, sys
compiled = [
    (module, name)
    for module in sorted(sys.modules)
    if module.startswith("promptgrad")
    for name, value in vars(sys.modules[module]).items()
    for one in (value.values() if isinstance(value, dict) and not name.startswith("__") else [value])
    if isinstance(one, re.Pattern)
]
assert compiled == [], compiled
""",
        tmp_path,
    )


def test_making_an_optimizer_needs_no_pydantic(tmp_path):
    code = """
from promptgrad import nn, optim
model = nn.Predict("question -> answer")
optim.TGD(model.parameters())
optim.GEPA(model.parameters())
optim.MIPRO(model.parameters())
"""
    assert "pydantic" not in modules_after(code, tmp_path)


def test_a_call_of_a_language_model_loads_neither_agents_nor_local_models(tmp_path):
    code = (
        "from promptgrad import lm, metrics, nn, evaluate\n"
        "model = nn.Predict('a -> b').to(lm.FunctionLM(lambda request: 'c'))\n"
        "evaluate(model, [{'a': 'x', 'b': 'c'}], metrics.exact_match, progress=False)"
    )
    loaded = modules_after(code, tmp_path)
    rooms = {name.split(".")[1] for name in loaded if name.startswith("promptgrad.")}
    assert rooms & {"finetune", "optim", "sandbox", "search", "testing", "tools", "train"} == set()
    late = [name for name in loaded if name.startswith(("promptgrad.lm._local", "promptgrad.nn._react"))]
    assert late == []
    assert "promptgrad.nn._predict" in loaded
