"""Small pipelines of each kind as dictionaries, and what is said of them without the files that they name."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tunemill.pipelines.config.problems import ConfigError, Problem
from tunemill.pipelines.graph.load import load_pipeline
from tunemill.pipelines.graph.nodes import Pipeline

Config = dict[str, Any]

SFT = {
    "base_model": "model",
    "chat_template": "chatml",
    "learning_rate": 0.001,
    "datasets": [{"path": "rows.jsonl", "type": "chat_template"}],
}
DPO = {**SFT, "rl": "dpo", "datasets": [{"path": "rows.jsonl", "type": "chatml.intel"}]}
ORPO = {**DPO, "rl": "orpo"}
KTO = {**DPO, "rl": "kto"}
PRETRAINING = {
    "base_model": "model",
    "learning_rate": 0.001,
    "max_steps": 10,
    "pretraining_dataset": [{"path": "rows.jsonl", "type": "pretrain"}],
}
LORA = {"adapter": "lora", "lora_r": 8, "lora_alpha": 16, "lora_target_linear": True}
HELD_OUT = {"test_datasets": [{"path": "held_out.jsonl", "type": "chat_template"}]}


def load(folder: Path, config: Config) -> Pipeline:
    """The pipeline, from `x.yml` in the folder."""
    path = folder / "x.yml"
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    return load_pipeline(path)


def provide(path: Path) -> Path:
    """Put files where a YAML names some, so that `check` finds them; returns the YAML's path."""
    for node in load_pipeline(path).nodes:
        for name in (Path(name) for names in node.sources.values() for name in names if "://" not in name):
            if name.exists():
                continue
            (name.parent if name.suffix else name).mkdir(parents=True, exist_ok=True)
            if name.suffix:
                name.write_text("{}\n")
            else:
                for file in ("config.json", "tokenizer.json", "model.safetensors"):
                    (name / file).write_text("{}")
    return path


def problems(folder: Path, config: Config) -> list[Problem]:
    """What is wrong with it: each problem once, with its key, which no line says twice."""
    with pytest.raises(ConfigError) as caught:
        load(folder, config)
    found = [problem for problem in caught.value.problems if not problem.is_note]
    assert len({(p.path, p.message) for p in found}) == len(found), "each problem once"
    for line in caught.value.lines():
        key = line.split(": ")[1]
        assert len(re.findall(rf"(?<![\w{{]){re.escape(key)}: ", line)) <= 1, "the key is said twice"
    assert all(problem.path for problem in found), "every problem has a key"
    return found


def entry(config: Config, group: str, **keys: Any) -> Config:
    """The same with more keys in the first entry of a list."""
    return {**config, group: [{**config[group][0], **keys}]}
