"""Quantizes the finished model for vLLM, and looks at what was really written."""

from importlib.util import find_spec
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from tunemill.stages.artifacts import EvaluationData, Model, TrainingData
from tunemill.stages.errors import SettingError
from tunemill.stages.models.compressed_fit import fault_of_model
from tunemill.stages.models.exported_compressed.compress_body import calibration_rows, compress, save
from tunemill.stages.models.exported_compressed.config import INSTALL, ExportedCompressedConfig
from tunemill.stages.models.exported_compressed.proof_body import prove
from tunemill.stages.models.files import copy_tokenizer, forget_versions, weight_files
from tunemill.stages.models.generation_body import keep_generation, set_generation_aside
from tunemill.stages.models.own_code_body import use_code_of
from tunemill.stages.models.probe_body import fixed_tokens, logits_of
from tunemill.stages.models.quiet_body import be_quiet
from tunemill.stages.models.weights import sort_header
from tunemill.stages.models.words_body import load_words
from tunemill.stages.report import Report, Workspace


def export(
    config: ExportedCompressedConfig,
    model: Model,
    out: Workspace,
    report: Report,
    training_data: TrainingData | None = None,
    evaluation_data: EvaluationData | None = None,
) -> None:
    """Write the folder of a quantized model, and prove by what was written that it is what was asked for.

    Raises SettingError where the package is missing or the model cannot be stored so, UserError where the proof fails.
    """
    be_quiet()
    if find_spec("llmcompressor") is None:
        raise SettingError(
            f"pipeline.export: compressed-tensors: the package llmcompressor is not installed. {INSTALL}"
        )
    if reason := fault_of_model(model.path, config.scheme, config.group_size):
        raise SettingError(f"pipeline.export: {config.scheme}: {reason}.")
    use_code_of(model.path)
    rows = None
    if config.calibrated:
        assert training_data is not None, "the graph gives what is looked at"
        rows = calibration_rows(training_data, config.calibration_rows, config.seed)
    # GPTQ's sums are the same every time for one count of threads.
    torch.manual_seed(config.seed)
    loaded: Any = AutoModelForCausalLM.from_pretrained(model.path, dtype="auto").eval()
    quantized_modules = compress(loaded, load_words(model.path), config, rows)
    measured = logits_of(loaded, fixed_tokens(loaded.config.get_text_config().vocab_size))
    set_generation_aside(loaded)
    save(loaded, out.data)
    del loaded
    forget_versions(out.data)
    for path in weight_files(out.data):
        sort_header(path)
    keep_generation(model.path, out.data)
    copy_tokenizer(model.path, out.data)
    held_out = None if evaluation_data is None else evaluation_data.rows
    proof = prove(model.path, out.data, config, rows=held_out, measured=measured)
    report.summary(
        quantized_modules=quantized_modules,
        calibration_rows=0 if rows is None else len(rows),
        calibration_tokens=0 if rows is None else sum(map(len, rows)),
        **proof,
    )
    report.log(f"proof: partial; {proof['proof_missing']}")
