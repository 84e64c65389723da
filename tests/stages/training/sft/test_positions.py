"""PoSE: positions of a row jump, no further than the context, and the model is trained at them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from support.tiny_model import Heard, make_model, random_rows, training_data, workspace
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel, MambaConfig, MambaForCausalLM

from tunemill.stages.artifacts import Model
from tunemill.stages.errors import SettingError
from tunemill.stages.training.sft.body import sft
from tunemill.stages.training.sft.config import SftConfig
from tunemill.stages.training.sft.positions import jumping_positions

POSE: dict[str, Any] = {"use_pose": True, "pose_max_context_len": 200, "sequence_len": 64}


def of(ids: list[int], **settings: Any) -> list[int]:
    given = {"context": 100, "chunks": 2, "before": (), "seed": 1, **settings}
    return jumping_positions(np.asarray(ids, dtype=np.int32), **given).tolist()


def jumps(positions: list[int]) -> list[int]:
    """The places at which positions do not count on."""
    return [place for place in range(1, len(positions)) if positions[place] != positions[place - 1] + 1]


def test_equal_parts_jump() -> None:
    found = [of(list(range(12)), chunks=3, seed=seed) for seed in range(50)]
    assert all(positions[:4] == [0, 1, 2, 3] for positions in found)
    assert {place for positions in found for place in jumps(positions)} == {4, 8}
    assert all(positions[-1] < 100 for positions in found)
    assert max(positions[-1] for positions in found) > 80, "the context is made use of"
    assert len({tuple(positions) for positions in found}) > 40


def test_parts_begin_before_tokens() -> None:
    ids = [7, 7, 1, 2, 7, 3, 4, 7, 5]
    places = {place for seed in range(50) for place in jumps(of(ids, before=(7,), seed=seed))}
    assert places == {4, 7}, "the first part has two tokens at least"
    assert of(ids, before=(99,)) == list(range(9))


def test_it_follows_from_the_seed_and_the_row_alone() -> None:
    assert of([1, 2, 3, 4]) == of([1, 2, 3, 4]) != of([1, 2, 3, 5])
    assert of([1, 2, 3, 4], seed=2) != of([1, 2, 3, 4])
    assert of([1, 2, 3, 4], context=4) == [0, 1, 2, 3]
    assert of([1]) == [0]


def train(folder: Path, base: Path, rows: Any, **settings: Any) -> Heard:
    heard = Heard()
    config = SftConfig(
        **{"learning_rate": 0.1, "lr_scheduler": "constant", "optimizer": "sgd", "max_grad_norm": 0,
           "logging_steps": 1, "save_strategy": "no", "num_epochs": 1, "micro_batch_size": 2, **settings}
    )  # fmt: skip
    data = training_data(folder / "rows", rows)
    sft(config, Model(base), data, None, workspace(folder), heard.report)
    return heard


def test_the_loss_is_that_of_a_plain_loop_at_these_positions(tmp_path: Path) -> None:
    rows, base = random_rows(6), make_model(tmp_path / "base")
    heard = train(tmp_path / "out", base, rows, **POSE)
    model = AutoModelForCausalLM.from_pretrained(base)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for step in range(3):
        total, tokens = torch.tensor(0.0), 0
        for ids, labels in rows[2 * step : 2 * step + 2]:
            places = torch.tensor([of(ids, context=200, seed=42)])
            logits = model(torch.tensor([ids]), position_ids=places).logits[0, :-1]
            targets = torch.tensor(labels[1:])
            total = total + torch.nn.functional.cross_entropy(logits, targets, reduction="sum")
            tokens += int((targets != -100).sum())
        (total / tokens).backward()
        assert heard.steps("loss")[step + 1] == pytest.approx(float(total / tokens), abs=1e-5)
        optimizer.step()
        optimizer.zero_grad()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sample_packing": True}, "a jump of the positions is the border of a row. Remove sample_packing"),
        ({"batch_flattening": True}, "Remove batch_flattening"),
        ({"pose_max_context_len": 32}, "32 is less than sequence_len: 64"),
    ],
)
def test_what_cannot_be_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        SftConfig(learning_rate=1, **{**POSE, **settings})


def test_models_that_cannot_be_told_positions_are_refused(tmp_path: Path) -> None:
    MambaForCausalLM(MambaConfig(vocab_size=416, hidden_size=16, num_hidden_layers=1)).save_pretrained(
        tmp_path / "m"
    )
    with pytest.raises(SettingError, match="use_pose: MambaForCausalLM takes no positions"):
        train(tmp_path / "mamba", tmp_path / "m", random_rows(2), **POSE)
    learned = GPT2Config(vocab_size=416, n_embd=16, n_layer=1, n_head=2, n_positions=128)
    GPT2LMHeadModel(learned).save_pretrained(tmp_path / "g")
    with pytest.raises(
        SettingError, match=r"pose_max_context_len: 200: GPT2LMHeadModel has a table of 128 positions"
    ):
        train(tmp_path / "gpt2", tmp_path / "g", random_rows(2), **POSE)


def test_settings_without_it_are_noted() -> None:
    alone = SftConfig(
        learning_rate=1, pose_num_chunks=3, pose_max_context_len=99, pose_split_on_token_ids=[3]
    )
    assert {item.key for item in alone.idle()} == {
        "pose_num_chunks",
        "pose_max_context_len",
        "pose_split_on_token_ids",
    }
    both = SftConfig(learning_rate=1, use_pose=True, pose_num_chunks=3, pose_split_on_token_ids=[3])
    assert [item.key for item in both.idle()] == ["pose_num_chunks"]
