"""A pipeline with `tokenizer_use_mistral_common`: every exported folder has the tekken.json and gives its ids."""

import json
import shutil

import pytest
from mistral_common.protocol.instruct.request import ChatCompletionRequest
from mistral_common.tokens.tokenizers.mistral import MistralTokenizer
from support.project import MODEL_CONFIG, make_project
from support.rows import read_arrow
from support.tekken import SPECIAL_IDS, tekken, write_tekken
from transformers import AutoTokenizer

from tunemill.stages.errors import UserError
from tunemill.stages.models.tokenizer_ids_body import check_same_tokenizer

MISTRAL = {
    **MODEL_CONFIG,
    "model_type": "mistral",
    "architectures": ["MistralForCausalLM"],
    "head_dim": 16,
    "vocab_size": tekken()["config"]["default_vocab_size"],
}


@pytest.mark.slow
def test_from_a_tekken_file_to_a_scored_model(tmp_path):
    project = make_project(tmp_path / "p", chat_template=None, tokenizer_use_mistral_common=True)
    model = project.folder / "model"
    shutil.rmtree(model)
    write_tekken(model)
    (model / "config.json").write_text(json.dumps(MISTRAL))
    made = project.run()
    own = MistralTokenizer.from_file(model / "tekken.json")
    words = own.instruct_tokenizer.tokenizer
    folders = {node: made[node].published.data for node in ("base_model", "trained", "merged", "quantized")}
    for folder in folders.values():
        assert (folder / "tekken.json").read_bytes() == (model / "tekken.json").read_bytes()
        ids = AutoTokenizer.from_pretrained(folder).encode("hello world 12")
        assert ids == words.encode("hello world 12", bos=True, eos=False)
    (row, *_) = read_arrow(made["tokenized_sums"].published.data / "rows.arrow")
    assert row["input_ids"].count(SPECIAL_IDS["[INST]"]) == 1
    # What an answer is asked for with are the tokens with which mistral-common asks.
    question = own.encode_chat_completion(
        ChatCompletionRequest.from_openai([{"role": "user", "content": "0 + 7"}])
    )
    scored = made["evaluation_of_trained"].published.data / "predictions.jsonl"
    first = json.loads(scored.read_text().splitlines()[0])
    assert first["reference"] == "7" and first["prompt"] == AutoTokenizer.from_pretrained(
        folders["trained"]
    ).decode(question.tokens)


def test_folders_with_other_tekken_files_are_refused(tmp_path):
    same, other = (write_tekken(tmp_path / name, version) for name, version in (("a", "v11"), ("b", "v13")))
    with pytest.raises(UserError, match=r"the tekken\.json of this folder is not that"):
        check_same_tokenizer(same, other)
