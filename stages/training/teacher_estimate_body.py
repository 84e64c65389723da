"""How much memory the pass of a teacher will take: its weights as they are stored, and its largest batch of rows.

B: rows, L: their tokens, N: all tokens, V: the teacher's vocabulary.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import AutoConfig, AutoModelForCausalLM

from tunemill.stages.artifacts import TrainingData
from tunemill.stages.data.rows.mapped import Rows
from tunemill.stages.errors import UserError
from tunemill.stages.memory import Above, Estimate, read_above, write_estimate
from tunemill.stages.models.quiet_body import be_quiet
from tunemill.stages.models.teacher import TEACHER, TeacherKeys, fault_of_teacher
from tunemill.stages.models.teacher_body import BATCH_ROWS, likeliest_tokens, most_tokens
from tunemill.stages.models.weights import tensors_of_model
from tunemill.stages.report import Report, Workspace
from tunemill.stages.training.accounts_body import ACTIVATIONS, LOGITS, WEIGHTS, Accounts
from tunemill.stages.training.batch_shapes_body import LENGTH
from tunemill.stages.training.shapes_body import capacity_of, from_shapes_alone, place, this_device


def estimate(config: TeacherKeys, out: Workspace, report: Report) -> None:
    """Estimate with what `out` holds of the nodes above. Raises UserError where the teacher is not there yet."""
    del report
    be_quiet()
    above = read_above(out.data)
    shape_bl, notes = largest_batch(above)
    write_estimate(out.data, measured(folder_of(config, above), shape_bl, notes))


def folder_of(config: TeacherKeys, above: Mapping[str, Above]) -> Path:
    """Where the teacher lies. Raises UserError where it does not, or is no language model."""
    given = config.teacher or above.get("teacher_logprobs.teacher_model", Above({})).folder
    if given is None:
        raise UserError(
            f"{TEACHER}: it is not on this machine yet. Run the pipeline with `--only teacher_files` first, which "
            f"fetches it, or the one that makes it."
        )
    if reason := fault_of_teacher(Path(given)):
        raise UserError(f"{TEACHER}: {reason}.")
    return Path(given)


def largest_batch(above: Mapping[str, Above]) -> tuple[tuple[int, int], list[str]]:
    """How many rows of how many tokens are read at once at most, were there no limit for logits; what was assumed."""
    data = above.get("training_data", Above({}))
    if data.folder is None:
        limit = int(data.settings.get("sequence_len") or LENGTH)
        return (BATCH_ROWS, limit), [
            f"the data is not prepared yet: every row is taken to have {limit} tokens"
        ]
    rows = Rows(TrainingData(Path(data.folder)).rows)
    return (min(BATCH_ROWS, len(rows)), int(rows.lengths.max(initial=1))), []


def measured(folder: Path, shape_bl: tuple[int, int], notes: list[str]) -> Estimate:
    """What a pass over the largest batch takes, of which every token is trained on."""
    stored = tensors_of_model(folder)
    model_config = AutoConfig.from_pretrained(folder)
    if hasattr(model_config, "quantization_config"):
        # Its weights are counted as they are stored, and what comes of them as without.
        del model_config.quantization_config
    device = this_device()
    with torch.device("meta"):
        model: Any = AutoModelForCausalLM.from_config(model_config, dtype=model_config.dtype).eval()
    vocabulary = model.get_output_embeddings().weight.shape[0]
    rows, length = shape_bl
    rows = max(1, min(rows, most_tokens(vocabulary) // length))
    with (
        FakeTensorMode(allow_non_fake_inputs=True),
        device,
        from_shapes_alone(model_config),
        torch.no_grad(),
    ):
        place(model)
        accounts = Accounts(vocabulary, rows * length)
        for tensor in (*model.parameters(), *model.buffers()):
            accounts.enter(tensor, WEIGHTS)
        with accounts:
            ids_bl, mask_bl = (torch.zeros((rows, length), dtype=torch.long) for _ in range(2))
            logits_blv = model(input_ids=ids_bl, attention_mask=mask_bl, use_cache=False).logits
            logits_nv = logits_blv.flatten(0, 1).clone().float()
            # What logsumexp makes of them on its way.
            torch.empty_like(logits_nv)
            likeliest_tokens(logits_nv, 1, vocabulary)
    name, capacity = capacity_of(device)
    weights = sum(tensor.size for tensor in stored.values())
    return Estimate(
        weights=weights,
        gradients=0,
        optimizer=0,
        activations=accounts.most[ACTIVATIONS],
        logits=accounts.most[LOGITS],
        total=weights + accounts.peak - accounts.most[WEIGHTS],
        device=name,
        capacity=capacity,
        notes=notes,
    )
