"""ORPO: pairs of answers, no reference model."""

from functools import partial
from typing import Any

from transformers import AutoTokenizer

from tunemill.stages.artifacts import Model, PreferenceData
from tunemill.stages.report import Report, Workspace
from tunemill.stages.training.loop_body import train
from tunemill.stages.training.method import Batch, Counts, LossParts, Method, OwnLoss
from tunemill.stages.training.orpo.config import OrpoConfig
from tunemill.stages.training.orpo.loss import odds_ratio_loss, orpo_terms
from tunemill.stages.training.pairs_body import PairReader, collate_pairs, pair_examples
from tunemill.stages.training.score_body import mean_over


def orpo(
    config: OrpoConfig,
    base_model: Model,
    training_data: PreferenceData,
    evaluation_data: PreferenceData | None,
    out: Workspace,
    report: Report,
) -> None:
    """Train, resuming from the last complete checkpoint, and write the model or the adapter.

    Raises SettingError for what this machine or model cannot honour, UserError where the loss breaks down.
    """
    tokenizer = AutoTokenizer.from_pretrained(base_model.path, local_files_only=True)
    pairs = PairReader(training_data.rows, tokenizer, config.sequence_len)
    own_loss = OwnLoss(partial(loss_of, config), counts_of)
    held_out = training_data.held_out if evaluation_data is None else evaluation_data.rows
    score = None
    if held_out.exists():
        others = PairReader(held_out, tokenizer, config.sequence_len)
        score = partial(
            mean_over,
            own_loss=own_loss,
            collate=collate_pairs,
            read=others.read,
            count=len(others.numbers),
            batch_size=config.eval_batch_size or config.micro_batch_size,
        )
    method = Method(
        examples=pair_examples(pairs, config.seed, config.curriculum_sampling),
        collator=lambda _model: collate_pairs,
        check=lambda _model, _collator: None,
        own_loss=own_loss,
        score=score,
    )
    train(config, base_model, method, out, report)


def counts_of(batch: Batch) -> Counts:
    """Pairs, and tokens of the chosen sequences that are predicted from those before them."""
    pairs = len(batch["input_ids"]) // 2
    return {"pairs": pairs, "tokens": int(batch["attention_mask"][:pairs, 1:].sum())}


def loss_of(config: OrpoConfig, model: Any, batch: Batch) -> LossParts:
    """Likelihood over tokens, odds over pairs."""
    mask = batch["attention_mask"]
    logits = model(input_ids=batch["input_ids"], attention_mask=mask, use_cache=False).logits
    terms = orpo_terms(logits, batch["input_ids"], batch["labels"], mask)
    chosen, rejected = terms.chosen_b.detach(), terms.rejected_b.detach()
    nll = terms.nll_b.sum()
    return LossParts(
        totals={"tokens": nll, "pairs": odds_ratio_loss(terms.log_odds_b, config.orpo_alpha).sum()},
        metrics={
            "nll_loss": (nll.detach(), "tokens"),
            "log_odds_chosen": (terms.log_odds_b.detach().sum(), "pairs"),
            "rewards/accuracies": ((chosen > rejected).sum(), "pairs"),
            "rewards/margins": (config.orpo_alpha * (chosen - rejected).sum(), "pairs"),
        },
    )
