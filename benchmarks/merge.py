"""What folding an adapter in takes, beside PEFT and Axolotl. Prints one Markdown table from one run.

`python benchmarks/merge.py [--layers N] [--axolotl PYTHON] [--rounds N]` writes a random Llama of 1.1B parameters (22
layers, 2048 wide) in bfloat16, in shards of 500 MB, and an adapter of rank 16 on every linear module. Each merge is a
process of its own: seconds with its imports, and its peak resident memory. `--axolotl` names the Python of an
environment where Axolotl is installed; without it that line is left out. Rounds go from one to the next. Of each merge
the least wall and CPU time and the largest peak are shown; beside other work, CPU times are what can be compared.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

MAKE = """
import sys, torch
from pathlib import Path
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, LlamaConfig
sys.path.insert(0, {tests!r})
from support.tiny_tokenizer import make_tokenizer
torch.manual_seed(0)
config = LlamaConfig(
    vocab_size=32000, hidden_size=2048, intermediate_size=5632, num_hidden_layers={layers}, num_attention_heads=32,
    num_key_value_heads=4, tie_word_embeddings=False, dtype=torch.bfloat16, eos_token_id=2, pad_token_id=0,
)
model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
model.save_pretrained({base!r}, max_shard_size="500MB")
make_tokenizer(Path({base!r}))
linear = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
adapted = get_peft_model(model, LoraConfig(r=16, lora_alpha=32, target_modules=linear, task_type="CAUSAL_LM"))
for name, parameter in adapted.named_parameters():
    if "lora_B" in name:
        torch.nn.init.normal_(parameter, std=0.01)
adapted.save_pretrained({adapter!r})
make_tokenizer(Path({adapter!r}))
"""

OURS = """
import sys
from pathlib import Path
from tunemill.stages.artifacts import Adapter, Model
from tunemill.stages.models.merged.adapter_body import read_changes
from tunemill.stages.models.merged.body import merge
from tunemill.stages.models.merged.config import MergedConfig
from tunemill.stages.models.merged.fold_body import Folding, fold
from tunemill.stages.models.merged.names_body import names_of
from tunemill.stages.report import Report, Workspace
base, adapter, out = Path({base!r}), Path({adapter!r}), Path({out!r})
(out / "data").mkdir(parents=True)
(out / "logs").mkdir()
report = Report(lambda event: None)
if {whole}:
    places = Workspace(out / "data", out / "checkpoints", out / "logs")
    merge(MergedConfig(), Model(base), None, Adapter(adapter), places, report)
else:
    names = names_of(base)
    fold(Folding(names, None, read_changes(adapter, names)), out / "data", report)
"""

PEFT = """
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM
model = AutoModelForCausalLM.from_pretrained({base!r}, dtype="auto")
PeftModel.from_pretrained(model, {adapter!r}).merge_and_unload().save_pretrained({out!r}, max_shard_size="500MB")
"""

AXOLOTL = """
base_model: {base}
datasets: [{{path: none, type: alpaca}}]
adapter: lora
lora_model_dir: {adapter}
lora_r: 16
lora_alpha: 32
lora_target_linear: true
output_dir: {out}
micro_batch_size: 1
gradient_accumulation_steps: 1
learning_rate: 0.001
sequence_len: 512
bf16: true
"""


@dataclass(frozen=True)
class Measured:
    """Wall seconds, CPU seconds and peak resident MiB of a process."""

    seconds: float
    cpu: float
    peak: float


def measure(command: list[str], environment: dict[str, str]) -> Measured | None:
    """Run a command; None where it fails."""
    started = time.perf_counter()
    process = subprocess.Popen(
        command, env={**os.environ, **environment}, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    assert process.stderr is not None
    said = process.stderr.read()
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        print(said.decode(errors="replace")[-2000:], file=sys.stderr)
        return None
    return Measured(time.perf_counter() - started, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)


def sides(folder: Path, axolotl: str | None) -> dict[str, Callable[[Path], list[str]]]:
    """What is measured -> the command that merges into a folder."""
    base, adapter = str(folder / "base"), str(folder / "adapter")

    def python(text: str, **more: object) -> Callable[[Path], list[str]]:
        return lambda out: [
            sys.executable,
            "-c",
            text.format(base=base, adapter=adapter, out=str(out), **more),
        ]

    found = {
        "Tunemill, folding alone": python(OURS, whole=False),
        "Tunemill, the whole stage with its proof": python(OURS, whole=True),
        "PEFT, `merge_and_unload` and saved": python(PEFT),
    }

    def of_axolotl(out: Path) -> list[str]:
        config = folder / "axolotl.yml"
        config.write_text(AXOLOTL.format(base=base, adapter=adapter, out=out))
        return [str(axolotl), "-m", "axolotl.cli.main", "merge-lora", str(config)]

    return {**found, "Axolotl, `merge-lora`": of_axolotl} if axolotl else found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=22, help="22 layers are 1.1B parameters")
    parser.add_argument("--axolotl", help="the Python of an environment with Axolotl")
    parser.add_argument("--rounds", type=int, default=1)
    asked = parser.parse_args()
    environment = {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "AXOLOTL_DO_NOT_TRACK": "1"}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make = MAKE.format(
            tests=str(ROOT / "tests"),
            layers=asked.layers,
            base=str(folder / "base"),
            adapter=str(folder / "adapter"),
        )
        subprocess.run(
            [sys.executable, "-c", make], env={**os.environ, **environment}, check=True, capture_output=True
        )
        runs: dict[str, list[Measured]] = {}
        for number in range(asked.rounds):
            for what, command in sides(folder, asked.axolotl).items():
                out = folder / f"out{number}"
                if (measured := measure(command(out), environment)) is not None:
                    runs.setdefault(what, []).append(measured)
                    print(json.dumps([what, measured.seconds, measured.cpu, measured.peak]), file=sys.stderr)
                shutil.rmtree(out, ignore_errors=True)
    print(f"{asked.layers} layers, {os.cpu_count()} cores, {asked.rounds} rounds\n")
    print("| merge | wall s | CPU s | peak resident MiB |\n|---|---|---|---|")
    for what, times in runs.items():
        seconds, cpu = min(run.seconds for run in times), min(run.cpu for run in times)
        print(f"| {what} | {seconds:.1f} | {cpu:.1f} | {max(run.peak for run in times):.0f} |")


if __name__ == "__main__":
    main()
