"""Ten programs, ours and DSPy's, side by side: how long each is, that it runs, and how many calls it makes.

Each runs in a process of its own, against a scripted server on loopback that answers any prompt of either (SIMULATED:
it fills in the fields that are asked for). A program of DSPy that cannot run here, as its sandbox needs Deno, is
counted all the same.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from promptgrad.testing import Fields, LoopbackLM

HERE = Path(__file__).parent / "twins"
NAMES = sorted(path.stem for path in (HERE / "ours").glob("*.py"))


def lines(path: Path) -> int:
    """Lines that are neither blank nor a comment."""
    return sum(bool(line.strip()) and not line.lstrip().startswith("#") for line in path.read_text().splitlines())


def stand_in(name: str) -> Any:
    """What answers the prompts of one program."""
    fields = Fields("ok", score="0.8", team="billing", guest='{"name": "Ada", "people": 4}')

    def answer(messages: Any) -> str:
        told = " ".join(str(message["content"]) for message in messages)
        done = sum(message["role"] == "assistant" for message in messages)
        if name in ("code", "long_document"):  # ours, then DSPy's
            code = "submit(444)" if name == "code" else "submit('the pump')"
            theirs = "final_answer = 444" if name == "code" else "SUBMIT('the pump')"
            if "[[ ## generated_code ## ]]" in told or "SUBMIT" in told:
                said = {"reasoning": "I look.", "generated_code": theirs, "code": theirs, "answer": "444"}
                return "\n\n".join(f"[[ ## {field} ## ]]\n{text}" for field, text in said.items())
            return f"[[ ## thought ## ]]\nI look.\n\n[[ ## code ## ]]\n{code}\n\n[[ ## completed ## ]]"
        if name == "agent":
            theirs = "next_tool_name" in told
            tool = ("weather", {"town": "Rome"}) if not done and "observation_0" not in told else None
            asked = tool or (("finish", {}) if theirs else ("finish", {"answer": "sun"}))
            if theirs:
                return (
                    f"[[ ## next_thought ## ]]\nI look.\n\n[[ ## next_tool_name ## ]]\n{asked[0]}\n\n"
                    f"[[ ## next_tool_args ## ]]\n{json.dumps(asked[1])}\n\n[[ ## completed ## ]]"
                )
            if "[[ ## tool ## ]]" in told:
                return (
                    f"[[ ## thought ## ]]\nI look.\n\n[[ ## tool ## ]]\n{asked[0]}\n\n"
                    f"[[ ## arguments ## ]]\n{json.dumps(asked[1])}\n\n[[ ## completed ## ]]"
                )
        if name == "extraction":
            return '{"guest": {"name": "Ada", "people": 4}}'
        try:
            return fields(messages)
        except ValueError:  # a prompt of DSPy's
            names = dict.fromkeys(re.findall(r"\[\[ ## (\w+) ## \]\]", str(messages[0]["content"])))
            values = {"score": "0.8", "team": "billing"}
            return "\n\n".join(f"[[ ## {field} ## ]]\n{values.get(field, 'ok')}" for field in names)

    return answer


def run(whose: str, name: str, python: str) -> dict[str, Any]:
    """Run one program, and say what it printed and asked."""
    path = HERE / whose / f"{name}.py"
    found: dict[str, Any] = {"program": name, "who": whose, "lines": lines(path)}
    with tempfile.TemporaryDirectory() as folder, LoopbackLM(stand_in(name)) as server:
        env = {**os.environ, "DSPY_CACHEDIR": folder}
        done = subprocess.run(
            [python, str(path), server.url],
            cwd=folder,
            env=env,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        found["calls"] = len(server.requests)
    if done.returncode:
        found["error"] = done.stderr.strip().splitlines()[-1][:200] if done.stderr.strip() else f"rc {done.returncode}"
    else:
        found["printed"] = (done.stdout.strip().splitlines() or [""])[-1][:80]
    return found


def main() -> None:
    """Run all programs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=["ours", "dspy"], help="one side")
    parser.add_argument("--python", default=sys.executable, help="the Python that has DSPy")
    asked = parser.parse_args()
    for name in NAMES:
        for whose in [asked.only] if asked.only else ["ours", "dspy"]:
            print(json.dumps(run(whose, name, asked.python)), flush=True)


if __name__ == "__main__":
    main()
