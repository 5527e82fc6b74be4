"""Lives of trainings: each is a fork of this process, and kills itself at its n-th step, score or access to a folder.

`python lives.py HOME SEED KILLS WAY...` has, of each way, a twin that lives on, then some that are killed in the
middle, one that goes on to the end, and one that finds all done. Twin and last write what they have in the end to HOME.
"""

import copy
import hashlib
import json
import os
import random
import signal
import sys
import traceback
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from torch.optim.optimizer import register_optimizer_step_pre_hook

from promptgrad import Trainer, lm, nn, optim
from promptgrad.data import pocket
from promptgrad.finetune import grpo, sft
from promptgrad.run import Journal

TASK = pocket.task("color-of-last", seed=3)
TRAIN, VAL, _ = TASK.split(9, 8, 1)
LORA = {"r": 2, "dropout": 0.3}
lives = []


class Life:
    """One life of a training in a folder.

    Args:
        way: How it trains.
        folder: Where its state is.
        die_at: The moment at which it is killed; below 0 for never.
    """

    def __init__(self, way, folder, die_at):
        self.way, self.folder, self.die_at, self.moments = way, folder, die_at, 0

    def moment(self):
        self.moments += 1
        if self.moments == self.die_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def step(self, *_):
        with Path(f"{self.folder}.steps").open("a") as steps:
            steps.write("step\n")
        self.moment()

    def look(self, event, args):
        if event in ("open", "os.rename", "os.remove", "os.chmod") and any(f"{self.folder}/" in str(a) for a in args):
            self.moment()

    def live(self):
        lives.append(self)
        register_optimizer_step_pre_hook(self.step)
        sys.addaudithook(self.look)
        model, told = getattr(self, self.way)(program())
        digest = hashlib.sha256()
        for name, weight in model.model.named_parameters():
            digest.update(name.encode() + weight.detach().numpy().tobytes())
        Path(f"{self.folder}.end").write_text(json.dumps([digest.hexdigest(), *told]))
        Path(f"{self.folder}.moments").write_text(str(self.moments))

    # -- the ways

    def sft(self, model, **given):
        made = sft(model, TRAIN, steps=6, batch_size=2, lora=LORA, checkpoint=self.folder, checkpoint_every=2, **given)
        return made.lm, [made.losses, made.lm.name, made.samples]

    def distill(self, model):
        teacher = program("precise", temperature=0.7)
        return self.sft(model, teacher=teacher, metric=odd, threshold=0.0, n=2, concurrency=1)

    def grpo(self, model):
        given = {"n": 4, "steps": 6, "batch_size": 2, "kl": 0.01, "lora": {"r": 2}, "concurrency": 2}
        made = grpo(model, TRAIN, odd, checkpoint=self.folder, checkpoint_every=2, **given)
        return made.lm, [made.losses, made.lm.name, made.collected.rewards]

    def policy(self, model):
        return self.fit(model, optim.GRPO(model, n=4, steps=8, batch_size=2, lora={"r": 2}, checkpoint_every=2))

    def bootstrap(self, model):
        return self.fit(model, tuner(model))

    def together(self, model):
        demos = optim.BootstrapFewShot(model.parameters(), max_bootstrapped_demos=1, max_labeled_demos=1)
        return self.fit(model, optim.BetterTogether("p -> w -> p", p=demos, w=tuner(model)))

    def fit(self, model, optimizer):
        if (self.folder / "journal.jsonl").exists():
            result = Trainer.resume(self.folder, model, optimizer, odd)
        else:
            trainer = Trainer(model, optimizer, metric=odd, run_dir=self.folder, progress=False, concurrency=2)
            result = trainer.fit(TRAIN, VAL)
        made = getattr(optimizer, "optimizers", {"w": optimizer})["w"].result
        told = [made.losses, made.lm.name, str(result.after), result.outcome, result.calls, result.notes]
        with Journal(self.folder / "journal.jsonl") as journal:
            return made.lm, [*told, journal.digest()]


def odd(example, output):
    """A score that half of the replies have, whatever the prompt."""
    lives[-1].moment()
    return float(len(str(output.answer)) % 2)


def program(level="partial", **options):
    return nn.Predict("text -> answer", instruction=TASK.instruction(level)).to(lm.pocket(**options))


def tuner(model):
    given = {"steps": 8, "batch_size": 2, "lora": LORA, "checkpoint_every": 2}
    return optim.BootstrapFinetune(model, threshold=1.0, max_rounds=1, **given)


def fork(way, folder, die_at):
    if (child := os.fork()) == 0:
        try:
            Life(way, folder, die_at).live()
            os._exit(0)
        except BaseException:  # noqa: BLE001 - the parent sees the status, and who reads the test the traceback
            traceback.print_exc()
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


home, seed, kills = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
torch.set_num_threads(1)
get_peft_model(copy.deepcopy(lm.pocket().model), LoraConfig(target_modules="all-linear"))  # what loads late, loads once
for way in sys.argv[4:]:
    twin, killed = home / f"{way}-twin", home / f"{way}-killed"
    ends = [fork(way, twin, -1)]
    moments = int(Path(f"{twin}.moments").read_text())
    rng = random.Random(f"{way} {seed}")
    ends += [fork(way, killed, rng.randint(moments // 3, 2 * moments // 3)) for _ in range(kills)]
    ends += [fork(way, killed, -1), fork(way, killed, -1)]
    (home / f"{way}.ends").write_text(json.dumps(ends))
