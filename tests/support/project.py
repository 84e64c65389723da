"""A small real project in a folder: two datasets, held-out rows, a tokenizer, a tiny base model, one YAML."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from support.tiny_tokenizer import make_tokenizer
from tunemill.pipelines.assets.run import run_pipeline
from tunemill.pipelines.graph.load import load_pipeline
from tunemill.pipelines.graph.plan import Planned, make_plan
from tunemill.pipelines.run.finished import Finished
from tunemill.pipelines.run.look import Look, look
from tunemill.resources.launcher import Launcher, in_this_process
from tunemill.resources.store import Published, Store

MODEL_CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "tie_word_embeddings": False,
}

CONFIG: dict[str, Any] = {
    "base_model": "model",
    "reinit_weights": True,
    "chat_template": "tokenizer_default",
    "datasets": [
        {"path": "data/sums.jsonl", "type": "chat_template"},
        {"path": "data/echoes.jsonl", "type": "chat_template"},
    ],
    "test_datasets": [{"path": "data/held_out.jsonl", "type": "chat_template"}],
    "sequence_len": 128,
    "sample_packing": True,
    "adapter": "lora",
    "lora_r": 4,
    "lora_alpha": 8,
    "lora_target_linear": True,
    "micro_batch_size": 1,
    "gradient_accumulation_steps": 1,
    "max_steps": 4,
    "learning_rate": 0.001,
    "bf16": False,
    "quantization": {"weight_dtype": "int8"},
    "eval_max_new_tokens": 4,
    "output_dir": "outputs",
    "dataset_prepared_path": "prepared",
}


@dataclass(frozen=True)
class Project:
    """A folder with `pipeline.yml`, and its store."""

    folder: Path
    state: Path

    @property
    def yaml(self) -> Path:
        return self.folder / "pipeline.yml"

    @property
    def store(self) -> Store:
        return Store(self.state)

    def config(self) -> dict[str, Any]:
        return yaml.safe_load(self.yaml.read_text())

    def edit(self, **keys: Any) -> None:
        """Set top-level keys of the YAML."""
        self.yaml.write_text(yaml.safe_dump({**self.config(), **keys}, sort_keys=False))

    def plan(self, *overrides: str) -> dict[str, Planned]:
        return {item.node.name: item for item in make_plan(load_pipeline(self.yaml, overrides), self.store)}

    def run(
        self, *overrides: str, launch: Launcher = in_this_process, refresh: Sequence[str] = (), **more: Any
    ) -> dict[str, Finished]:
        finished = run_pipeline(
            load_pipeline(self.yaml, overrides), self.store, refresh=refresh, launch=launch, **more
        )
        return {item.node: item for item in finished}


def look_with_figures(project: Project, node: str, **figures: Any) -> Look:
    """A look at the project whose `node` has other figures than it came to."""
    seen = look(load_pipeline(project.yaml), project.store)
    found = seen.artifacts[node]
    other = {**found.manifest, "metrics": {**found.manifest["metrics"], **figures}}
    return replace(seen, artifacts={**seen.artifacts, node: Published(found.folder, other)})


def nodes_in_state(finished: dict[str, Any], *states: str) -> set[str]:
    """The names of the nodes whose state is one of these."""
    return {name for name, item in finished.items() if item.state in states}


def chat_row(question: str, answer: str) -> str:
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return json.dumps({"messages": messages}) + "\n"


def make_project(folder: Path, state: Path | None = None, **keys: Any) -> Project:
    """Write the project; `keys` replace top-level keys of the YAML, None takes one out."""
    data = folder / "data"
    data.mkdir(parents=True)
    (data / "sums.jsonl").write_text(
        "".join(chat_row(f"{a} + {b}", str(a + b)) for a in range(5) for b in range(4))
    )
    (data / "echoes.jsonl").write_text("".join(chat_row(f"say {word}", word) for word in "abcdefghij"))
    (data / "held_out.jsonl").write_text("".join(chat_row(f"{a} + 7", str(a + 7)) for a in range(4)))
    tokenizer = make_tokenizer(folder / "model")
    vocabulary = json.loads((tokenizer / "tokenizer.json").read_text())
    ids = [*vocabulary["model"]["vocab"].values(), *(token["id"] for token in vocabulary["added_tokens"])]
    (folder / "model" / "config.json").write_text(json.dumps({**MODEL_CONFIG, "vocab_size": max(ids) + 1}))
    config = {key: value for key, value in {**CONFIG, **keys}.items() if value is not None}
    if "adapter" not in config:
        config = {key: value for key, value in config.items() if not key.startswith("lora_")}
    (folder / "pipeline.yml").write_text(yaml.safe_dump(config, sort_keys=False))
    return Project(folder, state or folder / ".tunemill")
