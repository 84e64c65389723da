"""Reads a model folder, fits it to the tokenizer, checks it, and writes it as one artifact."""

import hashlib
import json
import math
import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoTokenizer

from tunemill.stages.artifacts import FetchedModel, Model, Tokenizer
from tunemill.stages.errors import SettingError, SourceError
from tunemill.stages.models.base_model.config import BaseModelConfig
from tunemill.stages.models.base_model.fit_body import check_fit
from tunemill.stages.models.base_model.folder import (
    fault_of_class,
    fault_of_description,
    fault_of_gptq_key,
    fault_of_settings,
)
from tunemill.stages.models.base_model.layouts.read_body import as_plain
from tunemill.stages.models.base_model.overrides_body import overridden_config
from tunemill.stages.models.base_model.special_tokens import align_special_tokens
from tunemill.stages.models.base_model.unpack_body import write_unpacked
from tunemill.stages.models.base_model.untrained_body import fill_untrained
from tunemill.stages.models.files import (
    copy_file,
    copy_tokenizer,
    forget_versions,
    model_files,
)
from tunemill.stages.models.generation_body import check_generation, keep_generation, set_generation_aside
from tunemill.stages.models.heads import head_of_config
from tunemill.stages.models.heads_body import auto_class
from tunemill.stages.models.loading_body import is_quantized
from tunemill.stages.models.model_folder import settings_of
from tunemill.stages.models.own_code import KEY as CODE_KEY
from tunemill.stages.models.own_code import code_files, digest_of
from tunemill.stages.models.own_code_body import check_without_code, use_code_of
from tunemill.stages.models.prompts import LLAMA_ADAPTER, fault_of_prompts
from tunemill.stages.models.quiet_body import be_quiet
from tunemill.stages.models.skeleton_body import skeleton_of
from tunemill.stages.models.ties_body import twice_stored, untie_config
from tunemill.stages.models.tokenizer_ids_body import check_same_tokenizer
from tunemill.stages.models.weights import tensors_of_model
from tunemill.stages.report import Report, Workspace

FILLED_SHOWN = 100


def base_model(
    config: BaseModelConfig,
    tokenizer: Tokenizer,
    upstream: Model | None,
    out: Workspace,
    report: Report,
    config_files: FetchedModel | None = None,
) -> None:
    """Write a model folder whose embeddings hold every token of `tokenizer`. `config_files` hold the config.json that
    is read in place of the model's own, where it comes from the Hub.

    Weights are only loaded where they change (drawn anew, other config, longer embeddings, tied ones stored twice);
    otherwise the files are copied. Raises SourceError for a folder that is no model or whose tensors are not those of
    its config, SettingError for overrides that do not fit it.
    """
    be_quiet()
    if config_files is not None:
        config = config.model_copy(update={"base_model_config": str(config_files.path)})
    folder = _source_folder(config, upstream)
    _check_settings(config, folder)
    described = _config_folder(config, folder)
    if config.trust_remote_code:
        _take_code(described if code_files(described) else folder, out.data, report)
    elif check_without_code(described):
        report.log(
            "config.json names code of the model; it is not run, and transformers' own class is used instead"
        )
    words = AutoTokenizer.from_pretrained(tokenizer.path)
    plain = out.checkpoints / "plain"
    folder = as_plain(config, folder, plain, report)
    model_config = _model_config(config, folder)
    rows = model_config.get_text_config().vocab_size
    wanted = math.ceil(len(words) / 32) * 32 if config.resize_token_embeddings_to_32x else len(words)
    twice = "no"
    stored_in_bits = is_quantized(folder)
    if stored_in_bits and config.model_quantization_config is not None:
        check_generation(folder)
        _unpack(config, folder, max(rows, wanted), out.data, report)
        _finish(config, tokenizer, words, out.data, report)
        return
    fills = config.fix_untrained_tokens is not None
    changes = config.reinit_weights or config.changes_config or fills or _resizes(config, rows, wanted)
    if stored_in_bits and changes:
        raise SettingError(
            f"base_model: {folder}: its weights are quantized, so they can neither get {wanted} embedding rows, where "
            f"there are {rows}, nor other ones (fix_untrained_tokens), nor another config. Start from the model in "
            f"full precision, with load_in_4bit: true."
        )
    # The names of quantized tensors are those of bitsandbytes, which reads them again when the model is loaded.
    if not config.reinit_weights and not stored_in_bits:
        check_fit(folder, model_config, overridden=config.changes_config)
        twice = twice_stored(folder, skeleton_of(model_config))
    check_generation(folder)
    if twice == "apart":
        report.log(
            "config.json ties head and embeddings, and the files hold different ones: they are not tied"
        )
        model_config.tie_word_embeddings = model_config.get_text_config().tie_word_embeddings = False
    kept = wanted if _resizes(config, rows, wanted) else rows
    if changes or twice == "equal":
        report.log(f"loading the weights: {rows} embedding rows, {kept} wanted")
        _write_changed(config, folder, model_config, kept, out.data, words, report)
    else:
        # What was unpacked beside them is of no further use there.
        put = shutil.move if folder == plain else copy_file
        for path in model_files(folder):
            put(path, out.data / path.name)
    if twice == "apart":
        untie_config(out.data / "config.json")
    _finish(config, tokenizer, words, out.data, report)


def _unpack(config: BaseModelConfig, folder: Path, rows: int, target: Path, report: Report) -> None:
    kind = config.model_quantization_config
    assert kind is not None
    fills = config.fix_untrained_tokens is not None
    if config.reinit_weights or config.shrink_embeddings or config.changes_config or fills:
        raise SettingError(
            f"model_quantization_config: {kind}: goes without reinit_weights, shrink_embeddings and "
            f"fix_untrained_tokens, and without another config than the model's own. Take these out."
        )
    report.log(f"reading the quantized weights as bfloat16 ({kind})")
    write_unpacked(folder, kind, rows, config.mean_resizing_embeddings, target)


def _finish(config: BaseModelConfig, tokenizer: Tokenizer, words: Any, target: Path, report: Report) -> None:
    """Beside the written weights: the tokenizer, and its special tokens in the model's own files."""
    if not config.trust_remote_code:
        _forget_code(target / "config.json")
    copy_tokenizer(tokenizer.path, target)
    check_same_tokenizer(tokenizer.path, target)
    _align(target, {name: getattr(words, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")})
    _summarize(target, len(words), report)


def _take_code(folder: Path, target: Path, report: Report) -> None:
    """Run the model's code from now on, and keep it beside the weights."""
    use_code_of(folder)
    files = code_files(folder)
    if not files:
        return
    report.log(
        f"trust_remote_code: code of the model runs ({digest_of(files)}): {', '.join(p.name for p in files)}"
    )
    for path in files:
        copied = target / path.relative_to(folder)
        copied.parent.mkdir(parents=True, exist_ok=True)
        copy_file(path, copied)
    report.table("code of the model", ["file", "sha256"], [
        [str(path.relative_to(folder)), hashlib.sha256(path.read_bytes()).hexdigest()] for path in files
    ])  # fmt: skip
    report.summary(code=digest_of(files))


def _forget_code(config_file: Path) -> None:
    """No code was let in, so nothing may ask for it later."""
    stored = json.loads(config_file.read_text(encoding="utf-8"))
    if stored.pop(CODE_KEY, None) is not None:
        config_file.write_text(json.dumps(stored, indent=2) + "\n", encoding="utf-8")


def _source_folder(config: BaseModelConfig, upstream: Model | None) -> Path:
    assert (config.base_model is None) != (upstream is None), "one of base_model and upstream"
    folder = Path(config.base_model) if upstream is None else upstream.path  # type: ignore[arg-type]
    if reason := config.fault_of(folder):
        raise SourceError(f"base_model: {reason}.")
    return folder


def _config_folder(config: BaseModelConfig, folder: Path) -> Path:
    return folder if config.base_model_config is None else Path(config.base_model_config)


def _check_settings(config: BaseModelConfig, folder: Path) -> None:
    stored = settings_of(folder)
    if reason := fault_of_gptq_key(folder, stored or {}, config.gptq):
        raise SettingError(f"{'gptq' if config.gptq else 'base_model'}: {reason}.")
    described = _config_folder(config, folder)
    # How weights are stored says the config.json beside them, whichever describes the model.
    if (described == folder or not config.reinit_weights) and (
        reason := fault_of_settings(folder, stored, config.model_quantization_config)
    ):
        raise SourceError(f"base_model: {reason}.")
    if described != folder:
        if not (described / "config.json").is_file():
            raise SourceError(f"base_model_config: {described}: no config.json in it.")
        stored = settings_of(described)
        if reason := fault_of_description(described, stored):
            raise SourceError(f"base_model_config: {reason}.")
    assert stored is not None, "a config.json that is none is a fault"
    if reason := fault_of_class(stored, config.model_class):
        raise SettingError(f"model_type: {reason}.")
    if config.adapter == LLAMA_ADAPTER and (reason := fault_of_prompts({**stored, **config.overrides})):
        raise SettingError(f"adapter: {reason}.")


def _model_config(config: BaseModelConfig, folder: Path) -> Any:
    folder = _config_folder(config, folder)
    loaded = overridden_config(folder, config.overrides)
    if config.cls_model_config not in (None, type(loaded).__name__):
        raise SettingError(
            f"cls_model_config: {config.cls_model_config}: the config.json of this model is read as "
            f"{type(loaded).__name__}, and its weights are stored for that. Set that, or remove the key."
        )
    return loaded


def _resizes(config: BaseModelConfig, rows: int, wanted: int) -> bool:
    """Whether embeddings of so many rows get as many as the tokenizer wants."""
    return wanted > rows or (config.shrink_embeddings and wanted < rows)


def _write_changed(
    config: BaseModelConfig,
    folder: Path,
    model_config: Any,
    rows: int,
    target: Path,
    words: Any,
    report: Report,
) -> None:
    head = head_of_config({"architectures": model_config.architectures})
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(config.seed)
        model = (
            _draw(auto_class(head), model_config, words.eos_token_id)
            if config.reinit_weights
            else auto_class(head).from_pretrained(folder, config=model_config, dtype="auto")
        )
        if rows != model.get_input_embeddings().weight.shape[0]:
            model.resize_token_embeddings(rows, mean_resizing=config.mean_resizing_embeddings)
    if config.fix_untrained_tokens is not None:
        _fill(config.filled_tokens, model, words, report)
    set_generation_aside(model)
    model.save_pretrained(target)
    forget_versions(target)
    keep_generation(folder, target)


def _fill(asked: list[int] | None, model: Any, words: Any, report: Report) -> None:
    embedding, tokens = model.get_input_embeddings(), len(words)
    if beyond := [number for number in asked or [] if number >= tokens]:
        raise SettingError(
            f"fix_untrained_tokens: {beyond[0]}: the tokenizer's tokens are 0 to {tokens - 1}."
        )
    padding = getattr(embedding, "padding_idx", None)
    kept = set() if padding is None or padding == words.eos_token_id else {padding}
    filled = fill_untrained(model, tokens, asked, kept)
    both = sorted({*filled.embedding, *filled.head})
    report.log(f"fix_untrained_tokens: {len(both)} tokens got the mean of the others' rows")
    report.table("filled rows", ["token", "text", "embeddings", "output head"], [
        [number, words.convert_ids_to_tokens(number), number in filled.embedding, number in filled.head]
        for number in both[:FILLED_SHOWN]
    ])  # fmt: skip
    report.summary(filled_embedding_rows=len(filled.embedding), filled_head_rows=len(filled.head))


def _draw(kind: Any, model_config: Any, eos: int | None) -> Any:
    """New weights; transformers draws the row of the padding as zeros, and EOS is more than that."""
    text = model_config.get_text_config()
    padding = text.pad_token_id
    if padding is not None and padding == eos:
        text.pad_token_id = None
    model = kind.from_config(model_config, dtype=model_config.dtype or torch.float32)
    text.pad_token_id = model.config.get_text_config().pad_token_id = padding
    return model


def _align(folder: Path, ids: dict[str, int | None]) -> None:
    config_file, generation_file = folder / "config.json", folder / "generation_config.json"
    old = json.loads(config_file.read_text(encoding="utf-8"))
    old_generation = (
        json.loads(generation_file.read_text(encoding="utf-8")) if generation_file.is_file() else {}
    )
    config, generation = align_special_tokens(old, old_generation, ids)
    if config != old:
        config_file.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    if generation != old_generation:
        generation_file.write_text(json.dumps(generation, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _summarize(folder: Path, tokens: int, report: Report) -> None:
    stored = tensors_of_model(folder)
    rows = AutoConfig.from_pretrained(folder).get_text_config().vocab_size
    assert tokens <= rows, f"{tokens} tokens do not fit in {rows} embedding rows"
    sizes: dict[str, int] = {}
    for tensor in stored.values():
        sizes[tensor.dtype] = sizes.get(tensor.dtype, 0) + tensor.size
    report.summary(
        parameters=sum(tensor.elements for tensor in stored.values()),
        bytes=sum(tensor.size for tensor in stored.values()),
        dtype=max(sizes, key=lambda dtype: (sizes[dtype], dtype)),
        embedding_rows=rows,
        tokens=tokens,
    )
