"""`added_tokens_overrides`: other texts for added tokens, such as reserved ones, at the ids that they have."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from tunemill.stages.errors import SettingError

KEY = "added_tokens_overrides"


def with_renamed_tokens(
    given: PreTrainedTokenizerBase, texts: Mapping[int, str], folder: Path
) -> PreTrainedTokenizerBase:
    """The tokenizer with these texts at these ids; `folder` is an empty one to write it into.

    Raises SettingError for an id that is no added token, or a text that is a token already.
    """
    if not texts:
        return given
    check_renamed(given, texts)
    old = {given.convert_ids_to_tokens(number): text for number, text in texts.items()}
    given.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        path = folder / name
        if path.is_file():
            stored = json.loads(path.read_text(encoding="utf-8"))
            path.write_text(json.dumps(_renamed(stored, old), ensure_ascii=False), encoding="utf-8")
    return type(given).from_pretrained(folder, local_files_only=True)


def check_renamed(given: PreTrainedTokenizerBase, texts: Mapping[int, str]) -> None:
    """Raises SettingError as said above."""
    added, vocabulary = given.added_tokens_decoder, given.get_vocab()
    for number, text in texts.items():
        if number not in added:
            raise SettingError(
                f"{KEY}: {number} is not the id of an added token; these are {', '.join(map(str, sorted(added)))}."
            )
        if vocabulary.get(text, number) != number:
            raise SettingError(f"{KEY}: {text} is a token already, with the id {vocabulary[text]}.")
    if len(set(texts.values())) < len(texts):
        raise SettingError(f"{KEY}: gives two ids one text.")


def _renamed(stored: Any, old: Mapping[str, str]) -> Any:
    """Every text and key that is one of the old tokens, replaced; of nothing longer, so templates stay."""
    if isinstance(stored, dict):
        return {old.get(key, key): _renamed(value, old) for key, value in stored.items()}
    if isinstance(stored, list):
        return [_renamed(value, old) for value in stored]
    return old.get(stored, stored) if isinstance(stored, str) else stored
