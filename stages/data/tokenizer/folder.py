"""Whether a folder holds a tokenizer, going by the names of its files; and whether those that are text are."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

from tunemill.stages.artifacts import TEKKEN
from tunemill.stages.models.model_folder import no_object
from tunemill.stages.text_files import MARK, fault_of_text_file, text_of_file, without_mark

# The files from which transformers makes one, of whichever class.
VOCABULARIES = re.compile(
    r"tokenizer\.json|tokenizer_config\.json|vocab\.\w+|merges\.txt|tekken\.json|.*\.(model|tiktoken|spm|bpe)"
)
# Of what transformers reads for a tokenizer and its chat templates, the files that are text.
TEXTS = (
    *(
        f"{name}.json"
        for name in ("config", "tokenizer", "tokenizer_config", "special_tokens_map", "added_tokens")
    ),
    *(
        "chat_template.json",
        "vocab.json",
        TEKKEN,
        "merges.txt",
        "*.jinja",
        "additional_chat_templates/*.jinja",
    ),
)

# Those of them that are JSON objects and small enough to be parsed for a look.
OBJECTS = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
# Classes of transformers that take a tokenizer.json as it is; others make parts of it anew.
AS_STORED = ("PreTrainedTokenizerFast", "TokenizersBackend")


def fault_of_folder(folder: Path) -> str | None:
    """Why no tokenizer can be loaded from a folder."""
    if not folder.is_dir():
        return f"{folder} is not a folder; base_model and tokenizer_config name folders, or models of the Hub"
    found = {path.name for path in folder.iterdir() if VOCABULARIES.fullmatch(path.name)}
    if found == {TEKKEN}:
        return (
            f"{folder} has a {TEKKEN} and no tokenizer.json: set tokenizer_use_mistral_common: true, or name a folder "
            "that has a tokenizer.json in tokenizer_config"
        )
    if found:
        return fault_of_texts(folder) or fault_of_objects(folder)
    return (
        f"{folder} holds no tokenizer (tokenizer.json, or another file of a vocabulary); put it there, or name a "
        "folder that has one in tokenizer_config"
    )


def fault_of_tekken(folder: Path) -> str | None:
    """Why mistral-common can make no tokenizer of a folder."""
    if (folder / TEKKEN).is_file():
        return fault_of_texts(folder)
    found = sorted(path.name for path in folder.glob("tokenizer.model*")) if folder.is_dir() else []
    also = f" ({found[0]} is one of sentencepiece, and those are not supported with it)" if found else ""
    return (
        f"{folder} holds no {TEKKEN}, of which mistral-common makes a tokenizer{also}. Name a folder that has one in "
        "tokenizer_config, or take tokenizer_use_mistral_common out, so that a tokenizer.json and a chat template are "
        "used"
    )


def texts_of(folder: Path) -> Iterator[Path]:
    """The files of a tokenizer and its chat templates that are text."""
    for pattern in TEXTS:
        yield from (path for path in sorted(folder.glob(pattern)) if path.is_file())


def fault_of_texts(folder: Path) -> str | None:
    """Why one of the files is no text, with its line."""
    return next((reason for path in texts_of(folder) if (reason := fault_of_text_file(path))), None)


def fault_of_objects(folder: Path) -> str | None:
    """Which file is damaged of those that transformers reads as JSON objects, all of them text."""
    for name in OBJECTS:
        path = folder / name
        if not path.is_file():
            continue
        try:
            stored = json.loads(text_of_file(path))
        except (ValueError, RecursionError):
            stored = None
        if not isinstance(stored, dict):
            return no_object(path)
    path = folder / "tokenizer.json"
    # Parsing one takes up to a second, and a download that was broken off shows at the end.
    if path.is_file():
        text = without_mark(path.read_text(encoding="utf-8")).strip()
        if not (text.startswith("{") and text.endswith("}")):
            return no_object(path)
    return None


def without_marks(folder: Path, scratch: Path) -> Path:
    """The folder, or in place of one whose texts have a byte order mark, links to its files and texts without it.

    Neither transformers nor tokenizers drops such a mark.
    """
    mark = MARK.encode()
    marked = [path for path in texts_of(folder) if path.read_bytes().startswith(mark)]
    if not marked:
        return folder
    mended = scratch / folder.name
    for path in (path for path in folder.rglob("*") if path.is_file()):
        target = mended / path.relative_to(folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        if path in marked:
            target.write_text(text_of_file(path), encoding="utf-8")
        else:
            target.symlink_to(path.resolve())
    return mended


def fault_for_llama_cpp(folder: Path) -> str | None:
    """Why llama.cpp has no tokenizer like that of a tokenizer.json, where the file shows it.

    What is not seen here is which of llama.cpp's expressions cuts texts in the same way: it is tried on many texts.
    """
    try:
        stored = json.loads(text_of_file(folder / "tokenizer.json"))
        kind, falls_back = stored["model"]["type"], stored["model"].get("byte_fallback")
        changed_by = (stored.get("normalizer") or {"type": "NFC"})["type"]
        settings = json.loads(text_of_file(folder / "tokenizer_config.json"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    if kind != "BPE":
        reason = f"it is a {kind}, and no byte pair encoding"
    elif not falls_back and changed_by != "NFC" and settings.get("tokenizer_class") in AS_STORED:
        reason = f"it changes texts by {changed_by} before it cuts them"
    else:
        return None
    return f"pipeline.export: llama.cpp does not know the tokenizer of {folder}: {reason}. Take gguf out of export"


def vocabulary_of(folder: Path) -> frozenset[str] | None:
    """The tokens of a tokenizer.json, added ones too; None where there is no such file, or none like it."""
    try:
        stored = json.loads(text_of_file(folder / "tokenizer.json"))
        vocabulary = stored["model"]["vocab"]
        added = {token["content"] for token in stored.get("added_tokens", [])}
        # Unigram models have a list of tokens with their scores.
        tokens = vocabulary if isinstance(vocabulary, dict) else {token for token, _ in vocabulary}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return frozenset({*tokens, *added})
