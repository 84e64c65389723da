"""Where an answer begins to say something: white space, ends of turns and what the wording adds say nothing.

An answer that is cut off before that teaches nothing, as one that never says anything.
"""

import re
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from tunemill.stages.data.preferences.records import Said

# What families of models end a text or a turn with. Of other special tokens an answer may consist.
ENDS = (
    "</s>",
    "<eos>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<｜end▁of▁sentence｜>",
    "<|im_end|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|eot|>",
    "<|eom|>",
    "<|end|>",
    "<end_of_turn>",
    "<turn|>",
    "<|end_of_turn|>",
    "<|END_OF_TURN_TOKEN|>",
    "<|END_RESPONSE|>",
    "[|endofturn|]",
)


def quiet_text(special_tokens: Mapping[str, str]) -> re.Pattern[str]:
    """What matches at any place of an answer as much of it as says nothing.

    `special_tokens`: the texts of a tokenizer's special tokens by their roles.
    """
    own = (special_tokens.get(role) for role in ("eos_token", "bos_token", "pad_token"))
    tokens = sorted({*ENDS, *(token for token in own if token)}, key=len, reverse=True)
    return re.compile(rf"(?:\s|{'|'.join(map(re.escape, tokens))})*")


def quiet_characters(text: str, said: Said | None, quiet: re.Pattern[str]) -> int:
    """How many of the text's first characters say nothing: all of them where none does."""
    start, end = (0, len(text)) if said is None else (said.start, said.end)
    found = quiet.match(text, start, end)
    first = start if found is None else found.end()
    return first if first < end else len(text)


def quiet_tokens(ends: npt.NDArray[np.int32], characters: int, text: int) -> int:
    """How many tokens an answer may have and still say nothing.

    `ends`: for each token the character that it ends before; `characters` say nothing, of `text` characters. A
    character is there once all of its tokens are.
    """
    if characters >= text:
        return len(ends)
    whole = ends.astype(np.int64)
    whole[:-1] -= ends[:-1] == ends[1:]
    return int(np.searchsorted(np.maximum.accumulate(whole), characters, side="right"))
