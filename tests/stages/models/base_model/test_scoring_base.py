"""A base that scores keeps its head, whatever changes beside it."""

from pathlib import Path

import torch
from safetensors.torch import load_file
from support.tiny_model import Heard, make_model, workspace

from tunemill.stages.artifacts import Tokenizer
from tunemill.stages.models.base_model.body import base_model
from tunemill.stages.models.base_model.config import BaseModelConfig
from tunemill.stages.models.heads import Head
from tunemill.stages.models.heads_body import head_of_folder
from tunemill.stages.models.loading_body import load_model


def test_a_head_that_scores_is_kept_when_files_are_copied_and_when_embeddings_grow(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "model")
    made = load_model(folder, Head("sequence", 1), dtype=torch.float32)
    made.save_pretrained(folder)
    for name, settings in {"copied": {}, "longer": {"resize_token_embeddings_to_32x": True}}.items():
        config = BaseModelConfig(base_model=str(folder), **settings)
        assert not list(config.faults())
        out = workspace(tmp_path / name)
        base_model(config, Tokenizer(folder), None, out, Heard().report)
        found = load_file(out.data / "model.safetensors")
        assert head_of_folder(out.data) == Head("sequence", 1) and "lm_head.weight" not in found
        assert torch.equal(found["score.weight"], made.score.weight)
