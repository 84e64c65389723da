"""vLLM itself, on a CPU, says of what is merged and exported what transformers says of the same folder."""

import json
import sys
from pathlib import Path

import pytest
import torch
from stages.models.merged.test_merge import make_adapter
from support.own_environment import ROOT, packages_with_vllm, python_with_llmcompressor, run_in
from support.tiny_model import make_model

SCHEMES = {"fp8-dynamic": {}, "w8a8": {}, "w4a16": {"group_size": 128}}
PROMPTS = [[5, 6, 7, 8], [100, 200, 300], [31, 41, 59, 26, 53], [271, 82]]
LONGEST = 8
# vLLM's product with weights in int4 has no float32, and the one with int8 is nearer to transformers' in bfloat16.
DTYPES = {"merged": "float32", "fp8-dynamic": "float32", "w8a8": "bfloat16", "w4a16": "bfloat16"}
# Nats. Both sum in other orders: measured 7e-6, 0.28, 0.26 and 0.063, and 1.3 between one model and another.
# Where what goes into products is rounded to 8 bits too, a sum beside the middle goes to either side.
BOUNDS = {"merged": 1e-3, "fp8-dynamic": 0.5, "w8a8": 0.5, "w4a16": 0.15}


@pytest.mark.slow
def test_vllm_says_what_transformers_says(tmp_path: Path) -> None:
    packages, python = packages_with_vllm(), python_with_llmcompressor()
    base = make_model(
        tmp_path / "base", dtype=torch.bfloat16, hidden_size=128, intermediate_size=256, num_attention_heads=4
    )
    make_adapter(tmp_path / "adapter", base)
    asked, told, said = (tmp_path / name for name in ("asked.json", "told.json", "said.json"))
    wanted = {"prompts": PROMPTS, "schemes": SCHEMES, "longest": LONGEST, "dtypes": DTYPES}
    asked.write_text(json.dumps(wanted))
    tests = ROOT / "tests"
    done = run_in(
        python, "-P", str(tests / "support" / "exports_for_vllm.py"), str(tmp_path), str(asked), str(told),
        path=str(tests),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    made = json.loads(told.read_text())
    asked.write_text(json.dumps({**wanted, "folders": made["folders"]}))
    done = run_in(
        sys.executable, "-P", str(tests / "support" / "vllm_reader.py"), str(asked), str(said), path=packages
    )
    assert done.returncode == 0, done.stderr[-4000:]
    answers = json.loads(said.read_text())
    assert answers.keys() == {"merged", *SCHEMES}
    for name, read in made["told"].items():
        compared = 0
        for ours, theirs in zip(read, answers[name], strict=True):
            for (token, log_p, ahead), (other, other_log_p) in zip(ours, theirs, strict=True):
                if token != other:
                    # Two that are as likely as one another; what follows them differs.
                    assert ahead <= 2 * BOUNDS[name], (name, token, other, ahead)
                    break
                assert other_log_p == pytest.approx(log_p, abs=BOUNDS[name]), name
                compared += 1
        assert compared >= len(PROMPTS) * LONGEST / 2, name
    apart = [one[0][1] - two[0][1] for one, two in zip(made["told"]["merged"], answers["w4a16"], strict=True)]
    assert max(map(abs, apart)) > max(BOUNDS.values()), "the bound tells one model from another"
