"""Train the pocket model and export it: `python benchmarks/pocket/train.py` (CPU, under an hour).

From `bound.safetensors` (label binding learnt, nothing else) by default; `--from-scratch --device cuda` learns that
too.
The schedule counts steps, so that a seed repeats a run; checkpoints every few minutes make it resumable (`--resume`).
"""

from __future__ import annotations

import argparse
import json
import multiprocessing as mp
import sys
import time
from pathlib import Path
from random import Random
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1])]

from promptgrad.data.pocket import _episodes as episodes  # noqa: E402

BUCKETS = (32, 48, 64, 96, 128, 176, 224)
VOCABULARY = episodes.build_vocabulary()
INDEX = {word: i for i, word in enumerate(VOCABULARY)}


def draw(r: Random, phase: int, progress: float) -> episodes.Episode:
    """Phase 0: binding of two or three words; 1: of up to six; 2: the mixture."""
    if phase == 0:
        return episodes.dense_episode(r) if r.random() < 0.3 else episodes.word_map_episode(r, (2, 2, 3))
    if phase == 1:
        return episodes.dense_episode(r) if r.random() < 0.15 else episodes.word_map_episode(r)
    return episodes.mixture_episode(r, progress)


def produce(queue: Any, phase: Any, seed: int, worker: int, first: int, steps: int, budget: int, share: int) -> None:
    """Fill buckets of equal length with episodes and send each full one as (phase, ids, targets), both nested lists."""
    import numpy as np

    r, made, now = Random(f"{seed}-{worker}-{first}"), first, -1
    waiting: dict[int, list[episodes.Episode]] = {}
    while True:
        if phase.value != now:
            now, waiting = phase.value, {length: [] for length in BUCKETS}
        episode = draw(r, now, made / steps)
        n = len(episode.tokens)
        if n > BUCKETS[-1]:
            continue
        length = next(size for size in BUCKETS if size >= n)
        waiting[length].append(episode)
        rows = budget // length
        if len(waiting[length]) < rows:
            continue
        ids = np.zeros((rows, length), np.int64)
        targets = np.full((rows, length), -100, np.int64)
        for i, e in enumerate(waiting[length]):
            row = [INDEX[word] for word in e.tokens]
            ids[i, : len(row)] = row
            targets[i, : len(row) - 1] = [t if m else -100 for t, m in zip(row[1:], e.mask[1:], strict=True)]
        waiting[length] = []
        made += share
        queue.put((now, ids, targets))


def start_from(model: Any, path: Path) -> int:
    """Load the bound weights; rows of words it did not know are drawn around the rows of similar words.

    Returns:
        How many words were new.
    """
    import torch
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        state = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
        old = {word: i for i, word in enumerate(json.loads(file.metadata()["vocabulary"]))}
    table = state.pop("emb.weight")
    labels = [old[w] for w in episodes.words.LABELS if w in old]
    fresh = 0
    for word, i in INDEX.items():
        if word in old:
            model.emb.weight.data[i] = table[old[word]]
            continue
        like = table[labels] if word in episodes.words.LABELS else table
        model.emb.weight.data[i] = like.mean(0) + like.std(0) * torch.randn(table.shape[1])
        fresh += 1
    missing, unexpected = model.load_state_dict(state, strict=False)
    if unexpected or missing != ["emb.weight"]:
        raise RuntimeError(f"{path} does not fit: missing {missing}, unexpected {unexpected}")
    return fresh


def arguments() -> argparse.Namespace:
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--init", type=Path, default=HERE / "bound.safetensors")
    p.add_argument("--from-scratch", action="store_true")
    p.add_argument("--out", type=Path, default=HERE.parents[1] / "promptgrad/data/pocket/model")
    p.add_argument("--work", type=Path, default=Path("build/pocket"), help="checkpoints and log")
    p.add_argument("--resume", type=Path, help="a checkpoint")
    p.add_argument("--steps", type=int, default=5200, help="of the whole schedule")
    p.add_argument(
        "--halt-at", type=int, help="leave a checkpoint at this step of the schedule and end, without export"
    )
    p.add_argument("--binding-steps", type=int, default=4000, help="at most, for each of phases 0 and 1")
    p.add_argument("--tokens", type=int, default=6144, help="padded tokens in a step")
    p.add_argument("--decay", type=float, default=0.4)
    p.add_argument("--warmup", type=int, default=60)
    p.add_argument("--muon", type=float, default=0.02)
    p.add_argument("--adamw", type=float, default=5e-3)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--device", default="cpu")
    p.add_argument("--bf16", action=argparse.BooleanOptionalAction, default=None)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--workers", type=int, default=1)
    p.add_argument("--save-every", type=float, default=180.0, help="seconds")
    p.add_argument("--eager", action="store_true")
    return p.parse_args()


def main() -> None:
    args = arguments()
    start = 0
    context = mp.get_context("fork")
    queue = context.Queue(16 * args.workers)
    phase = context.Value("i", 0 if args.from_scratch else 2, lock=False)
    if args.resume:
        import torch

        saved = torch.load(args.resume, map_location="cpu", weights_only=True)
        start = saved["step"]
    makers = [
        context.Process(
            target=produce,
            args=(queue, phase, args.seed, i, start, args.steps, args.tokens, args.workers),
            daemon=True,
        )
        for i in range(args.workers)
    ]
    for maker in makers:
        maker.start()

    import net
    import torch
    import torch.nn.functional as F

    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)
    torch._dynamo.config.recompile_limit = 64
    bf16 = args.device != "cpu" if args.bf16 is None else args.bf16
    model = net.Twin(net.Config(len(VOCABULARY)))
    if not args.from_scratch and not args.resume:
        print("new words:", start_from(model, args.init), "of", len(VOCABULARY), flush=True)
    model.to(args.device)
    optims, rest = net.optimizers(model, args.muon, args.adamw)
    rates = [args.muon, args.adamw]
    if args.resume:
        model.load_state_dict(saved["model"])
        for optim, state in zip(optims, saved["optims"], strict=True):
            optim.load_state_dict(state)
    if not args.eager:
        for block in model.blocks:
            block.compile(dynamic=False)
    args.work.mkdir(parents=True, exist_ok=True)
    turns = {n: [t.to(args.device) for t in net.rope(n, 32, 10000.0)] for n in BUCKETS}

    def save(step: int) -> None:
        state = {"model": model.state_dict(), "optims": [o.state_dict() for o in optims], "step": step}
        torch.save(state, args.work / "checkpoint.tmp")
        (args.work / "checkpoint.tmp").replace(args.work / "checkpoint.pt")
        net.export(model, VOCABULARY, args.work / "model")

    flat = int(args.steps * (1 - args.decay))
    stop = args.steps if args.halt_at is None else min(args.steps, args.halt_at)
    step, binding, tokens, real, began = start, 0, 0, 0, time.time()
    loss_mean, hit_mean, reported, last_save, last_tokens = 0.0, 0.0, time.time(), time.time(), 0
    while step < stop:
        made_in, ids, targets = queue.get()
        if made_in != phase.value:
            continue
        x, y = torch.from_numpy(ids).to(args.device), torch.from_numpy(targets).to(args.device).flatten()
        if phase.value < 2:
            rate = min(1.0, (binding + 1) / args.warmup)
        else:
            rate = min(
                1.0, (step - start + 1) / args.warmup, max(0.01, (args.steps - step) / max(1, args.steps - flat))
            )
        with torch.autocast(args.device, torch.bfloat16, enabled=bf16):
            hidden = model.body(x, *turns[x.shape[1]]).flatten(0, 1)
        where = (y >= 0).nonzero()[:, 0]
        logits, gold = model.logits(hidden[where]), y[where]
        loss = F.cross_entropy(logits, gold)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(rest, 1.0)
        for optim, base in zip(optims, rates, strict=True):
            optim.param_groups[0]["lr"] = base * rate
            optim.step()
            optim.zero_grad()
        content = gold != INDEX["<|end|>"]
        hit = float((logits.argmax(-1) == gold)[content].float().mean())
        share = 0.03 if step > start or binding else 1.0
        loss_mean += share * (float(loss.detach()) - loss_mean)
        hit_mean += share * (hit - hit_mean)
        tokens += x.numel()
        real += int((x != 0).sum())
        if phase.value < 2:
            binding += 1
            if hit_mean > 0.95 or binding % args.binding_steps == 0:
                print(
                    f"phase {phase.value} done: {binding} steps, {tokens / 1e6:.1f}M, hits {hit_mean:.3f}", flush=True
                )
                phase.value += 1
                hit_mean = 0.0
        else:
            step += 1
        if (step + binding) % 50 == 0 and (step > start or binding):
            now = time.time()
            print(
                f"phase {phase.value} step {step}/{stop} {tokens / 1e6:.2f}M padded {real / 1e6:.2f}M real "
                f"{now - began:.0f}s {(tokens - last_tokens) / (now - reported) / 1e3:.1f}k tok/s "
                f"lr {rate:.3f} loss {loss_mean:.3f} hits {hit_mean:.3f}",
                flush=True,
            )
            reported, last_tokens = now, tokens
            if now - last_save > args.save_every:
                save(step)
                last_save = time.time()
    save(step)
    if stop == args.steps:
        net.export(model, VOCABULARY, args.out)
    record = {
        "seed": args.seed,
        "init": "random" if args.from_scratch else args.init.name,
        "schedule": args.steps,
        "from_step": start,
        "to_step": step,
        "binding_steps": binding,
        "padded_tokens": tokens,
        "real_tokens": real,
        "seconds": round(time.time() - began),
        "device": args.device,
        "bf16": bf16,
        "threads": args.threads,
        "parameters": sum(p.numel() for p in model.parameters()) - 1,
        "vocabulary": len(VOCABULARY),
        "loss": round(loss_mean, 4),
    }
    (args.work / "training.json").write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(record), flush=True)
    for maker in makers:
        maker.terminate()


if __name__ == "__main__":
    main()
