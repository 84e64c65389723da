"""Models with a table of positions: what does not fit is refused, what fits one by one is trained."""

from pathlib import Path
from typing import Any

import pytest
import torch
from support.pairs import preference_data
from support.tiny_model import Heard, evaluation_data, make_model, training_data, workspace
from support.tiny_tokenizer import make_tokenizer
from transformers import AutoModelForCausalLM, CodeGenConfig, GPT2Config, OPTConfig

from tunemill.stages.artifacts import EvaluationReport, Model
from tunemill.stages.errors import UserError
from tunemill.stages.evaluation.answers.body import evaluate
from tunemill.stages.evaluation.answers.config import EvaluationConfig
from tunemill.stages.models.positions_body import table_of_positions
from tunemill.stages.training.orpo.body import orpo
from tunemill.stages.training.orpo.config import OrpoConfig
from tunemill.stages.training.sft.body import sft
from tunemill.stages.training.sft.config import SftConfig

TABLE = 16
GPT2: dict[str, Any] = {
    "n_positions": TABLE, "n_embd": 32, "n_layer": 1, "n_head": 2, "vocab_size": 416, "bos_token_id": 2,
    "eos_token_id": 2, "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0,
}  # fmt: skip


def gpt2(folder: Path) -> Path:
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(GPT2Config(**GPT2)).save_pretrained(folder)
    return make_tokenizer(folder)


def row(length: int) -> tuple[list[int], list[int]]:
    ids = [5 + place % 7 for place in range(length)]
    return ids, [-100, *ids[1:]]


def train(
    folder: Path, lengths: list[int], packs: Any = None, held_out: Any = None, **settings: Any
) -> Heard:
    base = gpt2(folder / "base")
    config = SftConfig(learning_rate=0.001, max_steps=2, bf16=False, **settings)
    data = training_data(folder / "rows", [row(length) for length in lengths], packs)
    scored = None if held_out is None else evaluation_data(folder / "held", [row(n) for n in held_out])
    heard = Heard()
    sft(config, Model(base), data, scored, workspace(folder), heard.report)
    return heard


@pytest.mark.parametrize("padded", [True, False])
def test_rows_that_fit_train_whatever_sequence_len_says(tmp_path: Path, padded: bool) -> None:
    heard = train(tmp_path, [TABLE, 9, 12], sequence_len=64, pad_to_sequence_len=padded)
    assert len(heard.steps("loss")) == 2


def test_packed_rows_that_fit_one_by_one_train_and_padding_changes_nothing(tmp_path: Path) -> None:
    losses = [
        train(
            tmp_path / str(padded), [TABLE, 9, TABLE, 12], [[0, 1], [2, 3]],
            sequence_len=64, sample_packing=True, pad_to_sequence_len=padded,
        ).steps("loss")
        for padded in (True, False)
    ]  # fmt: skip
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


@pytest.mark.parametrize(
    ("lengths", "held_out", "which"),
    [([9, TABLE + 1], None, "training data"), ([9], [3, TABLE + 1], "held-out rows")],
)
def test_a_row_that_does_not_fit_is_refused_before_the_first_step(
    tmp_path: Path, lengths: list[int], held_out: Any, which: str
) -> None:
    with pytest.raises(
        UserError, match=rf"{which}: the longest row has 17 tokens, .* a table of 16 positions"
    ):
        train(tmp_path, lengths, held_out=held_out, sequence_len=64, eval_steps=1)


def test_a_model_that_computes_positions_is_only_said_to_be_made_for_less(tmp_path: Path) -> None:
    base = make_model(tmp_path / "base", max_position_embeddings=8)
    heard = Heard()
    config = SftConfig(learning_rate=0.001, max_steps=1, bf16=False)
    sft(
        config,
        Model(base),
        training_data(tmp_path / "rows", [row(9)]),
        None,
        workspace(tmp_path),
        heard.report,
    )
    assert any("9 tokens, and the model was made for 8" in str(event) for event in heard.of("log"))


def score(folder: Path, rows: Any) -> tuple[Heard, EvaluationReport]:
    out, heard = workspace(folder), Heard()
    data = evaluation_data(folder / "held", rows)
    evaluate(EvaluationConfig(), Model(gpt2(folder / "base")), None, data, out, heard.report)
    return heard, EvaluationReport(out.data)


def test_answers_end_where_the_positions_do(tmp_path: Path) -> None:
    # A prompt of 14 tokens and an answer of one: 2 * 1 + 8 new tokens are asked for, and two have a position.
    near = ([5] * 15, [-100] * 14 + [5])
    short = ([6] * 4, [-100] * 3 + [6])
    heard, _ = score(tmp_path, [near, short, near])
    assert heard.summary["answers"] == 3


def test_held_out_rows_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"evaluation data: the longest row has 17 tokens, .* a table of 16"):
        score(tmp_path, [row(TABLE + 1)])


@pytest.mark.parametrize(
    "config",
    [
        GPT2Config(**GPT2),
        OPTConfig(
            max_position_embeddings=TABLE, hidden_size=16, word_embed_proj_dim=16, ffn_dim=16, num_hidden_layers=1,
            num_attention_heads=2, vocab_size=64,
        ),
        CodeGenConfig(n_positions=TABLE, n_ctx=TABLE, n_embd=16, n_layer=1, n_head=4, rotary_dim=4, vocab_size=64),
    ],
)  # fmt: skip
def test_tables_of_every_kind_are_found(config: Any) -> None:
    model = AutoModelForCausalLM.from_config(config)
    assert table_of_positions(model) == TABLE
    model(input_ids=torch.ones(1, TABLE, dtype=torch.long))
    with pytest.raises((IndexError, RuntimeError)):
        model(input_ids=torch.ones(1, TABLE + 1, dtype=torch.long))


@pytest.mark.parametrize("which", ["training data", "held-out pairs"])
def test_pairs_that_do_not_fit_are_refused_before_the_first_step(tmp_path: Path, which: str) -> None:
    short, long = [("a", "b", "c")], [("a", "b" * 3 * TABLE, "c")]
    rows = (long, short) if which == "training data" else (short, long)
    data = preference_data(tmp_path / "pairs", rows[0], held_out=rows[1])
    heard = Heard()
    config = OrpoConfig(learning_rate=0.001, max_steps=1, bf16=False, sequence_len=512)
    with pytest.raises(UserError, match=f"{which}.*positions|positions.*{which}"):
        orpo(config, Model(gpt2(tmp_path / "base")), data, None, workspace(tmp_path), heard.report)
    assert not heard.steps("loss")
