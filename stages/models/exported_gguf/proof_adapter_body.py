"""Proof of a file of an adapter: what it adds to each weight is what PEFT adds, and llama.cpp says what PEFT says."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor

from tunemill.stages.errors import UserError
from tunemill.stages.models.agreement_body import Agreement, agreement
from tunemill.stages.models.exported_gguf.llama_cpp_body import PACKAGE, NotAskedError, ask, find_engine
from tunemill.stages.models.exported_gguf.proof_body import COMPUTED, NO_ENGINE, told
from tunemill.stages.models.exported_gguf.proof_logits_body import LARGEST_KL, check_kl, fits
from tunemill.stages.models.exported_gguf.spoken_body import rendered_prompts
from tunemill.stages.models.gguf_loading_body import IN_PAIRS, apart, source_name
from tunemill.stages.models.gguf_reading_body import GgufFile, read_file
from tunemill.stages.models.loading_body import load_causal_lm
from tunemill.stages.models.probe_body import logits_of
from tunemill.stages.models.rounded_body import with_adapter
from tunemill.stages.models.words_body import load_words
from tunemill.stages.report import Scalar

# How far a change may be off, as a share of the largest of its weight: two factors, each rounded to the type.
SHARES = {"f32": 1e-5, "f16": 2.0**-9, "bf16": 2.0**-6}
NO_BASE = "nothing of it was compared: the memory that is free does not hold its base in float32"


def prove_adapter(
    base: Path, adapter: Path, path: Path, kind: str, write_base: Callable[[Path], None], scratch: Path
) -> dict[str, Scalar]:
    """Figures for the manifest, as those of a whole model. `write_base` makes the file that llama.cpp loads it beside.

    Raises UserError where the file is not the adapter.
    """
    file = read_file(path)
    if not fits(base):
        # Without the base PEFT says nothing of its adapter.
        return {"proof": "partial", "proof_missing": NO_BASE}
    model = with_adapter(load_causal_lm(base, dtype=torch.float32), adapter).eval()
    compared, off = check_factors(model, file, kind)
    figures: dict[str, Scalar] = {
        "modules_compared": compared,
        "largest_share_of_change_off": off,
        "largest_share_allowed": SHARES[kind],
        "bytes_after": path.stat().st_size,
    }
    engine = find_engine()
    words = load_words(base)
    prompts = rendered_prompts(words)
    if engine is None or not prompts:
        missing = (
            NO_ENGINE if engine is None else "no prompt was compared: the tokenizer has no chat template"
        )
        return {**figures, "proof": "partial", "proof_missing": missing}
    whole = scratch / "base.gguf"
    write_base(whole)
    vocabulary = model.get_base_model().config.vocab_size
    try:
        heard = ask(engine, whole, prompts, scratch, vocabulary=vocabulary, adapter=path)
    except NotAskedError as error:
        return {**figures, "proof": "partial", "proof_missing": str(error)}
    finally:
        whole.unlink()
    wanted = [logits_of(model, torch.tensor([text.ids]))[0][-len(text.log_p_rv) :] for text in heard.texts]
    found = _agreement([torch.tensor(text.log_p_rv) for text in heard.texts], wanted)
    with model.disable_adapter():
        plain = [logits_of(model, torch.tensor([text.ids]))[0][-len(text.log_p_rv) :] for text in heard.texts]
    moved = _agreement(plain, wanted).kl
    check_kl(found.kl - COMPUTED, kind, "llama.cpp")
    return {
        **figures,
        **told(found, "llama_cpp_"),
        "largest_kl": LARGEST_KL[kind],
        "mean_kl_without_adapter": moved,
        "llama_cpp": PACKAGE,
        "proof": "full",
        "proof_missing": None,
    }


def check_factors(model: Any, file: GgufFile, kind: str) -> tuple[int, float]:
    """How many modules the adapter changes, and how far what the file adds is from what PEFT adds, as a share of it.

    Raises UserError for a module without its change, one with another, and an adapter that changes nothing.
    """
    family = str(file.says["general.architecture"])
    alpha = float(file.says["adapter.lora.alpha"])
    names = {name.rpartition(".lora_")[0] for name in file.tensors}
    there = {source_name(name, family).removesuffix(".weight"): name for name in names}
    modules = {
        name.removeprefix("base_model.model."): module
        for name, module in model.named_modules()
        if isinstance(module, LoraLayer)
    }
    if lost := sorted(modules.keys() ^ there.keys()):
        where = (
            "the adapter, and not in the file" if lost[0] in modules else "the file, and not in the adapter"
        )
        raise _wrong(f"{lost[0]} is changed in {where}")
    worst, largest = 0.0, 0.0
    for name, module in modules.items():
        wanted = module.get_delta_weight("default").detach().double()
        first, second = (torch.tensor(file.numbers(f"{there[name]}.lora_{part}")).double() for part in "ab")
        found = second @ first * (alpha / first.shape[0])
        if family in IN_PAIRS and name.endswith(("q_proj", "k_proj")):
            heads = (
                model.config.num_attention_heads
                if name.endswith("q_proj")
                else model.config.num_key_value_heads
            )
            found = torch.tensor(apart(found.numpy(), heads))
        size = float(wanted.abs().max())
        largest = max(largest, size)
        off = float((found - wanted).abs().max()) / size if size else float(found.abs().max() > 0)
        if not off <= SHARES[kind]:
            raise _wrong(
                f"{name}: what the file adds is {off:.3g} of the largest change away from what the adapter adds, more "
                f"than {SHARES[kind]:.3g}"
            )
        worst = max(worst, off)
    if largest == 0.0:
        raise UserError(
            "exported gguf: the adapter changes nothing: it was not trained. Train longer, or with a higher rate."
        )
    return len(modules), worst


def _agreement(found: list[Tensor], wanted: list[Tensor]) -> Agreement:
    return agreement(torch.cat(found), torch.cat(wanted))


def _wrong(what: str) -> UserError:
    return UserError(f"exported gguf: {what}. The file is not the adapter; export it again, and report this.")
