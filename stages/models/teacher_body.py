"""Loading the model that others learn from, and whether it has their tokens."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tunemill.stages.artifacts import Model
from tunemill.stages.errors import SettingError, SourceError, UserError
from tunemill.stages.models.loading_body import is_quantized, load_causal_lm
from tunemill.stages.models.loss_body import LOGIT_BYTES
from tunemill.stages.models.own_code_body import check_without_code, use_code_of
from tunemill.stages.models.teacher import TEACHER, TeacherKeys, fault_of_teacher
from tunemill.stages.models.tokenizer_ids_body import check_same_tokenizer
from tunemill.stages.models.words_body import load_words

# Rows that a teacher reads at once, if their logits take no more than LOGIT_BYTES, twice in float32.
BATCH_ROWS = 16


def most_tokens(vocabulary: int) -> int:
    """Tokens that a teacher reads at once, padding too; a longer row stands alone."""
    return max(1, LOGIT_BYTES // (8 * vocabulary))


def likeliest_tokens(logits_nv: Tensor, width: int, tokens: int) -> tuple[Tensor, Tensor]:
    """[N, width] log-probabilities over the whole vocabulary and ids, of the likeliest of the first `tokens` tokens."""
    log_z_n1 = logits_nv.logsumexp(dim=-1, keepdim=True)
    top_nk, ids_nk = logits_nv[:, :tokens].topk(width, dim=-1)
    return top_nk - log_z_n1, ids_nk


def teacher_folder(config: TeacherKeys, upstream: Model | None) -> Path:
    """Where the teacher lies: a local folder, or what another node gives. Raises SourceError for no language model."""
    assert (config.teacher is None) != (upstream is None), "one of a folder and another node's model"
    folder = Path(config.teacher) if upstream is None else upstream.path  # type: ignore[arg-type]
    if reason := fault_of_teacher(folder):
        raise SourceError(f"{TEACHER}: {reason}.")
    return folder


def load_teacher(folder: Path, *, is_artifact: bool) -> Any:
    """The model as it is stored, on its device, in evaluation mode.

    Code of its own runs where it is an artifact, into which `trust_remote_code` has let it. Raises SourceError for a
    folder whose model needs such code.
    """
    if is_artifact:
        use_code_of(folder)
    else:
        check_without_code(folder)
    model = load_causal_lm(folder, dtype="auto")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return (model if is_quantized(folder) else model.to(device)).eval()


def shared_tokens(student: Path, teacher: Path, rows: int) -> int:
    """How many tokens both have: those with an id below it. `rows`: the teacher's embedding rows.

    Raises SettingError for a teacher with another tokenizer than the student's.
    """
    try:
        check_same_tokenizer(student, teacher)
    except UserError as error:
        raise SettingError(
            f"{TEACHER}: {teacher}: a student learns which of its own tokens are likely, so its teacher must have the "
            f"same tokenizer: {error}"
        ) from error
    vocabularies: list[dict[str, int]] = [load_words(folder).get_vocab() for folder in (student, teacher)]
    own, others = vocabularies
    different = sorted(token for token in others.keys() & own.keys() if own[token] != others[token])
    if different:
        token = different[0]
        raise SettingError(
            f"{TEACHER}: {teacher}: its token {token!r} has the id {others[token]}, and the student's {own[token]}. "
            f"Take a teacher with the student's tokenizer"
        )
    return min(rows, max(own.values()) + 1)
