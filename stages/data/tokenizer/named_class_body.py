"""The tokenizer of a folder by the class that its files name, where `AutoTokenizer` is known to take that one.

`AutoTokenizer` imports torch, which takes seconds and which a tokenizer has no use for.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import transformers
from transformers.tokenization_utils_tokenizers import TokenizersBackend

# Of other versions nobody has looked up what AutoTokenizer does.
KNOWN_VERSIONS = ("5.19.",)
# What tokenizer_config.json says where tokenizer.json is all there is to a tokenizer.
GENERIC = frozenset({"PreTrainedTokenizerFast", "TokenizersBackend"})
# Model types beside which AutoTokenizer takes the class that tokenizer_config.json names, if it is a generic one ...
TYPES_OF_GENERIC = frozenset({
    "gemma", "gemma2", "gemma3", "gemma3_text", "gpt2", "gpt_oss", "granite", "lfm2", "llama", "llama4", "mistral",
    "olmo2", "phi3", "qwen3", "qwen3_moe", "smollm3",
})  # fmt: skip
# ... or if it is one of these.
TYPES_OF_CLASS: Mapping[str, frozenset[str]] = {
    "GemmaTokenizer": frozenset({"gemma", "gemma2", "gemma3", "gemma3_text"}),
    "GPT2Tokenizer": frozenset({"gpt2"}),
    "LlamaTokenizer": frozenset({"llama"}),
    "Qwen2Tokenizer": frozenset({"qwen2", "qwen2_moe", "qwen3", "qwen3_moe"}),
}


def load_named(folder: Path, model: Path | None, **settings: Any) -> Any:
    """What `AutoTokenizer` makes of a folder beside the config.json of the model; None where that is not known.

    Without a model, or one without a config, the folder's own config counts. Raises what `from_pretrained` raises.
    """
    chosen = _class(folder, model)
    return None if chosen is None else chosen.from_pretrained(folder, local_files_only=True, **settings)


def _class(folder: Path, model: Path | None) -> Any:
    if not transformers.__version__.startswith(KNOWN_VERSIONS) or not (folder / "tokenizer.json").is_file():
        return None
    named, described = _read(folder / "tokenizer_config.json"), _read(_config(folder, model))
    name, kind = named.get("tokenizer_class"), described.get("model_type")
    if not isinstance(name, str) or "auto_map" in named or (described and not isinstance(kind, str)):
        return None
    if name in GENERIC:
        return TokenizersBackend if not described or kind in TYPES_OF_GENERIC else None
    name = name.removesuffix("Fast")
    if name in TYPES_OF_CLASS and (not described or kind in TYPES_OF_CLASS[name]):
        return getattr(transformers, name)
    return None


def _config(folder: Path, model: Path | None) -> Path:
    beside = None if model is None else model / "config.json"
    return beside if beside is not None and beside.is_file() else folder / "config.json"


def _read(file: Path) -> dict[str, Any]:
    """An object of JSON; an empty one where there is no such file. One that cannot be read is no class's."""
    if not file.is_file():
        return {}
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        return {"auto_map": None, "model_type": None}
    return found if isinstance(found, dict) else {"auto_map": None, "model_type": None}
