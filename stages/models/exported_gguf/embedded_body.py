"""The tokenizer that a GGUF file holds, read as llama.cpp reads it."""

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from tokenizers import Tokenizer

from tunemill.stages.models.exported_gguf.recognised_body import cutting
from tunemill.stages.models.exported_gguf.splits import SPACE, UNSTRIPPED
from tunemill.stages.models.gguf_reading_body import GgufFile

KEY = "tokenizer.ggml."
UNKNOWN, CONTROL, USER_DEFINED = 2, 3, 4


class Embedded:
    """What llama.cpp makes of texts with the tokenizer of a file. Algorithm: llama.cpp's src/llama-vocab.cpp."""

    def __init__(self, file: GgufFile) -> None:
        self.says = {
            name.removeprefix(KEY): value for name, value in file.says.items() if name.startswith(KEY)
        }
        self.tokens: Sequence[str] = self.says["tokens"]
        self.ids = {text: id_ for id_, text in enumerate(self.tokens)}
        kinds = self.says["token_type"]
        whole = [
            text
            for text, kind in zip(self.tokens, kinds, strict=True)
            if kind in (UNKNOWN, CONTROL, USER_DEFINED)
        ]
        # The longest first, as llama.cpp looks for them.
        longest = sorted(whole, key=len, reverse=True)
        self.marks = re.compile("(" + "|".join(map(re.escape, longest)) + ")") if longest else None
        self.strips = "phi3" in str(file.says.get("general.name"))
        self.controls = {*whole} - UNSTRIPPED
        self.merging: Tokenizer | None = None
        if self.says["model"] == "gpt2":
            model = {"vocab": self.ids, "merges": self.says["merges"]}
            self.merging = cutting(model, self.says["pre"])

    def encode(self, text: str, *, adds: bool) -> list[int]:
        """Token ids; special tokens in the text are such. `adds`: with what goes around each text."""
        found: list[int] = [self.says["bos_token_id"]] if adds and self.says["add_bos_token"] else []
        after_mark = True
        for part in self.marks.split(text) if self.marks else [text]:
            if part in self.ids and self.marks is not None and self.marks.fullmatch(part):
                found.append(self.ids[part])
                after_mark = True
            elif part:
                stripped = (
                    part.lstrip()
                    if self.strips and found and self.tokens[found[-1]] in self.controls
                    else part
                )
                found += self._plain(stripped, after_mark)
                after_mark = False
        return [*found, self.says["eos_token_id"]] if adds and self.says["add_eos_token"] else found

    def _plain(self, text: str, after_mark: bool) -> list[int]:
        if self.merging is not None:
            return list(self.merging.encode(text).ids)
        prefix = " " if self.says["add_space_prefix"] and after_mark else ""
        return self._joined([*(prefix + text).replace(" ", SPACE)])

    def _joined(self, parts: list[str]) -> list[int]:
        """Neighbours are joined as long as they make a piece, those with the highest score and the leftmost first."""
        scores = self.says["scores"]
        while True:
            joined = (one + other for one, other in pairwise(parts))
            pairs = ((scores[self.ids[text]], -at) for at, text in enumerate(joined) if text in self.ids)
            best = max(pairs, default=None)
            if best is None:
                break
            at = -best[1]
            parts[at : at + 2] = [parts[at] + parts[at + 1]]
        found: list[int] = []
        for part in parts:
            found += (
                [self.ids[part]]
                if part in self.ids
                else [self.ids[f"<0x{byte:02X}>"] for byte in part.encode()]
            )
        return found

    def ends(self) -> set[int]:
        """The tokens at which llama.cpp stops, going by the ids that the file names."""
        return {
            self.says[f"{name}_token_id"] for name in ("eos", "eot", "eom") if f"{name}_token_id" in self.says
        }

    def get(self, name: str) -> Any:
        """A value of the tokenizer; None where the file says nothing."""
        return self.says.get(name)
