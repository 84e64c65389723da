"""A tekken.json of a few hundred tokens: the one file of which mistral-common makes a tokenizer."""

import base64
import json
from pathlib import Path
from typing import Any

# Special tokens of the newest versions, at the ids that Mistral's models have them.
SPECIAL = [
    "<unk>",
    "<s>",
    "</s>",
    "[INST]",
    "[/INST]",
    "[AVAILABLE_TOOLS]",
    "[/AVAILABLE_TOOLS]",
    "[TOOL_RESULTS]",
    "[/TOOL_RESULTS]",
    "[TOOL_CALLS]",
    "[IMG]",
    "<pad>",
    "[IMG_BREAK]",
    "[IMG_END]",
    "[PREFIX]",
    "[MIDDLE]",
    "[SUFFIX]",
    "[SYSTEM_PROMPT]",
    "[/SYSTEM_PROMPT]",
    "[TOOL_CONTENT]",
    "[ARGS]",
    "[CALL_ID]",
    "[THINK]",
    "[/THINK]",
    "[AUDIO]",
    "[BEGIN_AUDIO]",
    "[TRANSCRIBE]",
]
SPECIAL_IDS = {token: number for number, token in enumerate(SPECIAL)}
# Merges of bytes, so that tokens are not all of one byte and pre-tokenization shows.
WORDS = (
    b"he",
    b"ll",
    b"hell",
    b"hello",
    b" w",
    b"or",
    b" wor",
    b"ld",
    b" world",
    b"in",
    b" t",
    b"th",
    b" th",
)
PATTERN = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def tekken(version: str = "v13") -> dict[str, Any]:
    """The contents of a small tekken.json of that version of Mistral's formats."""
    pieces = [bytes([byte]) for byte in range(256)] + list(WORDS)
    vocabulary = [
        {"rank": rank, "token_bytes": base64.b64encode(piece).decode(), "token_str": None}
        for rank, piece in enumerate(pieces)
    ]
    special = [{"rank": rank, "token_str": token, "is_control": True} for rank, token in enumerate(SPECIAL)]
    return {
        "config": {
            "pattern": PATTERN,
            "num_vocab_tokens": len(pieces),
            "default_vocab_size": len(pieces) + len(SPECIAL),
            "default_num_special_tokens": len(SPECIAL),
            "version": version,
        },
        "vocab": vocabulary,
        "special_tokens": special,
        "type": "Tekken",
        "version": 1,
    }


def write_tekken(folder: Path, version: str = "v13") -> Path:
    """`folder` with a small tekken.json, and nothing else, in it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tekken.json").write_text(json.dumps(tekken(version)), encoding="utf-8")
    return folder
