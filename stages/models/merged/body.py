"""Folds a LoRA adapter into its base model and proves that the result computes the same."""

from collections.abc import Mapping
from dataclasses import replace

import torch

from tunemill.stages.artifacts import Adapter, Model, QuantizedBase
from tunemill.stages.errors import UserError
from tunemill.stages.models.dequantize_body import StoredBase
from tunemill.stages.models.files import copy_tokenizer
from tunemill.stages.models.joined_experts_body import JoinedExperts
from tunemill.stages.models.loading_body import is_quantized
from tunemill.stages.models.merged.adapter_body import read_changes
from tunemill.stages.models.merged.change_body import Change, Replaced, Rows
from tunemill.stages.models.merged.config import MergedConfig
from tunemill.stages.models.merged.fold_body import Folding, fold
from tunemill.stages.models.merged.loaded_body import merge_loaded
from tunemill.stages.models.merged.names_body import Names, names_of
from tunemill.stages.models.merged.proof_body import Proof, prove
from tunemill.stages.models.own_code_body import use_code_of
from tunemill.stages.models.quiet_body import be_quiet
from tunemill.stages.models.ties_body import twice_stored, untie_config
from tunemill.stages.models.tokenizer_ids_body import check_same_tokenizer
from tunemill.stages.report import Report, Workspace


def merge(
    config: MergedConfig,
    base_model: Model,
    quantized_base: QuantizedBase | None,
    adapter: Adapter,
    out: Workspace,
    report: Report,
) -> None:
    """Write the merged model: the base's files with W + scaling * B @ A where the adapter says so. With
    `memory_efficient` W is what a quantized base holds, in the type of the base before.

    Raises UserError where the adapter cannot be folded, changes nothing, or the merged model computes other logits
    than base and adapter do.
    """
    be_quiet()
    use_code_of(base_model.path)
    if is_quantized(base_model.path):
        quantized_base = None
    onto_quantized = quantized_base is not None and config.merge_method == "memory_efficient"
    frozen = None
    if quantized_base is not None and onto_quantized:
        frozen = JoinedExperts(quantized_base.path, rounded_experts=config.quantize_moe_experts)
    changed, used = _write(base_model, frozen, adapter, out, report)
    copy_tokenizer(adapter.path, out.data)
    check_same_tokenizer(adapter.path, out.data)
    if not changed:
        raise UserError(
            "merged: the adapter changes no tensor of the base: it was not trained, or its changes are smaller than "
            "the base's rounding. Train longer or with a higher learning_rate."
        )
    quantized = None if quantized_base is None else quantized_base.path
    proof = prove(base_model.path, quantized, adapter.path, out.data, onto_quantized=onto_quantized)
    if not proof.difference <= proof.tolerance:
        raise UserError(
            f"merged: its logits differ from those of base and adapter by {proof.difference:g}, more than "
            f"{proof.tolerance:g}. The adapter cannot be folded into this base; serve it beside the base instead."
        )
    if proof.difference > proof.change / 2:
        report.log(
            f"the adapter's effect is lost in the rounding of the base's type: it moves a logit by {proof.change:g} at "
            f"most, and rounding the merged weights by {proof.difference:g}. Serve it beside the base, or train longer."
        )
    if quantized is not None:
        _tell_distances(proof, onto_quantized, report)
    report.summary(
        changed_tensors=changed,
        adapter_tensors_used=used,
        max_abs_logit_difference=proof.difference,
        logit_tolerance=proof.tolerance,
        max_abs_logit_change=proof.change,
        layer_difference=proof.layer_difference,
        layer_tolerance=proof.layer_tolerance,
        tensors_compared=proof.tensors,
    )


def _write(
    base_model: Model, frozen: StoredBase | None, adapter: Adapter, out: Workspace, report: Report
) -> tuple[int, int]:
    """The merged weights. Returns how many tensors came out different, and how many of the adapter's are in them."""
    names = names_of(base_model.path)
    changes = read_changes(adapter.path, names)
    # Of a base that came quantized there are no other files that the adapter could be folded into.
    if is_quantized(base_model.path) or changes is None or not _in_files(changes, names):
        return merge_loaded(base_model.path, frozen, adapter.path, out.data)
    used = sum(len(change.names) for change in changes.values())
    return _fold(frozen, changes, names, out, report), used


def _tell_distances(proof: Proof, onto_quantized: bool, report: Report) -> None:
    """What merging costs beside a quantized base: from what was trained, and from the adapter on the base before."""
    assert proof.from_trained is not None
    assert proof.from_unquantized is not None
    where = (
        "as it is quantized (merge_method: memory_efficient)" if onto_quantized else "before it was quantized"
    )
    report.log(
        f"merged into the base {where}: a logit is at most {proof.from_trained:g} from the one that was trained, and "
        f"{proof.from_unquantized:g} from that of the adapter on the base before it was quantized. The adapter itself "
        f"moves one by {proof.change:g}."
    )
    if proof.from_trained > proof.change:
        report.log(
            "what was quantized moves logits more than the adapter does, and it was trained on the quantized base: use "
            "merge_method: memory_efficient, which keeps what was trained"
        )
    report.summary(
        max_abs_logit_difference_from_trained=proof.from_trained,
        max_abs_logit_difference_from_unquantized=proof.from_unquantized,
    )


def _in_files(changes: Mapping[str, Change], names: Names) -> bool:
    """Whether all that is changed is read from the base's files: a new head is not, nor is one expert of several."""
    return all(names.weights.group(name) is not None for name in changes)


def _fold(
    frozen: StoredBase | None, changes: dict[str, Change], names: Names, out: Workspace, report: Report
) -> int:
    """Tensor by tensor. Returns how many came out different."""
    base = names.weights.source.folder
    embedding = changes.get(names.embedding)
    if isinstance(embedding, Rows) and not names.tied and twice_stored(base, names.skeleton) == "equal":
        # PEFT trains rows of tied embeddings once for both.
        changes.setdefault(names.head, replace(embedding, names=()))
    head = changes.pop(names.head, None) if names.tied else None
    own_head = names.tied and _comes_apart(embedding, head)
    if own_head:
        report.log(
            f"{names.head} and {names.embedding} are one tensor in the base and two in the merged model"
        )
    changed = fold(Folding(names, frozen, changes, own_head, head), out.data, report)
    if own_head:
        untie_config(out.data / "config.json")
    if not names.tied and twice_stored(out.data, names.skeleton) == "apart":
        report.log(
            f"{names.head} and {names.embedding} differ in the merged model, so its config no longer ties them"
        )
        untie_config(out.data / "config.json")
    return changed


def _comes_apart(embedding: Change | None, head: Change | None) -> bool:
    match embedding, head:
        case None, None:
            return False
        case Rows(), None:
            return False
        case Replaced(), Replaced():
            return not torch.equal(embedding.replacement, head.replacement)
    return True
