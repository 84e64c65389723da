"""Names of rows, by what they ask: a question has the same one whichever pipeline, model or time asks it."""

import hashlib
import json


def row_id(*texts: str) -> str:
    """16 hex digits of the SHA-256 over a prompt and what is held against it, white space around each left out.

    Texts are without special tokens, so that it does not count which of them ends an answer.
    """
    written = json.dumps([text.strip() for text in texts], ensure_ascii=True)
    return hashlib.sha256(written.encode()).hexdigest()[:16]
