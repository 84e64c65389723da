"""Files of JSON beside a model's config.json that transformers reads: `check` sees what `run` would end with."""

from pathlib import Path

import pytest
from support.rows import run_stage
from support.tiny_tokenizer import make_tokenizer

from tunemill.stages.artifacts import Tokenizer
from tunemill.stages.data.tokenizer.config import TokenizerConfig
from tunemill.stages.data.tokenizer.stage import TOKENIZER
from tunemill.stages.errors import SourceError
from tunemill.stages.models.base_model.config import BaseModelConfig

OF_TOKENIZERS = ("tokenizer_config.json", "tokenizer.json", "special_tokens_map.json", "added_tokens.json")
UNREAD = {
    "wide": ("{}".encode("utf-16"), "line 1: the file is UTF-16; save it as UTF-8"),
    "latin": (b'{"a": "\xe9"}', "line 1: the byte 0xe9 is no UTF-8"),
    "cut off": (b'{"a": ["b", ', "is no JSON object. Fetch the model again"),
    "empty": (b"", "is no JSON object. Fetch the model again"),
    "list": (b"[1]", "is no JSON object. Fetch the model again"),
}
MARKED = (b"\xef\xbb\xbf{}", "begins with a byte order mark, which transformers does not read")


@pytest.mark.parametrize(("data", "reason"), [*UNREAD.values(), MARKED], ids=[*UNREAD, "marked"])
def test_generation_settings(tmp_path: Path, data: bytes, reason: str) -> None:
    (tmp_path / "config.json").write_text("{}")
    path = tmp_path / "generation_config.json"
    path.write_bytes(b"{}")
    assert not list(_of_model(tmp_path))
    path.write_bytes(data)
    (fault,) = _of_model(tmp_path)
    assert path.name in fault and reason in fault


@pytest.mark.parametrize(("data", "reason"), UNREAD.values(), ids=UNREAD)
@pytest.mark.parametrize("name", OF_TOKENIZERS)
def test_tokenizers(tmp_path: Path, name: str, data: bytes, reason: str) -> None:
    source = make_tokenizer(tmp_path / "source")
    (source / name).write_bytes(data)
    (fault,) = TokenizerConfig(base_model=str(source)).faults()
    assert fault.key == "base_model" and name in fault.reason and reason in fault.reason
    with pytest.raises(SourceError) as refusal:
        run_stage(TOKENIZER, TokenizerConfig(base_model=str(source)), tmp_path / "out", upstream=None)
    assert fault.reason in str(refusal.value)


@pytest.mark.parametrize("name", OF_TOKENIZERS)
def test_a_byte_order_mark_of_a_tokenizers_file_is_dropped(tmp_path: Path, name: str) -> None:
    source = make_tokenizer(tmp_path / "source")
    path = source / name
    path.write_bytes(b"\xef\xbb\xbf" + (path.read_bytes() if path.is_file() else b"{}"))
    assert not list(TokenizerConfig(base_model=str(source)).faults())
    made, _ = run_stage(TOKENIZER, TokenizerConfig(base_model=str(source)), tmp_path / "out", upstream=None)
    assert isinstance(made, Tokenizer) and (made.path / "tokenizer.json").is_file()


def _of_model(folder: Path) -> list[str]:
    return [fault.reason for fault in BaseModelConfig(base_model=str(folder), reinit_weights=True).faults()]
