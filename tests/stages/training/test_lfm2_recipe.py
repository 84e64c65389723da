"""The recipe of LFM2's own guide to Axolotl, as it is written there but for the model, which is a tiny one."""

import json
from pathlib import Path

import pytest
from support.trained_families import make_folder

from tunemill.pipelines.assets.run import run_pipeline
from tunemill.pipelines.graph.load import load_pipeline
from tunemill.resources.launcher import in_this_process
from tunemill.resources.store import Store

RECIPE = """
# ---- Model ----
base_model: model
adapter: lora                  # LoRA; omit for full fine-tune

# ---- Data ----
datasets:
  - path: data/lfm2_sft.jsonl
    type: chat_template
    field_messages: messages

# ---- Training ----
output_dir: ./outputs/lfm2-2.6b-sft-lora
num_epochs: 2
learning_rate: 2e-4
lr_scheduler: cosine
warmup_steps: 50
micro_batch_size: 2
gradient_accumulation_steps: 16
seed: 42

# ---- Sequence & packing ----
sequence_len: 4096
sample_packing: true
pad_to_sequence_len: true

# ---- Precision & memory ----
bf16: true
flash_attention: true
gradient_checkpointing: true

# ---- LoRA hyperparams ----
lora_r: 16
lora_alpha: 32
lora_dropout: 0.05
# lora_target_modules: [q_proj,k_proj,v_proj,o_proj,gate_proj,up_proj,down_proj]  # override only if needed
"""
ROWS = [
    [("user", "Write a short haiku about LFM2."), ("assistant", "Silent layers learn")],
    [("system", "You are a helpful assistant."), ("user", "Summarize Axolotl."), ("assistant", "A toolkit.")],
]


@pytest.mark.slow
def test_it_runs_to_a_merged_model(tmp_path: Path) -> None:
    make_folder("lfm2", tmp_path / "model")
    (tmp_path / "data").mkdir()
    rows = [{"messages": [{"role": role, "content": text} for role, text in row]} for row in ROWS]
    (tmp_path / "data/lfm2_sft.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows * 4))
    path = tmp_path / "lfm2.yml"
    path.write_text(RECIPE)
    assert {note.path for note in load_pipeline(path).notes} <= {"flash_attention"}, "without a GPU, a note"
    pipeline = load_pipeline(path, ["flash_attention=false"])
    made = run_pipeline(pipeline, Store(tmp_path / ".tunemill"), launch=in_this_process)
    assert {item.state for item in made} == {"computed"}
    config = json.loads((tmp_path / "outputs/lfm2-2.6b-sft-lora/trained/adapter_config.json").read_text())
    assert {"in_proj", "out_proj", "q_proj", "w1"} <= {
        name.split(".")[-1] for name in config["target_modules"]
    }
