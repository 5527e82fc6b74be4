"""What an import costs: CPU of a fresh interpreter, less that of a bare one.

Rows: `import promptgrad`; the same with nn, optim and a first call, on an LM in the process and on one over HTTP; the
peers' imports, and DSPy's first call over HTTP.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile

from _side_by_side import CLIENT, ROOT, header, median, options, say

FIRST_CALL = """
import promptgrad as pg
from promptgrad import nn, optim
lm = pg.lm.FunctionLM(lambda messages: "[[ ## answer ## ]]\\nParis\\n\\n[[ ## completed ## ]]", name="one")
model = nn.Predict("question -> answer").to(lm)
optim.TGD
assert model(question="Where?").answer == "Paris"
"""
FIRST_HTTP_CALL = """
import sys
import promptgrad as pg
from promptgrad import nn, optim
model = nn.Predict("question -> answer").to(pg.LM("openai/m", base_url=sys.argv[1], api_key="none"))
optim.TGD
assert model(question="Where?").answer == "Paris"
"""
DSPY_HTTP_CALL = """
import sys
import dspy
dspy.configure(lm=dspy.LM("openai/m", api_base=sys.argv[1], api_key="none", cache=False))
assert dspy.Predict("question -> answer")(question="Where?").answer == "Paris"
"""
REPLY = "[[ ## answer ## ]]\nParis\n\n[[ ## completed ## ]]"

PROGRAMS = {
    "python": "pass",
    "promptgrad": "import promptgrad",
    "promptgrad nn optim": "import promptgrad\nfrom promptgrad import nn, optim\nnn.Predict\noptim.TGD",
    "promptgrad first call": FIRST_CALL,
    "promptgrad first call over HTTP": FIRST_HTTP_CALL,
    "aiohttp": "import aiohttp",
    "dspy": "import dspy",
    "dspy first call over HTTP": DSPY_HTTP_CALL,
    "litellm": "import litellm",
}


def cpu_of(code: str, url: str, bytecode: str) -> float | None:
    """CPU seconds of one fresh interpreter; None if it failed. Everyone's bytecode is kept in one folder."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    environment["PYTHONPYCACHEPREFIX"] = bytecode
    with tempfile.TemporaryDirectory() as folder:
        process = subprocess.Popen(
            [sys.executable, "-c", code, url],
            env={**environment, "HOME": folder},
            cwd=folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        if CLIENT is not None:
            os.sched_setaffinity(process.pid, {CLIENT})
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    return None if process.returncode else used.ru_utime + used.ru_stime


def main() -> None:
    """Run every program in turn and print the medians."""
    from promptgrad.testing import LoopbackProcess

    chosen = options(__doc__ or "", blocks=7)
    header("import")
    programs = {name: code for name, code in PROGRAMS.items() if chosen.only in name or name == "python"}
    if chosen.quick:
        programs = {
            name: code for name, code in programs.items() if name in ("python", "promptgrad", "promptgrad first call")
        }
    times: dict[str, list[float]] = {name: [] for name in programs}
    with LoopbackProcess(REPLY) as server, tempfile.TemporaryDirectory() as bytecode:
        failed = [name for name, code in programs.items() if cpu_of(code, server.url, bytecode) is None]  # compiles
        for name in failed:
            del programs[name], times[name]
            say(bench="import", who=name, skipped="does not run here; make bench-env installs the peers")
        for _ in range(chosen.blocks):
            for name, code in programs.items():
                used = cpu_of(code, server.url, bytecode)
                if used is not None:
                    times[name].append(used)
    bare = median(times["python"])
    above = {name: median(values) - bare for name, values in times.items()}
    limits = {"promptgrad": ("<= 100 ms", 0.1)}
    if "dspy" in above:
        for name in ("promptgrad nn optim", "promptgrad first call"):
            limits[name] = ("<= 0.4 x dspy", 0.4 * above["dspy"])
    for name, values in times.items():
        line = {
            "bench": "import",
            "who": name,
            "cpu_ms": round(1e3 * median(values), 1),
            "above_python_ms": round(1e3 * above[name], 1),
            "low": round(1e3 * (min(values) - bare), 1),
            "high": round(1e3 * (max(values) - bare), 1),
            "blocks": len(values),
        }
        if "dspy" in above:
            line["x_dspy"] = round(above[name] / above["dspy"], 3)
        if name in limits:
            line["target"], line["meets"] = limits[name][0], above[name] <= limits[name][1]
        say(**line)


if __name__ == "__main__":
    main()
