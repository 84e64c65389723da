"""Proof of the whole: what the file, read back, says of the next token, beside the model that it was made from."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tunemill.stages.errors import UserError
from tunemill.stages.models.agreement_body import Agreement, agreement
from tunemill.stages.models.gguf_loading_body import load_gguf
from tunemill.stages.models.gguf_reading_body import GgufFile
from tunemill.stages.models.loading_body import load_causal_lm
from tunemill.stages.models.probe_body import fixed_tokens, logits_of

# KL to the model in nats a token, in the mean, that a type may cost.
LARGEST_KL = {
    "f32": 1e-5, "f16": 1e-3, "bf16": 1e-2, "q8_0": 3e-2, "q6_k": 0.1, "q5_1": 0.25, "q5_0": 0.25, "q5_k_m": 0.25,
    "q5_k_s": 0.25, "q4_1": 0.8, "q4_0": 0.8, "q4_k_m": 0.8, "q4_k_s": 0.8, "mxfp4": 1.5, "q3_k_l": 1.5, "q3_k_m": 1.5,
    "q3_k_s": 2.0, "q2_k": 3.0,
}  # fmt: skip
# Of each text so many places are compared: its last.
PLACES = 256


@dataclass(frozen=True)
class LogitProof:
    """How far the file is from the model, and who read it."""

    agreement: Agreement
    reader: str


def probes(vocabulary: int, prompts: Sequence[Sequence[int]]) -> list[Tensor]:
    """[B, L] token ids: fixed ones, and prompts."""
    return [fixed_tokens(vocabulary), *(torch.tensor([list(ids)]) for ids in prompts)]


def fits(folder: Path) -> bool:
    """Whether the memory that is free holds the model in float32."""
    stored = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    lines = Path("/proc/meminfo").read_text().splitlines() if Path("/proc/meminfo").is_file() else []
    free = next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable")), None)
    return free is None or 2 * stored * 1.5 < free


def reference_logits(folder: Path, asked: Sequence[Tensor]) -> list[Tensor]:
    """[R, V] of the model itself, in float32, for each of `asked`."""
    return list(_rows(load_causal_lm(folder, dtype=torch.float32), asked))


def check_logits(file: GgufFile, kind: str, wanted: Sequence[Tensor], asked: Sequence[Tensor]) -> LogitProof:
    """Raises UserError where the file says something else than the model, by more than its type may cost."""
    model, reader = load_gguf(file)
    found = agreement(torch.cat(list(_rows(model, asked))), torch.cat(list(wanted)))
    check_kl(found.kl, kind, reader)
    return LogitProof(found, reader)


def check_kl(kl: float, kind: str, reader: str) -> None:
    """Raises UserError for more than a type may cost; what is no number too."""
    if not kl <= LARGEST_KL[kind]:
        raise UserError(
            f"exported gguf: read by {reader}, the file is {kl:.3g} nats a token from the model, more than the "
            f"{LARGEST_KL[kind]:g} that {kind} may cost. Export in a type with more bits, such as q8_0; if that is off "
            f"too, the file is not the model: report this."
        )


def _rows(model: Any, asked: Sequence[Tensor]) -> Iterator[Tensor]:
    model.eval()
    for ids in asked:
        logits_blv = logits_of(model, ids)
        yield logits_blv[:, -PLACES:].reshape(-1, logits_blv.shape[-1])
