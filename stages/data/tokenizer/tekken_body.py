"""The tokenizer of a tekken.json, for `tokenizer_use_mistral_common`."""

import json
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

from mistral_common.tokens.tokenizers.tekken import Tekkenizer
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerBase
from transformers.integrations.mistral import convert_tekken_tokenizer

from tunemill.stages.artifacts import TEKKEN
from tunemill.stages.errors import SourceError
from tunemill.stages.text_files import text_of_file


def tekken_tokenizer(folder: Path, target: Path) -> PreTrainedTokenizerBase:
    """Copy the tekken.json of `folder` to `target`; the same tokenizer backed by `tokenizers`, to be saved beside it.

    It puts BOS before a text, as mistral-common does, and has the chat template that lies in the folder, if one does:
    for whoever renders without mistral-common. Raises SourceError for a file that is none.
    """
    shutil.copyfile(folder / TEKKEN, target / TEKKEN)
    template = folder / "chat_template.jinja"
    try:
        with TemporaryDirectory() as scratch:
            whole = _with_special_tokens(folder / TEKKEN, Path(scratch) / TEKKEN)
            own = Tekkenizer.from_file(whole)
            # An empty template keeps transformers from making one up.
            made = convert_tekken_tokenizer(str(whole), text_of_file(template) if template.is_file() else "")
        made.backend_tokenizer.post_processor = TemplateProcessing(
            single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", own.bos_id)]
        )
    except (ValueError, KeyError, TypeError, AttributeError, AssertionError) as error:
        raise SourceError(
            f"{folder / TEKKEN} is no tokenizer that mistral-common reads: {type(error).__name__}: {error}"
        ) from error
    made.chat_template = made.chat_template or None
    return made


def _with_special_tokens(file: Path, target: Path) -> Path:
    """The file with its special tokens: old ones leave them to mistral-common."""
    stored = json.loads(file.read_text(encoding="utf-8"))
    if stored.get("special_tokens") is None:
        stored["special_tokens"] = [
            {"rank": token["rank"], "token_str": str(token["token_str"].value), "is_control": True}
            for token in Tekkenizer.DEPRECATED_SPECIAL_TOKENS
        ]
    target.write_text(json.dumps(stored), encoding="utf-8")
    return target
