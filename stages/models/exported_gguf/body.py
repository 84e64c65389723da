"""Writes the file for llama.cpp, and looks at what was really written."""

import re
import subprocess
from pathlib import Path
from typing import Any

import gguf
from transformers import AutoConfig

from tunemill.stages.artifacts import Adapter, Model
from tunemill.stages.errors import SettingError, UserError
from tunemill.stages.models.exported_gguf.config import LLAMA_QUANTIZE, ExportedGgufConfig
from tunemill.stages.models.exported_gguf.factors_body import add_adapter, plan_adapter
from tunemill.stages.models.exported_gguf.file_body import write
from tunemill.stages.models.exported_gguf.proof_adapter_body import prove_adapter
from tunemill.stages.models.exported_gguf.proof_body import prove_model
from tunemill.stages.models.exported_gguf.tensors_body import plan
from tunemill.stages.models.exported_gguf.values_body import add_values, reach
from tunemill.stages.models.exported_gguf.vocabulary_body import (
    Vocabulary,
    add_vocabulary,
    composes,
    read_vocabulary,
)
from tunemill.stages.models.files import copy_file, copy_tokenizer, forget_versions
from tunemill.stages.models.generation_body import GENERATION_FILE
from tunemill.stages.models.gguf_families import Family, family_of, fault_of_export
from tunemill.stages.models.quiet_body import be_quiet
from tunemill.stages.models.weights import tensors_of_model
from tunemill.stages.models.words_body import load_words
from tunemill.stages.report import Report, Workspace

# How llama-quantize names itself: since v0.5.0, and before.
VERSION = re.compile(r"^version: .+|build = .+", re.M)


def export(
    config: ExportedGgufConfig, model: Model, adapter: Adapter | None, out: Workspace, report: Report
) -> None:
    """Write one `.gguf` file, and beside that of a whole model its tokenizer and settings.

    Raises SettingError for a model that llama.cpp does not compute, UserError where what was written is not the model.
    """
    be_quiet()
    stored = AutoConfig.from_pretrained(model.path).to_dict()
    if reason := fault_of_export(stored):
        raise SettingError(f"{reason}.")
    family = family_of(stored)
    assert family is not None, "fault_of_export has let it pass"
    words = load_words(model.path)
    vocabulary = read_vocabulary(words, model.path, stored["vocab_size"])
    if composes(words):
        report.log(
            "llama.cpp does not bring texts into NFC, as the tokenizer does: what is not in it has other tokens"
        )
    if adapter is not None:
        export_adapter(config.type, model.path, adapter.path, stored, family, vocabulary, out, report)
        return
    path = out.data / f"model-{config.type}.gguf"
    if config.made_by_llama_cpp:
        whole = out.checkpoints / "whole.gguf"
        # Nothing is rounded before llama.cpp rounds it.
        dtypes = {tensor.dtype for tensor in tensors_of_model(model.path).values()}
        between = "bf16" if dtypes == {"BF16"} else "f32"
        write_model(whole, model.path, stored, family, vocabulary, between, report)
        report.summary(llama_quantize=quantize(whole, path, config.type))
        whole.unlink()
    else:
        write_model(path, model.path, stored, family, vocabulary, config.type, report)
    for name in ("config.json", GENERATION_FILE):
        if (model.path / name).is_file():
            copy_file(model.path / name, out.data / name)
    forget_versions(out.data)
    copy_tokenizer(model.path, out.data)
    proof = prove_model(model.path, path, config.type, out.checkpoints)
    before = sum(tensor.size for tensor in tensors_of_model(model.path).values())
    tell_reach(stored, report)
    report.summary(
        bytes_before=before,
        pre_tokenizer=vocabulary.split.name,
        pre_tokenizer_recognised_by=vocabulary.split.by,
        **proof,
    )
    if proof["proof"] == "partial":
        report.log(f"proof: partial; {proof['proof_missing']}")


def export_adapter(
    file_type: str,
    base: Path,
    adapter: Path,
    stored: dict[str, Any],
    family: Family,
    vocabulary: Vocabulary,
    out: Workspace,
    report: Report,
) -> None:
    """Write the file of an adapter."""
    path = out.data / f"adapter-{file_type}.gguf"
    writer = gguf.GGUFWriter(None, family.name)
    add_adapter(writer, adapter, file_type)
    write(path, writer, plan_adapter(adapter, stored, family, file_type), report)

    def write_base(target: Path) -> None:
        write_model(target, base, stored, family, vocabulary, "f32", report)

    proof = prove_adapter(base, adapter, path, file_type, write_base, out.checkpoints)
    report.summary(**proof)
    if proof["proof"] == "partial":
        report.log(f"proof: partial; {proof['proof_missing']}")


def tell_reach(stored: dict[str, Any], report: Report) -> None:
    """Say where llama.cpp attends to more of a text than the model does."""
    if reach(stored) < stored["max_position_embeddings"]:
        report.log(
            f"the model attends to the last {reach(stored)} tokens, and llama.cpp to all: the file says that a text "
            f"has {reach(stored)} at most, and beyond that the two differ"
        )


def write_model(
    path: Path,
    folder: Path,
    stored: dict[str, Any],
    family: Family,
    vocabulary: Vocabulary,
    file_type: str,
    report: Report,
) -> None:
    """Write the file of a whole model."""
    writer = gguf.GGUFWriter(None, family.name)
    add_values(writer, stored, family, file_type)
    add_vocabulary(writer, vocabulary)
    write(path, writer, plan(folder, stored, family, file_type), report)


def quantize(source: Path, target: Path, file_type: str) -> str:
    """Let llama.cpp's own tool store the weights of a file in another type; what it says of its version.

    Raises UserError where it fails.
    """
    # One thread: so nothing of the result hangs on how many there are.
    command = [LLAMA_QUANTIZE, str(source), str(target), file_type.upper(), "1"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise SettingError(
            f"type: {file_type} is made by {LLAMA_QUANTIZE} of llama.cpp, which is not on PATH. Install llama.cpp."
        ) from None
    if done.returncode or not target.is_file():
        said = "\n".join((done.stdout + done.stderr).splitlines()[-5:])
        raise UserError(f"type: {file_type}: {LLAMA_QUANTIZE} failed with code {done.returncode}:\n{said}")
    found = VERSION.search(done.stdout + done.stderr)
    return found[0] if found else "unknown"
