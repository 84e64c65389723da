"""Whether two folders hold the same tokenizer, going by what they make of a fixed text."""

from collections.abc import Mapping
from pathlib import Path

from tunemill.stages.artifacts import TEKKEN
from tunemill.stages.errors import UserError
from tunemill.stages.models.words_body import load_words

# What pre-tokenizers and normalizers treat differently: digits, white space, accents in two parts, scripts.
FIXED_TEXT = (
    "It's 12345.678 o'clock,\n\n  DON'T  wait:\tna\u00efve nai\u0308ve caf\u00e9\r\n"
    "\u4f60\u597d \u0645\u0631\u062d\u0628\u0627 \U0001f600 x=[1,2]; <|im_start|>user\n</s> "
)


def ids_of_text(folder: Path) -> Mapping[bool, list[int]]:
    """What `AutoTokenizer` makes of the fixed text, with and without the special tokens that it adds."""
    tokenizer = load_words(folder)
    return {adds: tokenizer.encode(FIXED_TEXT, add_special_tokens=adds) for adds in (False, True)}


def check_same_tokenizer(before: Path, after: Path) -> None:
    """Raises UserError where the folder `after` would give other ids than those that rows were made with.

    Which class `AutoTokenizer` takes depends on the config.json beside the tokenizer; some make a pre-tokenizer of
    their own in place of that in tokenizer.json. Of a tekken.json mistral-common makes a tokenizer without looking
    further, so it must be the same file.
    """
    if tekken_of(before) != tekken_of(after):
        raise UserError(
            f"the {TEKKEN} of this folder is not that of the tokenizer that the rows are made with."
        )
    if ids_of_text(before) != ids_of_text(after):
        classes = [type(load_words(folder)).__name__ for folder in (before, after)]
        raise UserError(
            f"the tokenizer of this folder gives other token ids than the one that the rows are made with "
            f"({classes[1]} in place of {classes[0]}). Take a tokenizer of the model's own family, or set "
            f"tokenizer_config to a folder that has a config.json of the model's model_type."
        )


def tekken_of(folder: Path) -> bytes | None:
    """The contents of a folder's tekken.json, None where it has none."""
    file = folder / TEKKEN
    return file.read_bytes() if file.is_file() else None
