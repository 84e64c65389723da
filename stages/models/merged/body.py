"""Folds a LoRA adapter into its base model and proves that the result computes the same."""

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from tunemill.stages.artifacts import Adapter, Model
from tunemill.stages.errors import UserError
from tunemill.stages.models.files import copy_tokenizer
from tunemill.stages.models.merged.adapter_body import Change, read_changes
from tunemill.stages.models.merged.config import MergedConfig
from tunemill.stages.models.merged.fold_body import fold, untie
from tunemill.stages.models.merged.proof_body import prove
from tunemill.stages.models.quiet_body import be_quiet
from tunemill.stages.models.weights import tensors_of_model
from tunemill.stages.report import Report, Workspace


def merge(_config: MergedConfig, base_model: Model, adapter: Adapter, out: Workspace, report: Report) -> None:
    """Write the merged model: the base's files with W + scaling * B @ A where the adapter says so.

    Raises UserError where the adapter cannot be folded, changes nothing, or the merged model computes other logits
    than base and adapter do.
    """
    be_quiet()
    changes = read_changes(adapter.path)
    used = sum(len(change.names) for change in changes.values())
    embedding, head, tied = _tied_tensors(base_model)
    head_change = changes.pop(head, None) if tied else None
    changed = fold(base_model.path, changes, out.data, report)
    if tied and _comes_apart(changes.get(embedding), head_change):
        report.log(f"{head} and {embedding} are one tensor in the base and two in the merged model")
        untie(base_model.path, out.data, embedding, head, head_change)
        changed += 1
    copy_tokenizer(adapter.path, out.data)
    if not changed:
        raise UserError(
            "merged: the adapter changes no tensor of the base: it was not trained, or its changes are smaller than "
            "the base's rounding. Train longer or with a higher learning_rate."
        )
    proof = prove(base_model.path, adapter.path, out.data)
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
    report.summary(
        changed_tensors=changed,
        adapter_tensors_used=used,
        max_abs_logit_difference=proof.difference,
        logit_tolerance=proof.tolerance,
        max_abs_logit_change=proof.change,
    )


def _tied_tensors(base_model: Model) -> tuple[str, str, bool]:
    """Names of the embeddings' and the head's weights, and whether the base stores them as one."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(base_model.path))
    names = {id(module): name for name, module in model.named_modules()}
    embedding = f"{names[id(model.get_input_embeddings())]}.weight"
    output = model.get_output_embeddings()
    head = f"{names[id(output)]}.weight" if output is not None else ""
    stored = tensors_of_model(base_model.path)
    return embedding, head, bool(head) and head not in stored and embedding in stored


def _comes_apart(embedding: Change | None, head: Change | None) -> bool:
    if embedding is None and head is None:
        return False
    if embedding is None or head is None or embedding.replacement is None or head.replacement is None:
        return True
    return not torch.equal(embedding.replacement, head.replacement)
