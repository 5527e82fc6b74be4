"""`benchmarks/finetune_gpu.py`: the memory of trainings by paper, beside the tensors of real ones."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "benchmarks" / "finetune_gpu.py"


def test_memory_by_paper_is_that_of_the_real_tensors():
    torch = pytest.importorskip("torch")
    pytest.importorskip("peft")
    done = subprocess.run([sys.executable, SCRIPT, "--quick"], capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    header, *rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert header["bench"] == "finetune_gpu"
    paper = {row["method"]: row for row in rows if row["target"] == "by paper"}
    assert paper["full float32"]["trained"] == 222_903_552  # T5-base
    assert paper["full float32"]["moments"] == 8 * 222_903_552
    assert paper["LoRA r=16 on 4 bits"]["weights"] < paper["LoRA r=16 on bfloat16"]["weights"]
    real = [row for row in rows if row["target"] == "cpu"]
    assert len(real) == 3
    for row in real:
        assert {name: row[name] for name in ("weights", "gradients", "moments")} == {
            name: row["by_paper"][name] for name in ("weights", "gradients", "moments")
        }
    gpu = [row for row in rows if row["target"] == "cuda"]
    assert torch.cuda.is_available() != any("skipped" in row for row in gpu)
