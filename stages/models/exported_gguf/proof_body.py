"""Proof of a file of a whole model: it holds the model, and llama.cpp says what the model says.

Everything is a function of the model's folder and of the file, and of nothing that writing it has computed.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoConfig

from tunemill.stages.errors import UserError
from tunemill.stages.models.agreement_body import Agreement, agreement
from tunemill.stages.models.exported_gguf.llama_cpp_body import PACKAGE, NotAskedError, ask, find_engine
from tunemill.stages.models.exported_gguf.proof_logits_body import (
    LARGEST_KL,
    check_kl,
    check_logits,
    fits,
    probes,
    reference_logits,
)
from tunemill.stages.models.exported_gguf.proof_values_body import check_values
from tunemill.stages.models.exported_gguf.proof_weights_body import check_types, check_weights
from tunemill.stages.models.exported_gguf.proof_words_body import Prompt, WordProof, check_words
from tunemill.stages.models.gguf_reading_body import GgufFile, read_file
from tunemill.stages.models.words_body import load_words
from tunemill.stages.report import Scalar

# What llama.cpp computes in numbers of 16 bits may cost, beside what the type costs: nats a token.
COMPUTED = 1e-2
NO_ENGINE = (
    f"llama.cpp itself has not read it: none of its bindings is here (npm install -g {PACKAGE}, or name the folder of "
    f"one in NODE_PATH)"
)
NO_MEMORY = "its logits were not compared: the memory that is free does not hold the model in float32"


def prove_model(folder: Path, path: Path, kind: str, scratch: Path) -> dict[str, Scalar]:
    """Figures for the manifest, each beside its bound; `proof`: full or partial, with what is missing.

    Raises UserError where the file is not the model in `folder`.
    """
    file = read_file(path)
    words = load_words(folder)
    weights = check_weights(folder, file, kind)
    check_types(file, kind)
    values = check_values(AutoConfig.from_pretrained(folder).to_dict(), file)
    spoken = check_words(words, folder, file)
    figures: dict[str, Scalar] = {
        "bytes_after": path.stat().st_size,
        "tensors_compared": weights.tensors,
        "values_compared": values,
        "largest_share_of_allowed_error": weights.used,
        "texts_with_equal_tokens": spoken.texts,
        "stop_tokens": ", ".join(words.convert_ids_to_tokens(list(spoken.ends))),
        "largest_kl": LARGEST_KL[kind],
    }
    missing = []
    vocabulary = len(file.says["tokenizer.ggml.tokens"])
    asked = probes(vocabulary, [prompt.ids for prompt in spoken.prompts])
    wanted: Sequence[Tensor] = ()
    if fits(folder):
        wanted = reference_logits(folder, asked)
        found = check_logits(file, kind, wanted, asked)
        figures |= told(found.agreement, "") | {"read_by": found.reader}
    else:
        missing.append(NO_MEMORY)
    engine = find_engine()
    if engine is None:
        missing.append(NO_ENGINE)
    else:
        try:
            figures |= prove_by_llama_cpp(engine, file, kind, spoken, wanted[1:], scratch)
        except NotAskedError as error:
            missing.append(str(error))
    if not spoken.prompts:
        missing.append("no prompt was compared: the tokenizer has no chat template")
    return {**figures, "proof": "partial" if missing else "full", "proof_missing": "; ".join(missing) or None}


def told(found: Agreement, by: str) -> dict[str, Scalar]:
    """How far a file is from its model, for the manifest."""
    return {f"{by}mean_kl": found.kl, f"{by}top1_agreement": found.top1, f"{by}tokens_compared": found.tokens}


def prove_by_llama_cpp(
    engine: Path, file: GgufFile, kind: str, spoken: WordProof, wanted: Sequence[Tensor], scratch: Path
) -> dict[str, Scalar]:
    """Raises UserError where llama.cpp makes other tokens of the prompts, does not stop, or says something else."""
    vocabulary = len(file.says["tokenizer.ggml.tokens"])
    prompts = spoken.prompts or (Prompt("Hello", ()),)
    texts = [prompt.text for prompt in prompts]
    heard = ask(engine, file.path, texts, scratch, vocabulary=vocabulary, ends=spoken.ends)
    if not all(heard.stops):
        raise UserError(f"exported gguf: llama.cpp does not stop at each of the tokens {spoken.ends}.")
    for prompt, text in zip(spoken.prompts, heard.texts, strict=False):
        if text.ids != list(prompt.ids):
            raise UserError(
                f"exported gguf: llama.cpp makes the tokens {text.ids[:8]}... of {prompt.text[:60]!r}, and training "
                f"{list(prompt.ids[:8])}.... Take gguf out of export, and report this."
            )
    if not (wanted and spoken.prompts):
        return {"llama_cpp": PACKAGE}
    pairs = [
        (torch.tensor(text.log_p_rv)[-len(logits_rv) :], logits_rv[-len(text.log_p_rv) :])
        for text, logits_rv in zip(heard.texts, wanted, strict=True)
    ]
    found = agreement(torch.cat([one for one, _ in pairs]), torch.cat([other for _, other in pairs]))
    check_kl(found.kl - COMPUTED, kind, "llama.cpp")
    return told(found, "llama_cpp_") | {"llama_cpp": PACKAGE}
