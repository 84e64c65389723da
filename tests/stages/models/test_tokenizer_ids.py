"""What rows are tokenized with is what every exported folder gives."""

import json
import unicodedata
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from support.project import MODEL_CONFIG, make_project
from support.tiny_model import make_model
from support.tiny_tokenizer import make_tokenizer
from tokenizers import Tokenizer, normalizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from tunemill.stages.errors import UserError
from tunemill.stages.models.tokenizer_ids_body import FIXED_TEXT, check_same_tokenizer

QWEN2 = {**MODEL_CONFIG, "model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], "vocab_size": 416}


def rows_of(folder: Path) -> list[list[int]]:
    with pa.memory_map(str(folder / "rows.arrow")) as file:
        found: list[list[int]] = pa.ipc.open_file(file).read_all()["input_ids"].to_pylist()
    return found


@pytest.mark.parametrize(
    "elsewhere",
    [pytest.param(False, marks=pytest.mark.slow), pytest.param(True, marks=pytest.mark.exhaustive)],
)
def test_a_pipeline_with_a_class_of_its_own_pre_tokenizer(tmp_path: Path, elsewhere: bool) -> None:
    more: dict[str, Any] = {"tokenizer_config": "words"} if elsewhere else {}
    project = make_project(tmp_path / "p", sequence_len=256, pipeline={"evaluate": []}, **more)
    if elsewhere:
        make_tokenizer(project.folder / "words")
    (project.folder / "model" / "config.json").write_text(json.dumps(QWEN2))
    text = "It's 12345  nai\u0308ve,\n\n  don't"
    row = {"messages": [{"role": "user", "content": text}, {"role": "assistant", "content": text}]}
    (project.folder / "data" / "sums.jsonl").write_text(json.dumps(row) + "\n")
    made = project.run()
    (ids,) = rows_of(made["tokenized_sums"].published.data)
    for node in ("base_model", "trained", "merged", "quantized"):
        for reader in (AutoTokenizer, PreTrainedTokenizerFast):
            words = reader.from_pretrained(made[node].published.data)
            whole = words.apply_chat_template(row["messages"], return_dict=False)
            assert whole == ids, (node, reader)
    plain = PreTrainedTokenizerFast.from_pretrained(project.folder / "model")
    assert plain.apply_chat_template(row["messages"], return_dict=False) != ids, "the case shows nothing"


def test_folders_that_differ_are_refused(tmp_path: Path) -> None:
    same, other = make_model(tmp_path / "same"), make_model(tmp_path / "other")
    check_same_tokenizer(same, other)
    words = Tokenizer.from_file(str(other / "tokenizer.json"))
    words.normalizer = normalizers.Lowercase()
    words.save(str(other / "tokenizer.json"))
    with pytest.raises(UserError, match="gives other token ids than the one that the rows are made with"):
        check_same_tokenizer(same, other)


def test_the_fixed_text_shows_a_normalizer() -> None:
    assert unicodedata.normalize("NFC", FIXED_TEXT) != FIXED_TEXT
