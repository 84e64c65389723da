"""Blocks of completions inside of documents: how they are drawn, what the frozen model makes of them, and their loss.

Shapes: N completions of each anchor, A anchors, G tokens of a block, Q tokens of a document with its blocks.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tunemill.kernels.functions.selective_log_softmax import selective_log_softmax
from tunemill.stages.errors import SettingError
from tunemill.stages.models.answers_body import takes_logits_to_keep
from tunemill.stages.training.ebft.config import EbftConfig
from tunemill.stages.training.ebft.documents_body import Document
from tunemill.stages.training.ebft.features_body import features_of, layers_of, pooled
from tunemill.stages.training.method import Batch, LossParts
from tunemill.stages.training.online.policy_body import asked
from tunemill.stages.training.online.transformers_engine_body import Draws

# Counted: tokens of blocks, blocks, and tokens of documents that the cross entropy is of.
TOKENS, BLOCKS, LEARNED = "tokens", "blocks", "document_tokens"
# Logits of a block among others may differ by so much from those of the block alone: rounding, and no other token's.
CLOSE = 2e-2


def arguments_of(document: Document, ids_nq: Tensor) -> dict[str, Any]:
    """What a model is called with."""
    device = ids_nq.device
    return {
        "input_ids": ids_nq,
        "attention_mask": document.mask.to(device)[None, None].expand(len(ids_nq), 1, -1, -1),
        "position_ids": document.positions.to(device)[None].expand(len(ids_nq), -1),
        "use_cache": False,
    }


def logits_at(model: Any, document: Document, ids_nq: Tensor, places_k: Tensor) -> Tensor:
    """[N, K, V] what follows these places of the sequences."""
    arguments = arguments_of(document, ids_nq)
    places_k = places_k.to(ids_nq.device)
    if takes_logits_to_keep(model):
        return model(**arguments, logits_to_keep=places_k).logits
    return model(**arguments).logits[:, places_k]


def drawn(
    config: EbftConfig, model: Any, document: Document, seeds_an: Sequence[Sequence[int]]
) -> tuple[Tensor, Tensor]:
    """[N, A, G] tokens of blocks, and the log-probability of each; a seed for each completion of each anchor."""
    count, blocks = len(seeds_an[0]), len(document.starts)
    seeds = [seeds_an[block][number] for number in range(count) for block in range(blocks)]
    with asked(model) as plain:
        device = next(plain.parameters()).device
        empty = document.sequence([[0] * document.generated] * blocks)
        ids_nq = torch.tensor([empty] * count, device=device)
        draws = Draws(config.strided_sampling, [()] * len(seeds), seeds, device)
        blocks_nag = ids_nq[:, len(document.ids) :].view(count, blocks, document.generated)
        for step in range(document.generated):
            logits_nav = logits_at(plain, document, ids_nq, document.predicting[:, step])
            logits_bv = logits_nav.flatten(0, 1)
            blocks_nag[..., step] = draws(ids_nq, logits_bv).argmax(-1).view(count, blocks)
        log_p_nag = torch.stack(draws.log_p, dim=-1).view(count, blocks, document.generated)
    return blocks_nag, log_p_nag


def block_features(config: EbftConfig, frozen: Any, document: Document, ids_nq: Tensor) -> Tensor:
    """[A, N, D] what the frozen model makes of each block."""
    states = frozen(**arguments_of(document, ids_nq), output_hidden_states=True).hidden_states
    chosen = [
        states[layer][:, len(document.ids) :] for layer in layers_of(config.feature_layers, len(states) - 1)
    ]
    states_ngd = features_of(chosen).unflatten(1, (len(document.starts), document.generated)).flatten(0, 1)
    none_n = torch.zeros(len(states_ngd), dtype=torch.long, device=ids_nq.device)
    features_nd = pooled(states_ngd, torch.ones_like(states_ngd[..., 0]).long(), config.embed_method, none_n)
    return features_nd.unflatten(0, (len(ids_nq), len(document.starts))).transpose(0, 1)


def block_loss(
    config: EbftConfig, model: Any, document: Document, ids_nq: Tensor, advantages_an: Tensor
) -> tuple[Tensor, Tensor]:
    """The policy's loss, -A log p of each token of blocks, and the cross entropy of the document; both as sums."""
    blocks_k = document.predicting.flatten()
    own_l = torch.arange(document.answer - 1, len(document.ids) - 1) if config.ce_coef else blocks_k[:0]
    logits_nkv = logits_at(model, document, ids_nq, torch.cat([blocks_k, own_l]))
    tokens_nk = ids_nq[:, len(document.ids) :]
    log_p_nk = selective_log_softmax(logits_nkv[:, : len(blocks_k)] / config.strided_temperature, tokens_nk)
    log_p_nag = log_p_nk.view(len(ids_nq), *document.predicting.shape)
    policy = -(advantages_an.T[..., None] * log_p_nag).sum()
    if not config.ce_coef:
        return policy, policy.detach() * 0
    # The document sees no block, so what is said of it is the same in every sequence.
    answer_l = ids_nq[:1, document.answer : len(document.ids)]
    return policy, -selective_log_softmax(logits_nkv[:1, len(blocks_k) :], answer_l).sum()


def loss_of(config: EbftConfig, model: Any, batch: Batch) -> LossParts:
    """The loss of a micro batch of documents as sums, and what is shown of it."""
    policy, surprise = torch.zeros(()), torch.zeros(())
    for document, ids_nq, advantages_an in batch["documents"]:
        one, other = block_loss(config, model, document, ids_nq, advantages_an)
        policy, surprise = policy.to(one.device) + one, surprise.to(one.device) + other
    shown: dict[str, tuple[Any, str]] = {name: (total, BLOCKS) for name, total in batch["figures"].items()}
    shown["rl_loss"] = (policy.detach(), TOKENS)
    totals = {TOKENS: config.rl_coef * policy}
    if config.ce_coef:
        totals[LEARNED] = config.ce_coef * surprise
        shown["ce_loss"] = (surprise.detach(), LEARNED)
    return LossParts(totals, shown)


def counts(batch: Batch) -> dict[str, int]:
    """How much of everything a micro batch has."""
    documents = [(document, ids_nq) for document, ids_nq, _ in batch["documents"]]
    blocks = sum(len(document.starts) * len(ids_nq) for document, ids_nq in documents)
    return {
        BLOCKS: blocks,
        TOKENS: sum(len(one.starts) * one.generated * len(ids_nq) for one, ids_nq in documents),
        LEARNED: sum(len(one.ids) - one.answer for one, _ in documents),
    }


def check_masked(document: Document, model: Any) -> None:
    """Raise SettingError for a model in which a block sees what it must not: the mask is not all that it attends by."""
    with asked(model) as plain:
        device = next(plain.parameters()).device
        own, known = document.own_blocks, plain.config.get_text_config().vocab_size
        # The last block stays: what no mask keeps apart sees what stands before it.
        others = [*([(token + 1) % known for token in block] for block in own[:-1]), own[-1]]
        ids_nq = torch.tensor([document.sequence(blocks) for blocks in (own, others)], device=device)
        length = ids_nq.shape[1]
        last_ngv = logits_at(plain, document, ids_nq, torch.arange(length - document.generated, length))
        plainly = plain(input_ids=ids_nq[:1, : len(document.ids)], use_cache=False).logits[0, -1]
        among = logits_at(plain, document, ids_nq[:1], torch.tensor([len(document.ids) - 1]))[0, 0]
    scale = float(plainly.float().std()) + 1e-6
    apart = max(float((last_ngv[0] - last_ngv[1]).abs().max()), float((plainly - among).abs().max()))
    if apart > CLOSE * max(1.0, scale):
        raise SettingError(
            f"ebft.mode: strided: {type(plain).__name__} does not attend by a mask alone: what a block says changes "
            f"with the other blocks by {apart:.3g}. Use ebft.mode: structured"
        )
