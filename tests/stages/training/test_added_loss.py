"""What a mixture of experts adds to the loss: its weight is the config's, whatever the cut, and padding has none."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from support.families import make_family, shake
from support.pairs import echoes, preference_data
from support.tiny_model import (
    VOCABULARY,
    Heard,
    evaluation_data,
    packs_of,
    random_rows,
    training_data,
    workspace,
)
from support.tiny_tokenizer import make_tokenizer
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    BambaConfig,
    BartConfig,
    BartForCausalLM,
    DogeConfig,
    PreTrainedModel,
)

from tunemill.stages.artifacts import EvaluationData, Model
from tunemill.stages.data.rows.pairs_body import PairReader
from tunemill.stages.errors import SettingError
from tunemill.stages.training.added_loss_body import (
    counts_padding,
    keep_mask_for_balance,
    loss_of_no_token,
    probe_loss,
)
from tunemill.stages.training.orpo.body import orpo
from tunemill.stages.training.orpo.config import OrpoConfig
from tunemill.stages.training.sft.body import sft
from tunemill.stages.training.sft.config import SftConfig

Row = tuple[list[int], list[int]]
WEIGHT = 0.7
# Too small a rate to move a weight: every step can be compared with the untrained model.
STILL: dict[str, Any] = {
    "optimizer": "sgd", "learning_rate": 1e-12, "max_grad_norm": 0, "num_epochs": 1, "logging_steps": 1,
}  # fmt: skip
EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2, "num_hidden_layers": 2}
# Ten rows in steps of four: the last step of the epoch is incomplete.
ROWS = random_rows(20, longest=24)
CUTS = [(4, 1), (2, 2), (1, 4)]


def write(folder: Path, model: PreTrainedModel) -> Model:
    model.save_pretrained(folder)
    make_tokenizer(folder)
    return Model(folder)


def mixture(folder: Path, family: str = "mixtral", **changes: Any) -> Model:
    settings = {"output_router_logits": True, "router_aux_loss_coef": WEIGHT, **EXPERTS, **changes}
    return write(folder, make_family(family, vocab_size=VOCABULARY, **settings))


def train_sft(
    folder: Path, base: Model, data: Any, held_out: EvaluationData | None = None, **settings: Any
) -> Heard:
    heard = Heard()
    config = SftConfig(**{**STILL, **settings})
    sft(
        config, base_model=base, training_data=data, evaluation_data=held_out, out=workspace(folder),
        report=heard.report,
    )  # fmt: skip
    return heard


def balance(router_logits: Sequence[torch.Tensor], chosen: int) -> torch.Tensor:
    """Fedus et al. 2021, equation 4, over the tokens of all layers: experts sum_e (share of tokens)(probability)."""
    logits = torch.cat(list(router_logits))
    probabilities = logits.softmax(-1)
    picked = torch.zeros_like(logits).scatter(1, probabilities.topk(chosen).indices, 1.0)
    return logits.shape[1] * (picked.mean(0) * probabilities.mean(0)).sum()


def alone(model: Any, rows: Sequence[Sequence[int]]) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Logits of each row in a batch of its own, and the balance over all their tokens."""
    outputs = [model(torch.tensor([ids]), output_router_logits=True) for ids in rows]
    return [out.logits[0] for out in outputs], balance(
        [layer for out in outputs for layer in out.router_logits], EXPERTS["num_experts_per_tok"]
    )


def cut(rows: Sequence[Any], size: int) -> list[Any]:
    return [rows[first : first + size] for first in range(0, len(rows), size)]


def steps_of(
    base: Model, packs: Sequence[Sequence[Row]], batch: int, accumulated: int
) -> list[tuple[float, float]]:
    """Loss and norm of the gradient of each step of an epoch, row by row."""
    model = AutoModelForCausalLM.from_pretrained(base.path).train()
    found = []
    for step in cut(packs, batch * accumulated):
        total, tokens, balances = torch.tensor(0.0), 0, []
        for micro_batch in cut(step, batch):
            rows = [row for pack in micro_batch for row in pack]
            logits, added = alone(model, [ids for ids, _ in rows])
            balances.append(added)
            for of_row, (_, labels) in zip(logits, rows, strict=True):
                targets = torch.tensor(labels[1:])
                total = total + torch.nn.functional.cross_entropy(of_row[:-1], targets, reduction="sum")
                tokens += int((targets != -100).sum())
        loss = total / tokens + WEIGHT * torch.stack(balances).mean()
        model.zero_grad()
        loss.backward()
        norm = torch.nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])
        found.append((float(loss), float(norm)))
    return found


LAYOUTS: dict[str, dict[str, Any]] = {
    "padded": {},
    "padded to sequence_len": {"pad_to_sequence_len": True, "sequence_len": 48},
    "in one line": {"batch_flattening": True, "attn_implementation": "sdpa", "pad_to_multiple_of": 32},
    "packed": {"sample_packing": True, "sequence_len": 48},
    "packed in one line": {"sample_packing": True, "sequence_len": 48, "multipack_real_batches": False},
}


RARE = sorted(LAYOUTS.keys() - {"padded", "packed"})


# GPT-OSS keeps rows apart by their positions in flash attention only.
@pytest.mark.parametrize(
    ("family", "layout"),
    [
        ("mixtral", "packed"),
        pytest.param("mixtral", "padded", marks=pytest.mark.slow),
        pytest.param("gpt_oss", "padded", marks=pytest.mark.slow),
        *(pytest.param("mixtral", name, marks=pytest.mark.exhaustive) for name in RARE),
    ],
)
def test_the_loss_of_a_step_is_that_of_a_plain_loop(tmp_path: Path, family: str, layout: str) -> None:
    settings = LAYOUTS[layout]
    base = mixture(tmp_path / "base", family)
    packs = packs_of(20, 2) if settings.get("sample_packing") else [[i] for i in range(10)]
    data = training_data(tmp_path / "rows", ROWS, packs)
    for batch, accumulated in CUTS:
        heard = train_sft(
            tmp_path / f"{batch}x{accumulated}", base, data, micro_batch_size=batch,
            gradient_accumulation_steps=accumulated, **settings,
        )  # fmt: skip
        expected = steps_of(base, [[ROWS[i] for i in pack] for pack in packs], batch, accumulated)
        assert len(expected) == 3
        assert list(heard.steps("loss").values()) == pytest.approx([loss for loss, _ in expected], rel=1e-5)
        assert list(heard.steps("grad_norm").values()) == pytest.approx(
            [norm for _, norm in expected], rel=1e-4
        )
    assert any("adds the balance of its experts" in event["message"] for event in heard.of("log"))


@pytest.mark.parametrize(
    "settings",
    [
        {"adapter": "lora", "lora_r": 4, "lora_alpha": 8, "lora_target_linear": True},
        pytest.param({"gradient_checkpointing": True}, marks=pytest.mark.exhaustive),
        pytest.param({"chunked_cross_entropy": True}, marks=pytest.mark.slow),
    ],
    ids=lambda settings: next(iter(settings)),
)
def test_adapter_checkpoints_and_kernels_keep_it(tmp_path: Path, settings: dict[str, Any]) -> None:
    base = mixture(tmp_path / "base")
    data = training_data(tmp_path / "rows", ROWS[:10])
    heard = train_sft(
        tmp_path / "out", base, data, micro_batch_size=1, gradient_accumulation_steps=4, **settings
    )
    expected = steps_of(base, [[row] for row in ROWS[:10]], 1, 4)
    assert list(heard.steps("loss").values()) == pytest.approx([loss for loss, _ in expected], rel=1e-5)
    assert ("linear_cross_entropy" in heard.summary["kernels"]) == ("chunked_cross_entropy" in settings)
    if "adapter" not in settings:
        norms = [norm for _, norm in expected]
        assert list(heard.steps("grad_norm").values()) == pytest.approx(norms, rel=1e-4)


@pytest.mark.slow
def test_without_a_weight_packed_rows_stay_apart(tmp_path: Path) -> None:
    """The config asks for the balance and gives it no weight."""
    data = training_data(tmp_path / "rows", ROWS, packs_of(20, 2))
    losses = []
    for number, changes in enumerate(({"output_router_logits": False}, {"router_aux_loss_coef": 0.0})):
        base = mixture(tmp_path / f"base{number}", **changes)
        heard = train_sft(tmp_path / str(number), base, data, **LAYOUTS["packed"], micro_batch_size=2)
        losses.append(heard.steps("loss"))
    assert losses[1] == losses[0]


@pytest.mark.slow
def test_held_out_losses_are_without_it(tmp_path: Path) -> None:
    data, held_out = (
        training_data(tmp_path / "rows", ROWS[:2]),
        evaluation_data(tmp_path / "held_out", ROWS[2:5]),
    )
    losses = [
        train_sft(
            tmp_path / str(asked), mixture(tmp_path / f"base{asked}", output_router_logits=asked), data, held_out,
            eval_steps=1,
        ).steps("eval_loss")
        for asked in (True, False)
    ]  # fmt: skip
    assert losses[0] == losses[1] and len(losses[0]) == 2


def train_orpo(folder: Path, base: Model, data: Any, **settings: Any) -> Heard:
    heard = Heard()
    config = OrpoConfig(**{**STILL, **settings})
    orpo(
        config,
        base_model=base,
        training_data=data,
        evaluation_data=None,
        out=workspace(folder),
        report=heard.report,
    )
    return heard


@pytest.mark.slow
@pytest.mark.parametrize(
    "adapter", [{}, {"adapter": "lora", "lora_r": 4, "lora_alpha": 8, "lora_target_linear": True}]
)
def test_a_method_with_its_own_loss_counts_it_once(tmp_path: Path, adapter: dict[str, Any]) -> None:
    base = mixture(tmp_path / "base")
    pairs = [(p * (1 + i % 3), c * (1 + i % 4), r) for i, (p, c, r) in enumerate(echoes("abcdefghij"))]
    data = preference_data(tmp_path / "pairs", pairs, held_out=pairs[:3])
    reader = PairReader(data.rows, AutoTokenizer.from_pretrained(base.path), 512)
    model = AutoModelForCausalLM.from_pretrained(base.path)
    plain = mixture(tmp_path / "plain", output_router_logits=False)
    settings = {**adapter, "eval_steps": 1}
    without = train_orpo(tmp_path / "without", plain, data, micro_batch_size=4, **settings)
    for batch, accumulated in CUTS:
        given = {"micro_batch_size": batch, "gradient_accumulation_steps": accumulated, **settings}
        heard = train_orpo(tmp_path / f"{batch}x{accumulated}", base, data, **given)
        for number, step in enumerate(cut(range(10), 4), 1):
            balances = []
            for micro_batch in cut(step, batch):
                read = [reader.read(place) for place in micro_batch]
                rows = [side[0].tolist() for pair in read for side in (pair.chosen, pair.rejected)]
                with torch.no_grad():
                    balances.append(alone(model, rows)[1])
            added = WEIGHT * float(torch.stack(balances).mean())
            assert heard.steps("loss")[number] == pytest.approx(
                without.steps("loss")[number] + added, rel=1e-5
            )
            assert heard.steps("nll_loss")[number] == pytest.approx(
                without.steps("nll_loss")[number], rel=1e-5
            )
        assert heard.steps("grad_norm")[1] != pytest.approx(without.steps("grad_norm")[1], rel=1e-3)
        assert heard.steps("eval_loss") == pytest.approx(without.steps("eval_loss"), rel=1e-6)


def test_a_checkpoint_through_which_it_has_no_gradient_is_refused(tmp_path: Path) -> None:
    base, data = mixture(tmp_path / "base"), training_data(tmp_path / "rows", ROWS[:4])
    for kwargs in ({"use_reentrant": True}, {"preserve_rng_state": True}):
        given = {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": kwargs}
        with pytest.raises(
            SettingError,
            match=r"use_reentrant: true, the balance .*, with overrides_of_model_config: {output_router_logits: false}",
        ):
            train_sft(tmp_path / "out", base, data, **given)


def bamba(**changes: Any) -> Any:
    torch.manual_seed(0)
    config = BambaConfig(
        vocab_size=VOCABULARY, hidden_size=16, intermediate_size=24, num_hidden_layers=1, attn_layer_indices=[0],
        num_attention_heads=4, num_key_value_heads=2, mamba_n_heads=4, mamba_d_head=8, pad_token_id=0, **changes,
    )  # fmt: skip
    return AutoModelForCausalLM.from_config(config)


def doge(**changes: Any) -> Any:
    """A mixture that balances other tokens than those of the attention mask."""
    torch.manual_seed(0)
    config = DogeConfig(
        vocab_size=VOCABULARY, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4,
        pad_token_id=0, is_moe=True, num_experts=4, num_experts_per_tok=1, **changes,
    )  # fmt: skip
    return AutoModelForCausalLM.from_config(config)


@pytest.mark.parametrize(
    ("make", "key", "weight"),
    [
        pytest.param(bamba, "z_loss_coefficient", {}, marks=pytest.mark.slow),
        (doge, "router_aux_loss_coef", {"output_router_logits": True}),
    ],
)
def test_what_counts_padding_is_refused(tmp_path: Path, make: Any, key: str, weight: dict[str, Any]) -> None:
    data = training_data(tmp_path / "rows", ROWS[:4])
    base = write(tmp_path / "base", make(**weight, **{key: 1e-3}))
    with pytest.raises(SettingError, match=rf"ForCausalLM adds .* overrides_of_model_config: {{{key}: 0}}"):
        train_sft(tmp_path / "out", base, data)
    heard = train_sft(tmp_path / "off", write(tmp_path / "plain", make(**weight, **{key: 0.0})), data)
    assert heard.steps("loss")


@pytest.mark.slow
def test_a_model_that_heeds_no_number_of_tokens_accumulates_nothing(tmp_path: Path) -> None:
    """BART's decoder takes any argument, and averages over each micro batch all the same."""
    torch.manual_seed(0)
    config = BartConfig(
        vocab_size=VOCABULARY, d_model=16, decoder_layers=1, decoder_attention_heads=2, decoder_ffn_dim=16,
        max_position_embeddings=64, is_decoder=True, is_encoder_decoder=False,
    )  # fmt: skip
    base = write(tmp_path / "base", BartForCausalLM(config))
    data = training_data(tmp_path / "rows", ROWS[:4])
    with pytest.raises(SettingError, match="gradient_accumulation_steps: BartForCausalLM averages the loss"):
        train_sft(tmp_path / "out", base, data, gradient_accumulation_steps=2)
    assert train_sft(tmp_path / "one", base, data).steps("loss")


# Every form of the call in transformers: what is a router, and whether the balance has its own name for things.
FAMILIES: dict[str, dict[str, Any]] = {
    "dbrx": {
        "d_model": 16,
        "n_heads": 4,
        "n_layers": 2,
        "attn_config": {"clip_qkv": 8.0, "rope_theta": 1e4, "kv_n_heads": 4},
        "ffn_config": {"ffn_hidden_size": 8, "moe_num_experts": 4, "moe_top_k": 2},
    },
    "ernie4_5_moe": {
        "moe_num_experts": 4,
        "moe_k": 2,
        "moe_intermediate_size": 8,
        "moe_layer_start_index": 0,
    },
    "gpt_oss": {"num_local_experts": 4, "num_experts_per_tok": 2, "head_dim": 4},
    "granitemoe": {"num_local_experts": 4},
    "jetmoe": {"num_local_experts": 4, "kv_channels": 4},
    "minimax": {"num_local_experts": 4, "layer_types": ["full_attention"] * 2, "head_dim": 4},
    "mixtral": {"num_local_experts": 4},
    "olmoe": {"num_experts": 4, "num_experts_per_tok": 2},
    "phimoe": {"num_local_experts": 4},
    "qwen2_moe": {"num_experts": 4, "moe_intermediate_size": 8, "num_experts_per_tok": 2},
    "qwen3_moe": {"num_experts": 4, "moe_intermediate_size": 8, "num_experts_per_tok": 2, "head_dim": 4},
}


@pytest.mark.parametrize("family", FAMILIES)
def test_of_every_mixture_padding_is_left_out(family: str) -> None:
    torch.manual_seed(0)
    sizes = {
        "vocab_size": 64, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 4, "pad_token_id": 0,
    }  # fmt: skip
    config = AutoConfig.for_model(family, **{**sizes, **FAMILIES[family]}, output_router_logits=True)
    model = AutoModelForCausalLM.from_config(config).eval()
    shake(model)
    found = probe_loss(model, True, None)
    assert found.adds and found.divides_by_items
    assert not counts_padding(model, None)
    keep_mask_for_balance(model)
    model.loss_function = loss_of_no_token
    rows = torch.randint(1, 64, (2, 6))

    def added(padding: int, **changes: Any) -> float:
        ids = torch.nn.functional.pad(rows, (0, 3), value=padding)
        mask = torch.tensor([1] * 6 + [0] * 3).expand(2, 9)
        given = {"input_ids": ids, "attention_mask": mask, "labels": ids, "use_cache": False, **changes}
        with torch.no_grad():
            return float(model(**given).loss)

    unpadded = added(0, input_ids=rows, attention_mask=torch.ones_like(rows), labels=rows)
    assert unpadded > 0
    positions = torch.tensor([*range(6), *range(3)]).expand(2, 9)
    for padding in (0, 9):
        assert added(padding) == pytest.approx(unpadded, rel=1e-5)
        assert added(padding, position_ids=positions) == pytest.approx(unpadded, rel=1e-5)
    assert added(9, attention_mask=None) != pytest.approx(unpadded, rel=1e-5)
