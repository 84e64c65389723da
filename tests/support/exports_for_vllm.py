"""Run by an interpreter that has llmcompressor: a model merged and exported, and what transformers makes of each.

`exports_for_vllm.py FOLDER ASKED.json TOLD.json`. FOLDER has `base` and `adapter`. Told: name -> for each prompt
[[id, log-probability, how far ahead of the second it is]], each token the likeliest.
"""

import json
import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

from support.tiny_model import Heard, evaluation_data, random_rows, training_data, workspace
from tunemill.stages.artifacts import Adapter, Model
from tunemill.stages.models.exported_compressed.body import export
from tunemill.stages.models.exported_compressed.config import ExportedCompressedConfig
from tunemill.stages.models.merged.body import merge
from tunemill.stages.models.merged.config import MergedConfig


def likeliest(model, ids, longest):
    """Greedy tokens after `ids`."""
    found = []
    for _ in range(longest):
        log_p_v = model(torch.tensor([ids])).logits[0, -1].float().log_softmax(-1)
        (first, second), (token, _) = (one.tolist() for one in log_p_v.topk(2))
        found.append((token, first, first - second))
        ids = [*ids, token]
    return found


def main():
    """Merge, export, read."""
    folder = Path(sys.argv[1])
    asked = json.loads(Path(sys.argv[2]).read_text())
    out = workspace(folder / "merged")
    merge(MergedConfig(), Model(folder / "base"), None, Adapter(folder / "adapter"), out, Heard().report)
    folders = {"merged": out.data}
    rows = training_data(folder / "rows", random_rows(60, longest=24))
    held_out = evaluation_data(folder / "held_out", random_rows(20, seed=7, longest=24))
    for scheme, more in asked["schemes"].items():
        config = ExportedCompressedConfig(scheme=scheme, calibration_rows=24, **more)
        made = workspace(folder / scheme)
        export(config, Model(folders["merged"]), made, Heard().report, rows, held_out)
        folders[scheme] = made.data
    told = {}
    with torch.no_grad():
        for name, path in folders.items():
            model = AutoModelForCausalLM.from_pretrained(path, dtype=asked["dtypes"][name]).eval()
            told[name] = [likeliest(model, ids, asked["longest"]) for ids in asked["prompts"]]
    folders = {name: str(path) for name, path in folders.items()}
    Path(sys.argv[3]).write_text(json.dumps({"folders": folders, "told": told}))


if __name__ == "__main__":
    main()
