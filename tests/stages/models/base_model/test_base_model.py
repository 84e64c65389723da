"""The `base_model` stage on real tiny models."""

import errno
import json
import os
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from support.tiny_model import VOCABULARY, Heard, folder_bytes, make_model, tiny_config, workspace
from support.tiny_tokenizer import make_tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

from tunemill.stages.artifacts import Model, Tokenizer
from tunemill.stages.errors import SettingError, SourceError
from tunemill.stages.models.base_model.body import base_model
from tunemill.stages.models.base_model.config import BaseModelConfig
from tunemill.stages.models.base_model.special_tokens import align_special_tokens
from tunemill.stages.models.files import copy_file, tokenizer_files, weight_files
from tunemill.stages.models.weights import read_header, sort_header, tensors_of_model


@pytest.fixture
def tokenizer(tmp_path: Path) -> Tokenizer:
    return Tokenizer(make_tokenizer(tmp_path / "tokenizer"))


def run(
    config: BaseModelConfig, tokenizer: Tokenizer, folder: Path, upstream: Model | None = None
) -> tuple[Path, Heard]:
    out, heard = workspace(folder), Heard()
    base_model(config, tokenizer=tokenizer, upstream=upstream, out=out, report=heard.report)
    return out.data, heard


def test_files_are_copied_and_loaded_by_stock_transformers(tmp_path: Path, tokenizer: Tokenizer) -> None:
    source = make_model(tmp_path / "source")
    data, heard = run(BaseModelConfig(base_model=str(source)), tokenizer, tmp_path / "out")
    assert (data / "model.safetensors").read_bytes() == (source / "model.safetensors").read_bytes()
    assert sorted(path.name for path in data.iterdir()) == [
        "chat_template.jinja", "config.json", "generation_config.json", "model.safetensors", "tokenizer.json",
        "tokenizer_config.json",
    ]  # fmt: skip
    model = AutoModelForCausalLM.from_pretrained(data)
    assert heard.summary["parameters"] == sum(p.numel() for p in model.parameters())
    assert heard.summary["dtype"] == "F32"
    assert heard.summary["bytes"] == 4 * heard.summary["parameters"]
    assert AutoTokenizer.from_pretrained(data).chat_template is not None


def test_only_model_files_are_taken_and_links_are_followed(tmp_path: Path, tokenizer: Tokenizer) -> None:
    source = make_model(tmp_path / "source", max_shard_size="60KB")
    (source / "README.md").write_text("a model card")
    (source / "pytorch_model.bin").write_bytes(b"old")
    shard = min(source.glob("model-*.safetensors"))
    shard.rename(tmp_path / "blob")
    shard.symlink_to(tmp_path / "blob")
    data, _ = run(BaseModelConfig(base_model=str(source)), tokenizer, tmp_path / "out")
    assert not (data / "README.md").exists() and not (data / "pytorch_model.bin").exists()
    assert not (data / shard.name).is_symlink()
    assert len(list(data.glob("*.safetensors"))) > 1
    AutoModelForCausalLM.from_pretrained(data)


def test_weights_that_lie_there_twice_are_taken_once(tmp_path: Path, tokenizer: Tokenizer) -> None:
    whole = make_model(tmp_path / "whole")
    sharded = make_model(tmp_path / "sharded", max_shard_size="60KB")
    for source in (whole, sharded):
        expected = sorted(path.name for path in source.glob("*.safetensors"))
        copy_file(whole / "model.safetensors", source / "consolidated.safetensors")
        data, _ = run(BaseModelConfig(base_model=str(source)), tokenizer, tmp_path / "out" / source.name)
        assert sorted(path.name for path in data.glob("*.safetensors")) == expected
        AutoModelForCausalLM.from_pretrained(data)
    alone = tmp_path / "alone"
    alone.mkdir()
    copy_file(whole / "model.safetensors", alone / "consolidated.safetensors")
    assert [path.name for path in weight_files(alone)] == ["consolidated.safetensors"]
    assert tokenizer_files(alone) == []


def test_changed_weights_do_not_name_the_library_that_wrote_them(
    tmp_path: Path, tokenizer: Tokenizer
) -> None:
    source = make_model(tmp_path / "source")
    (source / "generation_config.json").unlink()
    config = BaseModelConfig(base_model=str(source), reinit_weights=True)
    data, _ = run(config, tokenizer, tmp_path / "out")
    assert "transformers_version" in json.loads((source / "config.json").read_text())
    for name in ("config.json", "generation_config.json"):
        assert "transformers_version" not in json.loads((data / name).read_text())
    AutoModelForCausalLM.from_pretrained(data)


def test_the_same_bytes_twice_however_the_weights_come(tmp_path: Path, tokenizer: Tokenizer) -> None:
    source = make_model(tmp_path / "source", vocab_size=390)
    for name, config in {
        "resized": BaseModelConfig(base_model=str(source)),
        "drawn": BaseModelConfig(base_model=str(source), reinit_weights=True),
    }.items():
        torch.manual_seed(1)
        first, _ = run(config, tokenizer, tmp_path / f"{name}1")
        torch.manual_seed(2)
        again, _ = run(config, tokenizer, tmp_path / f"{name}2")
        assert folder_bytes(first) == folder_bytes(again)


def test_embeddings_grow_with_the_tokenizer(tmp_path: Path, tokenizer: Tokenizer) -> None:
    source = make_model(tmp_path / "source", vocab_size=390)
    tokens = len(AutoTokenizer.from_pretrained(tokenizer.path))
    assert tokens > 390
    data, heard = run(BaseModelConfig(base_model=str(source)), tokenizer, tmp_path / "out")
    before, after = load_file(source / "model.safetensors"), load_file(data / "model.safetensors")
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        assert after[name].shape[0] == tokens
        assert torch.equal(after[name][:390], before[name])
    assert heard.summary["embedding_rows"] == tokens
    assert AutoModelForCausalLM.from_pretrained(data).config.vocab_size == tokens


def test_embeddings_grow_to_a_multiple_of_32(tmp_path: Path, tokenizer: Tokenizer) -> None:
    source = make_model(tmp_path / "source", vocab_size=390)
    config = BaseModelConfig(base_model=str(source), resize_token_embeddings_to_32x=True)
    _, heard = run(config, tokenizer, tmp_path / "out")
    assert heard.summary["embedding_rows"] == 416


def test_seed_and_mean_resizing_change_only_new_rows(tmp_path: Path, tokenizer: Tokenizer) -> None:
    source = make_model(tmp_path / "source", vocab_size=390)
    rows = []
    for number, settings in enumerate(({}, {"seed": 7}, {"mean_resizing_embeddings": False})):
        data, _ = run(BaseModelConfig(base_model=str(source), **settings), tokenizer, tmp_path / str(number))
        rows.append(load_file(data / "model.safetensors")["model.embed_tokens.weight"])
    assert torch.equal(rows[0][:390], rows[1][:390]) and torch.equal(rows[0][:390], rows[2][:390])
    assert not torch.equal(rows[0][390:], rows[1][390:])
    assert not torch.equal(rows[0][390:], rows[2][390:])


def test_weights_are_drawn_from_the_config_alone(tmp_path: Path, tokenizer: Tokenizer) -> None:
    source = tmp_path / "source"
    tiny_config().save_pretrained(source)
    config = BaseModelConfig(base_model=str(source), reinit_weights=True)
    data, heard = run(config, tokenizer, tmp_path / "out")
    other, _ = run(config.model_copy(update={"seed": 43}), tokenizer, tmp_path / "other")
    assert heard.summary["dtype"] == "F32"
    first, second = load_file(data / "model.safetensors"), load_file(other / "model.safetensors")
    assert not torch.equal(first["lm_head.weight"], second["lm_head.weight"])
    assert abs(float(first["lm_head.weight"].std()) - 0.2) < 0.02


def test_overrides_reach_the_config(tmp_path: Path, tokenizer: Tokenizer) -> None:
    source = make_model(tmp_path / "source")
    overrides = {"max_position_embeddings": 512}
    data, _ = run(
        BaseModelConfig(base_model=str(source), overrides_of_model_config=overrides),
        tokenizer,
        tmp_path / "out",
    )
    assert json.loads((data / "config.json").read_text())["max_position_embeddings"] == 512
    before, after = load_file(source / "model.safetensors"), load_file(data / "model.safetensors")
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"num_hidden_layers": 3}, "9 tensors are missing from the files, such as model.layers.2"),
        ({"num_hidden_layers": 1}, "in the files but not in the model, such as model.layers.1"),
        ({"intermediate_size": 32}, "of another shape, such as model.layers.0.mlp"),
        ({"rope_tetha": 1}, "rope_tetha: no such key in the config of a llama model"),
    ],
)
def test_overrides_that_do_not_fit_are_refused(
    tmp_path: Path, tokenizer: Tokenizer, overrides: dict[str, int], message: str
) -> None:
    source = make_model(tmp_path / "source")
    config = BaseModelConfig(base_model=str(source), overrides_of_model_config=overrides)
    with pytest.raises(SettingError, match=message):
        run(config, tokenizer, tmp_path / "out")


def test_a_model_of_another_pipeline_is_taken_as_it_is(tmp_path: Path, tokenizer: Tokenizer) -> None:
    source = make_model(tmp_path / "source", dtype=torch.bfloat16)
    (source / "tunemill_lineage.json").write_text("{}")
    data, heard = run(BaseModelConfig(), tokenizer, tmp_path / "out", upstream=Model(source))
    assert heard.summary["dtype"] == "BF16"
    assert not (data / "tunemill_lineage.json").exists()


def test_generation_stops_at_the_tokenizers_end_token(tmp_path: Path, tokenizer: Tokenizer) -> None:
    source = make_model(tmp_path / "source", eos_token_id=5)
    data, _ = run(BaseModelConfig(base_model=str(source)), tokenizer, tmp_path / "out")
    end = AutoTokenizer.from_pretrained(tokenizer.path).eos_token_id
    assert json.loads((data / "config.json").read_text())["eos_token_id"] == end
    assert json.loads((data / "generation_config.json").read_text())["eos_token_id"] == [end, 5]


def test_a_list_of_end_tokens_and_a_nested_config_are_kept() -> None:
    ids = {"eos_token_id": 9, "bos_token_id": None, "pad_token_id": 0}
    config, generation = align_special_tokens({"eos_token_id": [5, 9], "bos_token_id": 1}, {}, ids)
    assert config == {"eos_token_id": [9, 5], "bos_token_id": 1, "pad_token_id": 0}
    assert generation == {"eos_token_id": 9, "pad_token_id": 0}
    nested, _ = align_special_tokens({"text_config": {"eos_token_id": 5}}, {}, ids)
    assert nested == {"text_config": {"eos_token_id": 9, "pad_token_id": 0}}


def test_folders_that_are_no_model_are_refused(tmp_path: Path, tokenizer: Tokenizer) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    bare = tmp_path / "bare"
    tiny_config().save_pretrained(bare)
    for folder, message in (
        (
            tmp_path / "org" / "name",
            "no such folder; name the folder of a model",
        ),
        (empty, "no config.json"),
        (bare, r"no \*.safetensors. Save the weights .* or set reinit_weights: true"),
    ):
        with pytest.raises(SourceError, match=message):
            run(BaseModelConfig(base_model=str(folder)), tokenizer, tmp_path / "out")


@pytest.mark.parametrize(("key", "message"), [("quantization_config", "already quantized")])
def test_configs_that_cannot_be_trained_are_refused(
    tmp_path: Path, tokenizer: Tokenizer, key: str, message: str
) -> None:
    source = make_model(tmp_path / "source")
    content = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps({**content, key: {}}))
    with pytest.raises(SourceError, match=message):
        run(BaseModelConfig(base_model=str(source)), tokenizer, tmp_path / "out")


def test_damaged_folders_are_refused(tmp_path: Path, tokenizer: Tokenizer) -> None:
    cut = make_model(tmp_path / "cut") / "model.safetensors"
    cut.write_bytes(cut.read_bytes()[:-10])
    with pytest.raises(SourceError, match="cut short or damaged"):
        run(BaseModelConfig(base_model=str(cut.parent)), tokenizer, tmp_path / "out1")
    cut.write_bytes(b"abc")
    with pytest.raises(SourceError, match="not a complete safetensors file"):
        run(BaseModelConfig(base_model=str(cut.parent)), tokenizer, tmp_path / "out2")
    sharded = make_model(tmp_path / "sharded", max_shard_size="60KB")
    gone = min(sharded.glob("model-*.safetensors"))
    gone.unlink()
    with pytest.raises(SourceError, match=rf"names .* in {gone.name}, but it is not there"):
        run(BaseModelConfig(base_model=str(sharded)), tokenizer, tmp_path / "out3")
    twice = make_model(tmp_path / "twice")
    copy_file(twice / "model.safetensors", twice / "more.safetensors")
    (twice / "model.safetensors").rename(twice / "again.safetensors")
    with pytest.raises(SourceError, match=r"is in again\.safetensors and again in more\.safetensors"):
        run(BaseModelConfig(base_model=str(twice)), tokenizer, tmp_path / "out4")


def test_a_copy_is_whole_and_writable(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(bytes(range(256)) * 5000)
    source.chmod(0o444)
    copy_file(source, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == source.read_bytes()
    assert (tmp_path / "copy").stat().st_mode & 0o200
    empty = tmp_path / "empty"
    empty.touch()
    copy_file(empty, tmp_path / "still_empty")
    assert (tmp_path / "still_empty").read_bytes() == b""


@pytest.mark.parametrize("copied", [0, 1000])
def test_a_file_system_that_shares_no_blocks_gets_a_plain_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, copied: int
) -> None:
    source = tmp_path / "source"
    source.write_bytes(bytes(range(256)) * 50)
    answers = iter([copied] if copied else [])

    def refuses(reader: int, writer: int, _count: int) -> int:
        for done in answers:
            return os.write(writer, os.read(reader, done))
        raise OSError(errno.EXDEV, "other device")

    monkeypatch.setattr(os, "copy_file_range", refuses)
    copy_file(source, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == source.read_bytes()


def test_sorting_a_header_keeps_the_tensors(tmp_path: Path) -> None:
    tensors = {"b": torch.arange(6.0).reshape(2, 3), "a": torch.ones(2, dtype=torch.int8)}
    names = [f"key{number}" for number in range(20)]
    contents = set()
    for run_number in range(4):
        path = tmp_path / f"{run_number}.safetensors"
        save_file(tensors, path, metadata={name: name for name in names})
        sort_header(path)
        contents.add(path.read_bytes())
        assert list(read_header(path)[0]["__metadata__"]) == sorted(names)
        assert all(torch.equal(load_file(path)[name], tensors[name]) for name in tensors)
    assert len(contents) == 1


def test_tensors_are_counted_from_headers(tmp_path: Path) -> None:
    stored = tensors_of_model(make_model(tmp_path, max_shard_size="60KB"))
    assert stored["lm_head.weight"].elements == VOCABULARY * 32
    assert stored["lm_head.weight"].size == VOCABULARY * 32 * 4


def test_the_class_may_be_named_and_another_is_refused(tmp_path: Path, tokenizer: Tokenizer) -> None:
    source = str(make_model(tmp_path / "source"))
    for number, name in enumerate(("AutoModelForCausalLM", "LlamaForCausalLM")):
        run(BaseModelConfig(base_model=source, model_type=name), tokenizer, tmp_path / f"out{number}")
    with pytest.raises(
        SettingError, match=r"model_type: MistralForCausalLM: the config.json .* LlamaForCausalLM"
    ):
        run(BaseModelConfig(base_model=source, type_of_model="MistralForCausalLM"), tokenizer, tmp_path / "x")
    with pytest.raises(ValidationError, match="two names of one key"):
        BaseModelConfig(base_model=source, model_type="A", type_of_model="B")
