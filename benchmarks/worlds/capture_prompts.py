"""Write prompts.json: the peers' own meta prompts about 24 rows of one world, made by the peers' own code.

    .venv-bench/bin/python benchmarks/worlds/capture_prompts.py

The tests read them, so that they need no peer: the world's writer must understand what the real packages send.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from worlds.policy import PolicyWorld

SEED, ROWS = 1011, 24
OUT = Path(__file__).with_name("prompts.json")


def shown(world: PolicyWorld) -> list[tuple[dict[str, Any], str, str]]:
    """The rows with the start's answers and the feedback."""
    found = []
    for row in world.rows["train"][:ROWS]:
        answer = world.code_for(world.start, (), row["ticket"])
        found.append((row, answer, world.judge(row, answer)[1]))
    return found


def dspy_prompts(world: PolicyWorld) -> dict[str, Any]:
    import dspy
    from dspy.propose.dataset_summary_generator import create_dataset_summary
    from dspy.propose.grounded_proposer import GroundedProposer
    from dspy.teleprompt.gepa.instruction_proposal import InstructionProposer

    class Recorder(dspy.BaseLM):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(model="recorder")
            self.seen: list[Any] = []

        def copy(self, **_: Any) -> Any:
            return self

        def forward(self, prompt: Any = None, messages: Any = None, **_: Any) -> Any:
            self.seen.append(messages)
            names = ("observations", "summary", "program_description", "module_description", "proposed_instruction")
            text = "\n".join(f"[[ ## {name} ## ]]\nSomething.\n" for name in names)
            if "JSON object" in messages[-1]["content"]:
                text = '{"new_instruction": "Something."}'
            choice = SimpleNamespace(message=SimpleNamespace(content=text, tool_calls=None), finish_reason="stop")
            usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
            return SimpleNamespace(choices=[choice], usage=usage, model="recorder")

    lm = Recorder()
    dspy.configure(lm=lm, adapter=dspy.ChatAdapter())
    program = dspy.Predict(dspy.Signature("ticket -> code", world.start))
    rows = shown(world)
    found: dict[str, Any] = {}
    reflective = [
        {"Inputs": {"ticket": row["ticket"]}, "Generated Outputs": {"code": answer}, "Feedback": feedback}
        for row, answer, feedback in rows
    ]
    InstructionProposer()({"self": world.start}, {"self": reflective}, ["self"])
    found["gepa"] = lm.seen[-1]
    examples = [dspy.Example(**row).with_inputs("ticket") for row, _, _ in rows]
    create_dataset_summary(examples, ROWS, lm)
    found["mipro-observations"] = lm.seen[-2]
    lm.seen.clear()
    demos = [dspy.Example(**row, augmented=True) for row, _, _ in rows]
    proposer = GroundedProposer(
        lm,
        program,
        examples,
        view_data_batch_size=10,
        num_demos_in_context=ROWS,
        use_tip=False,
        use_dataset_summary=False,
    )
    proposer.propose_instruction_for_predictor(program, program, 0, [[[], demos]], 1, {})
    found["mipro-proposal"] = lm.seen[-1]
    return found


def gepa_prompt(world: PolicyWorld) -> list[dict[str, str]]:
    from gepa.strategies.instruction_proposal import InstructionProposalSignature

    rows = [
        {"Inputs": {"ticket": row["ticket"]}, "Generated Outputs": answer, "Feedback": feedback}
        for row, answer, feedback in shown(world)
    ]
    inputs = {"current_instruction_doc": world.start, "dataset_with_feedback": rows, "prompt_template": None}
    return [{"role": "user", "content": InstructionProposalSignature.prompt_renderer(inputs)}]


def textgrad_prompts(world: PolicyWorld) -> dict[str, Any]:
    import textgrad
    from textgrad.autograd import StringBasedFunction
    from textgrad.engine import EngineLM

    class Recorder(EngineLM):  # type: ignore[misc]
        model_string = "recorder"

        def __init__(self) -> None:
            self.seen: list[list[dict[str, str]]] = []

        def generate(self, content: str, system_prompt: str | None = None, **_: Any) -> str:
            self.seen.append([{"role": "system", "content": system_prompt or ""}, {"role": "user", "content": content}])
            if "<IMPROVED_VARIABLE>" in (system_prompt or ""):
                return "<IMPROVED_VARIABLE>Something.</IMPROVED_VARIABLE>"
            if "gradient (feedback) engine" in (system_prompt or ""):
                from worlds import Call

                messages = [dict(message) for message in self.seen[-1]]
                return world.answer(Call("critic", messages, 0.0, {}))
            return world.code_for(world.start, (), content)

        def __call__(self, content: str, system_prompt: str | None = None, **_: Any) -> str:
            return self.generate(content, system_prompt)

    engine = Recorder()
    prompt = textgrad.Variable(world.start, role_description="system prompt of a model that gives codes to tickets")
    model = textgrad.BlackboxLLM(engine, prompt)
    losses = []
    for row, _, _ in shown(world):
        question = textgrad.Variable(row["ticket"], requires_grad=False, role_description="the ticket")
        answer = model(question)
        judge = StringBasedFunction(
            lambda prediction, row=row: world.judge(row, prediction.value)[1], "compares the code with the right one"
        )
        losses.append(judge(inputs={"prediction": answer}))
    textgrad.sum(losses).backward(engine)
    critic = [seen for seen in engine.seen if "gradient (feedback) engine" in seen[0]["content"]]
    textgrad.TGD([prompt], engine=engine).step()
    first = next(i for i, seen in enumerate(critic) if "<LM_INPUT>" in seen[1]["content"])
    return {
        "textgrad-output": critic[first - 1],
        "textgrad-critic": critic[first],
        "textgrad-optimizer": engine.seen[-1],
    }


def main() -> None:
    world = PolicyWorld(SEED)
    found = {**dspy_prompts(world), "gepa-package": gepa_prompt(world), **textgrad_prompts(world)}
    OUT.write_text(json.dumps({"seed": SEED, "rows": ROWS, "prompts": found}, indent=1) + "\n")
    print({name: sum(len(message["content"]) for message in messages) for name, messages in found.items()})


if __name__ == "__main__":
    main()
