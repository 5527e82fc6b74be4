"""A training run of a program that sees and draws, in a process of its own, which its test kills."""

import json
import sys
from pathlib import Path

import promptgrad as pg
from promptgrad import lm, nn, optim
from tests.made_files import png

COLOURS = {"red": (255, 0, 0), "green": (0, 200, 0), "blue": (0, 0, 255)}


class Sketch(nn.Module):
    """Draws a sketch of a picture, and names the colour of both."""

    def __init__(self):
        super().__init__()
        self.draw = nn.Predict("picture: Image -> sketch: Image")
        self.name = nn.Predict("picture: Image, sketch: Image -> answer")

    def forward(self, picture):
        return self.name(picture=picture, sketch=self.draw(picture=picture).sketch)


def examples(start, count):
    names = [*COLOURS] * count
    return [
        pg.Example(picture=pg.Image(png(start + n, 9, COLOURS[names[n]])), answer=names[n]).with_inputs("picture")
        for n in range(count)
    ]


def run(url, folder):
    program = Sketch().to(lm.Retry(lm.HTTP("vision-1", url)))
    optimizer = optim.BootstrapFewShot(program.parameters(), max_bootstrapped_demos=1, max_labeled_demos=1)
    metric = pg.metrics.exact_match
    if (folder / "run.json").exists():
        result = pg.Trainer.resume(folder, program, optimizer, metric, progress=False)
    else:
        trainer = pg.Trainer(program, optimizer, metric=metric, run_dir=folder, seed=1, concurrency=4, progress=False)
        result = trainer.fit(examples(10, 6), examples(30, 9))
    pg.save(program.state_dict(), folder / "state.json")
    return {"outcome": result.outcome, "calls": result.spent.calls, "lost": result.lost}


def main():
    url, folder, told = sys.argv[1:]
    Path(told).write_text(json.dumps(run(url, Path(folder))))
