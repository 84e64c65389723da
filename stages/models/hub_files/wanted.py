"""Which files of a repository are needed, going by their names."""

import re
from collections.abc import Collection, Sequence
from fnmatch import fnmatchcase

from tunemill.stages.errors import SettingError, SourceError
from tunemill.stages.models.adapter_folder import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from tunemill.stages.models.files import ADAPTER_FILES, INDEX_FILE, SINGLE_FILE

CONFIGS = ("config.json", "generation_config.json")
# The files from which transformers makes a tokenizer, of whichever class, and what renders its conversations.
TOKENIZER = re.compile(
    r"(tokenizer|tokenizer_config|special_tokens_map|added_tokens|chat_template|tekken)\.json|vocab\.\w+|merges\.txt|"
    r"[^/]+\.(model|tiktoken|spm|bpe|jinja)|additional_chat_templates/[^/]+\.jinja"
)
PICKLED = re.compile(r"[^/]+\.(bin|pt|pth|ckpt|h5|msgpack)")


def not_ignored(names: Collection[str], patterns: Sequence[str]) -> list[str]:
    """The names that no pattern leaves out, sorted."""
    return sorted(name for name in names if not any(fnmatchcase(name, pattern) for pattern in patterns))


def tokenizer_names(names: Collection[str]) -> list[str]:
    """The files of the tokenizer; config.json may say of which class it is."""
    return [name for name in names if TOKENIZER.fullmatch(name) or name == CONFIGS[0]]


def beside_weights(
    names: Collection[str], repository: str, patterns: Sequence[str], *, code: bool, config_only: bool
) -> set[str]:
    """The files of a model that are no weights, or its config alone, with its Python files if its `code` may run."""
    found = set(described_by(names, repository, patterns))
    found = found - set(CONFIGS[1:]) if config_only else found | set(tokenizer_names(names))
    return found | {name for name in names if code and name.endswith(".py")}


def described_by(names: Collection[str], repository: str, patterns: Sequence[str]) -> list[str]:
    """The files that describe a model. Raises where the repository holds no model."""
    if CONFIGS[0] in names:
        return [name for name in names if name in CONFIGS]
    if ADAPTER_FILES & set(names):
        raise SourceError(f"{repository} is an adapter and no model. Name the model that it was trained on")
    raise SourceError(
        f"{repository} has no config.json, so it is no model of transformers{_ignored(patterns)}. Name "
        f"another, such as the one that it was converted from"
    )


def check_adapter(names: Collection[str], repository: str) -> None:
    """Raises where the repository holds no adapter, or one whose weights are not read."""
    if ADAPTER_CONFIG not in names:
        what = (
            "it is a model: set base_model, and take lora_model_dir out"
            if CONFIGS[0] in names
            else "name the repository that has it"
        )
        raise SourceError(f"{repository} has no {ADAPTER_CONFIG}, so it holds no adapter; {what}")
    if ADAPTER_WEIGHTS in names:
        return
    pickled = [name for name in names if PICKLED.fullmatch(name) and name.startswith("adapter")]
    if pickled:
        raise SourceError(
            f"{repository}: its adapter is pickled ({pickled[0]}), and reading that runs whatever code is in it. Name "
            f"one with {ADAPTER_WEIGHTS}, or save it so: load it with PEFT, save_pretrained, name that folder"
        )
    raise SourceError(f"{repository} has no {ADAPTER_WEIGHTS}, so its adapter has no weights. Name another")


def index_name(names: Collection[str], repository: str, patterns: Sequence[str]) -> str:
    """The file that leads to the weights: the index, or else the only file. Raises where there are none to read."""
    for name in (INDEX_FILE, SINGLE_FILE):
        if name in names:
            return name
    others = [name for name in names if name.endswith(".safetensors") and "/" not in name]
    pickled = [name for name in names if PICKLED.fullmatch(name)]
    if others:
        reason = f"its safetensors ({others[0]}) are in a layout that transformers does not read"
    elif pickled:
        reason = f"its weights are pickled ({pickled[0]}), and reading those runs whatever code is in them"
    elif any(name.endswith(".gguf") for name in names):
        reason = "its weights are GGUF, made for running and not for training"
    else:
        reason = "it has no weights"
    raise SourceError(
        f"{repository}: {reason}{_ignored(patterns)}. Name a repository or a revision (revision_of_model) "
        f"with {SINGLE_FILE}, or save them so: load the model with transformers, save_pretrained, name that folder"
    )


def shards(weight_map: object, names: Collection[str], repository: str, patterns: Sequence[str]) -> list[str]:
    """The shards that an index names. Raises SourceError where one is missing, or it is no index."""
    if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
        raise SourceError(f"{repository}: its {INDEX_FILE} is damaged. Name another revision of it")
    named = sorted(set(weight_map.values()))
    missing = [name for name in named if name not in names]
    if missing:
        error = SettingError if patterns else SourceError
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise error(
            f"{repository}: {INDEX_FILE} names {missing[0]}{more}, not in the repository{_ignored(patterns)}. Name "
            f"another revision of it (revision_of_model), or another repository"
        )
    if pickled := [name for name in named if not name.endswith(".safetensors")]:
        raise SourceError(f"{repository}: {INDEX_FILE} names {pickled[0]}, which is no safetensors file")
    return named


def _ignored(patterns: Sequence[str]) -> str:
    return f" (without what base_model_ignore_patterns leaves out: {', '.join(patterns)})" if patterns else ""
