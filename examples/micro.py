"""The whole idea on two pages: a program of prompts, a loss, `backward()` in words, and a step that must prove itself.

    python examples/micro.py

As micrograd is to PyTorch: the names are those of promptgrad, and nothing is imported or hidden. What flows back is a
sentence rather than a number. Three plain functions at the end SIMULATE the language models, so that it runs offline;
in earnest each of them is a call of a model.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator


class Text(str):
    """A string that remembers what it was made of, and collects in `grad` what is said against it."""

    def __new__(cls, value: str, parents: tuple[Text, ...] = ()) -> Text:
        text = super().__new__(cls, value)
        text.parents, text.grad, text._backward = parents, [], lambda critic: None
        return text

    def backward(self, critic: Callable) -> None:
        """Pass on what is in `grad`, from this text to all that it was made of: users first, sources last."""
        order: list[Text] = []

        def visit(text: Text) -> None:
            if all(text is not known for known in order):  # by identity: two texts may say the same
                for parent in text.parents:
                    visit(parent)
                order.append(text)

        visit(self)
        for text in reversed(order):
            if text.grad:
                text._backward(critic)


class Parameter:
    """A text that training may rewrite, with the critiques of it."""

    def __init__(self, data: str) -> None:
        self.data, self.grad = data, []


class Module:
    """A program: attributes that are parameters or modules, and a `forward`."""

    def named_parameters(self, prefix: str = "") -> Iterator[tuple[str, Parameter]]:
        for name, value in vars(self).items():
            if isinstance(value, Parameter):
                yield prefix + name, value
            elif isinstance(value, Module):
                yield from value.named_parameters(f"{prefix}{name}.")

    def __call__(self, text: str) -> Text:
        return self.forward(text)


class Predict(Module):
    """One call of a language model: its instruction is a parameter, its reply a text that remembers the call."""

    def __init__(self, instruction: str, lm: Callable[[str], str]) -> None:
        self.instruction, self.lm = Parameter(instruction), lm

    def forward(self, text: str) -> Text:
        out = Text(self.lm(f"{self.instruction.data}\n{text}"), (text,) if isinstance(text, Text) else ())

        def _backward(critic: Callable) -> None:  # the critic divides the blame between instruction and input
            blame = critic(self.instruction.data, str(text), str(out), out.grad)
            self.instruction.grad += blame.get("instruction", [])
            for source in out.parents:
                source.grad += blame.get("input", [])

        out._backward = _backward
        return out


class MetricLoss:
    """How far a batch falls short of the best score; `backward` begins with what is wrong with each output."""

    def __init__(self, metric: Callable, outputs: list[Text], labels: list[str]) -> None:
        self.rows = [(output, *metric(output, label)) for output, label in zip(outputs, labels, strict=True)]

    def item(self) -> float:
        return sum(1 - score for _, score, _ in self.rows) / len(self.rows)

    def backward(self, critic: Callable) -> None:
        for output, score, feedback in self.rows:
            if score < 1:
                output.grad.append(feedback)
                output.backward(critic)


class TGD:
    """Textual gradient descent: rewrite a text as its critiques ask, and keep it only if the loss falls (the gate)."""

    def __init__(self, parameters: Iterator[tuple[str, Parameter]], writer: Callable[[str, Counter], str]) -> None:
        self.parameters, self.writer = list(parameters), writer

    def step(self, closure: Callable[[], float]) -> None:
        for path, parameter in self.parameters:
            if parameter.grad:
                before, old = closure(), parameter.data
                parameter.data = self.writer(old, Counter(parameter.grad))  # each critique with its support
                after = closure()
                print(f"  {path}: {parameter.data!r} {'kept' if after < before else 'refused'}, {before} -> {after}")
                parameter.data = parameter.data if after < before else old
                parameter.grad = []


# ---------------------------------------------------------------- a task, and SIMULATED language models for it

COLORS = {"wolf": "grey", "cherry": "red", "frog": "green", "swan": "white", "lemon": "yellow", "crow": "black"}
TRAIN = ["frog wolf crow", "swan cherry crow", "lemon frog wolf", "wolf crow swan", "crow swan lemon", "cherry frog"]
TEST = ["frog lemon cherry", "swan wolf lemon", "lemon crow cherry", "wolf frog crow"]


def lm(prompt: str) -> str:
    """Follow an instruction as far as it goes, and no further."""
    instruction, text = prompt.lower().split("\n")
    if "word" in instruction:
        return text.split()[-1 if "last" in instruction else 0]
    reply = COLORS[text] if "color" in instruction else f"this is a {text}"
    return reply[:1] if "short" in instruction else reply


def critic(instruction: str, text: str, output: str, feedback: list[str]) -> dict[str, list[str]]:
    """Say what is wrong with an instruction, or with the input that it was given. A hasty critic where a crow is."""
    wanted = feedback[0].split()[-1]
    if "word" in instruction:
        return {"instruction": ["Take the last word."]} if COLORS[text.split()[-1]] == wanted else {}
    if output not in COLORS.values():
        return {"instruction": ["Keep it short." if wanted == "black" else "Name its color."]}
    return {"input": [f"it should be something {wanted}"]}


def writer(text: str, critiques: Counter) -> str:
    """Add to a text what most of its critiques ask for."""
    return f"{text} {critiques.most_common(1)[0][0]}"


def metric(output: str, label: str) -> tuple[float, str]:
    """Full marks for the color, half of them for a color."""
    return (output == label) or 0.5 * (output in COLORS.values()), f"expected {label}"


class ColorOfLast(Module):
    """Pick a word, then describe it. Nobody has said which word, or what to say of it."""

    def __init__(self) -> None:
        self.pick = Predict("Pick a word.", lm)
        self.paint = Predict("Describe the thing.", lm)

    def forward(self, text: str) -> Text:
        return self.paint(self.pick(text))


def main() -> None:
    model = ColorOfLast()
    optimizer = TGD(model.named_parameters(), writer)

    def loss_of(texts: list[str]) -> MetricLoss:
        return MetricLoss(metric, [model(text) for text in texts], [COLORS[text.split()[-1]] for text in texts])

    print(f"SIMULATED language models. Test loss at the start: {loss_of(TEST).item()}")
    for step, batch in enumerate((TRAIN[:3], TRAIN, TRAIN), 1):
        loss = loss_of(batch)
        print(f"step {step}: loss {loss.item()}")
        loss.backward(critic)
        optimizer.step(lambda: loss_of(TRAIN).item())
    print(f"Test loss at the end: {loss_of(TEST).item()}, with the prompts:")
    for path, parameter in model.named_parameters():
        print(f"  {path}: {parameter.data}")


if __name__ == "__main__":
    main()
