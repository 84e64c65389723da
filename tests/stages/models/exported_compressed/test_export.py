"""Models exported for vLLM: in the scheme that was asked for, read by stock transformers, the same bytes twice.

Needs llmcompressor, which wants an older transformers: `test_own_environment.py` runs this file where it is.
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from support.moe import make_moe
from support.tiny_model import (
    Heard,
    evaluation_data,
    folder_bytes,
    make_model,
    random_rows,
    training_data,
    workspace,
)
from transformers import AutoModelForCausalLM, AutoTokenizer

from tunemill.stages.artifacts import Model
from tunemill.stages.errors import SettingError, UserError
from tunemill.stages.models.base_model.config import BaseModelConfig
from tunemill.stages.models.compressed_fit import fault_of_model
from tunemill.stages.models.exported_compressed.body import export
from tunemill.stages.models.exported_compressed.config import ExportedCompressedConfig
from tunemill.stages.models.exported_compressed.proof_body import prove
from tunemill.stages.models.quantization import QuantizationSettings

needs_llmcompressor = pytest.mark.skipif(
    find_spec("llmcompressor") is None,
    reason="llmcompressor is not installed: pip install 'tunemill[llmcompressor]'",
)
SCHEMES = ["fp8-dynamic", "w8a8", "w4a16", "nvfp4"]
QUERY = "model.layers.1.self_attn.q_proj"
# Two layers of a model that is 64 wide: weights of linear layers, and their rows.
WEIGHTS, ROWS, MODULES = 2 * (64 * 64 * 4 + 64 * 128 * 3), 2 * (64 * 4 + 128 * 2 + 64), 14


@dataclass(frozen=True)
class Made:
    """A model, what was exported of it, and what was said."""

    source: Path
    result: Path
    config: ExportedCompressedConfig
    summary: dict[str, Any]


def config_of(scheme: str, **settings: Any) -> ExportedCompressedConfig:
    given = {"scheme": scheme, **({"group_size": 32} if scheme == "w4a16" else {}), **settings}
    return ExportedCompressedConfig.model_validate(given)


def make(folder: Path, scheme: str, source: Path, **settings: Any) -> Made:
    out, heard, config = workspace(folder), Heard(), config_of(scheme, calibration_rows=24, **settings)
    rows = training_data(folder / "rows", random_rows(60, longest=24))
    held_out = evaluation_data(folder / "held_out", random_rows(20, seed=7, longest=24))
    export(config, Model(source), out, heard.report, rows, held_out)
    return Made(source, out.data, config, heard.summary)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("source") / "model"
    made = make_model(
        folder, dtype=torch.bfloat16, hidden_size=64, intermediate_size=128, tie_word_embeddings=True
    )
    (made / "generation_config.json").write_text('{"eos_token_id": 2, "temperature": 0.7}')
    return made


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, source: Path) -> Callable[[str], Made]:
    """The export of a scheme, made once."""
    found: dict[str, Made] = {}

    def get(scheme: str) -> Made:
        if scheme not in found:
            found[scheme] = make(tmp_path_factory.mktemp(scheme), scheme, source)
        return found[scheme]

    return get


@needs_llmcompressor
@pytest.mark.parametrize("scheme", SCHEMES)
def test_stock_transformers_reads_what_the_headers_promise(made: Callable[[str], Made], scheme: str) -> None:
    found = made(scheme)
    expected = {
        "fp8-dynamic": WEIGHTS + 2 * ROWS,
        "w8a8": WEIGHTS + 2 * ROWS,
        "w4a16": WEIGHTS // 2 + 2 * WEIGHTS // 32 + 16 * MODULES,
        "nvfp4": WEIGHTS // 2 + WEIGHTS // 16 + 8 * MODULES,
    }[scheme]
    assert found.summary["bytes_before"] - found.summary["bytes_after"] == 2 * WEIGHTS - expected
    assert found.summary["quantized_modules"] == MODULES
    assert found.summary["calibration_rows"] == (0 if scheme == "fp8-dynamic" else 24)
    assert 0 < found.summary["kl_to_unquantized"] <= found.summary["kl_to_unquantized_bound"]
    assert found.summary["max_abs_difference_reloaded"] == 0
    assert found.summary["compared_with"] == "held-out rows" and found.summary["proof"] == "partial"
    assert 0 < found.summary["largest_error_in_bounds"] < 1
    ids = torch.arange(3, 60).reshape(3, 19)
    with torch.no_grad():
        logits, before = (
            AutoModelForCausalLM.from_pretrained(folder, dtype="auto").eval()(ids).logits.float()
            for folder in (found.result, found.source)
        )
    assert 0 < float((logits - before).abs().mean()) < 0.6 * float(before.abs().mean())
    one, other = (AutoTokenizer.from_pretrained(folder) for folder in (found.result, found.source))
    assert one.chat_template == other.chat_template and one.eos_token_id == other.eos_token_id
    assert json.loads((found.result / "generation_config.json").read_text())["temperature"] == 0.7


@needs_llmcompressor
@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_same_bytes_twice(tmp_path: Path, made: Callable[[str], Made], source: Path, scheme: str) -> None:
    again = make(tmp_path, scheme, source)
    assert folder_bytes(again.result) == folder_bytes(made(scheme).result)


@needs_llmcompressor
def test_other_rows_give_other_numbers(tmp_path: Path, made: Callable[[str], Made], source: Path) -> None:
    again = make(tmp_path, "w4a16", source, seed=1)
    assert folder_bytes(again.result) != folder_bytes(made("w4a16").result)


def of_tensors(change: Callable[[dict[str, torch.Tensor]], None]) -> Callable[[Path], None]:
    """A fault in the tensors of a folder's only file."""

    def plant(folder: Path) -> None:
        path = folder / "model.safetensors"
        tensors = load_file(path)
        with safe_open(path, "pt") as reader:
            metadata = reader.metadata()
        change(tensors)
        save_file(tensors, path, metadata=metadata)

    return plant


def of_config(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def plant(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        change(config)
        (folder / "config.json").write_text(json.dumps(config))

    return plant


def swap_rows(name: str) -> Callable[[dict[str, torch.Tensor]], None]:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        tensors[name] = tensors[name][[1, 0, *range(2, len(tensors[name]))]].contiguous()

    return change


def shift_scales(tensors: dict[str, torch.Tensor]) -> None:
    tensors[f"{QUERY}.weight_scale"] = tensors[f"{QUERY}.weight_scale"].roll(1, dims=-1).contiguous()


def widen(tensors: dict[str, torch.Tensor]) -> None:
    """One module in full precision."""
    scale = tensors.pop(f"{QUERY}.weight_scale")
    tensors[f"{QUERY}.weight"] = (tensors[f"{QUERY}.weight"].float() * scale.float()).bfloat16()


def remove(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def say_of_config(**changes: Any) -> Callable[[Path], None]:
    return of_config(lambda config: config["quantization_config"].update(changes))


def group_64(config: dict[str, Any]) -> None:
    config["quantization_config"]["config_groups"]["group_0"]["weights"]["group_size"] = 64


def forget_the_stop_token(folder: Path) -> None:
    (folder / "generation_config.json").write_text('{"temperature": 0.7}')


GONE = "chat_template.jinja"
FAR = "times as far from the model's"
# Name -> the scheme of the export, what is planted, and what is said.
FAULTS: dict[str, tuple[str, Callable[[Path], None], str]] = {
    "no module": (
        "fp8-dynamic",
        of_config(lambda config: config.pop("quantization_config")),
        "says nothing of compressed-tensors",
    ),
    "another scheme": ("w8a8", say_of_config(format="float-quantized"), "config.json says"),
    "another group size": ("w4a16", of_config(group_64), "64 inputs share a scale, and 32 of a row do"),
    "a module left out": (
        "fp8-dynamic",
        of_tensors(widen),
        f"{QUERY}.weight is stored in full precision (BF16)",
    ),
    "scales off by one group": ("w4a16", of_tensors(shift_scales), "the scale of row"),
    "scales off by one group in NVFP4": ("nvfp4", of_tensors(shift_scales), "the scale of row"),
    "scales of other rows": ("w8a8", of_tensors(swap_rows(f"{QUERY}.weight_scale")), "the scale of row"),
    "rows of a weight swapped": ("fp8-dynamic", of_tensors(swap_rows(f"{QUERY}.weight")), FAR),
    "packed rows swapped": ("w4a16", of_tensors(swap_rows(f"{QUERY}.weight_packed")), FAR),
    "embedding rows permuted": (
        "w8a8",
        of_tensors(swap_rows("model.embed_tokens.weight")),
        "model.embed_tokens.weight is not quantized, and 2 of its 416 rows are others",
    ),
    "a tensor gone": (
        "nvfp4",
        of_tensors(lambda tensors: tensors.pop("model.norm.weight")),
        "model.norm.weight is gone",
    ),
    "chat template dropped": ("fp8-dynamic", remove(GONE), f"{GONE} is not there any more"),
    "stop token missing": (
        "fp8-dynamic",
        forget_the_stop_token,
        "generation_config.json: eos_token_id is None, and was 2",
    ),
    "tied head lost": (
        "fp8-dynamic",
        of_config(lambda config: config.update(tie_word_embeddings=False)),
        "tie_word_embeddings is False",
    ),
}


@needs_llmcompressor
@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found(tmp_path: Path, made: Callable[[str], Made], fault: str) -> None:
    scheme, plant, words = FAULTS[fault]
    found = made(scheme)
    copy = shutil.copytree(found.result, tmp_path / "copy")
    plant(copy)
    with pytest.raises(UserError, match=r"^pipeline\.export: ") as error:
        prove(found.source, copy, found.config)
    assert words in str(error.value)


@needs_llmcompressor
def test_an_export_of_another_model_is_found(tmp_path: Path, made: Callable[[str], Made]) -> None:
    other = make_model(
        tmp_path / "m",
        seed=1,
        dtype=torch.bfloat16,
        hidden_size=64,
        intermediate_size=128,
        tie_word_embeddings=True,
    )
    shutil.copy(made("w8a8").source / "generation_config.json", other)
    with pytest.raises(UserError, match="the scale of row"):
        prove(other, made("w8a8").result, made("w8a8").config)


@needs_llmcompressor
def test_inputs_that_are_never_used_are_no_fault(tmp_path: Path, source: Path) -> None:
    folder = shutil.copytree(source, tmp_path / "model")

    def silence(tensors: dict[str, torch.Tensor]) -> None:
        tensors["model.layers.0.mlp.up_proj.weight"][5] = 0

    of_tensors(silence)(folder)
    found = make(tmp_path / "out", "w8a8", folder)
    assert found.summary["unused_inputs_share"] > 0


@pytest.mark.parametrize(
    ("changes", "scheme", "settings", "words"),
    [
        ({}, "nvfp4", {}, "nvfp4 is computed in bfloat16"),
        ({}, "w4a16", {"group_size": 128}, "has 64 inputs, of which 128 at a time share a scale"),
    ],
)
def test_a_model_that_does_not_fit_is_refused(
    tmp_path: Path, changes: dict[str, Any], scheme: str, settings: dict[str, Any], words: str
) -> None:
    config = config_of(scheme, **settings)
    reason = fault_of_model(make_model(tmp_path / "m", **changes), config.scheme, config.group_size)
    assert reason is not None and words in reason


def test_experts_and_models_quantized_already_are_refused(tmp_path: Path) -> None:
    assert "a mixture of experts" in (
        fault_of_model(make_moe("mixtral", tmp_path / "moe"), "fp8-dynamic", 128) or ""
    )
    folder = make_model(tmp_path / "m")
    of_config(lambda config: config.update(quantization_config={}))(folder)
    assert "quantized already" in (fault_of_model(folder, "fp8-dynamic", 128) or "")


@pytest.mark.parametrize(
    ("make", "scheme", "words"),
    [
        (lambda folder: make_moe("mixtral", folder), "fp8-dynamic", "fp8-dynamic: the model is a mixture of experts"),
        (make_model, "w4a16", "w4a16: model.layers.0.mlp.down_proj.weight has 64 inputs, of which 128 at a time"),
    ],
)  # fmt: skip
def test_what_the_base_shows_is_known_before_it_is_trained(
    tmp_path: Path, make: Callable[[Path], Path], scheme: str, words: str
) -> None:
    exports = [{"format": "compressed-tensors", "scheme": scheme}]
    (fault,) = BaseModelConfig(base_model=str(make(tmp_path / "base")), exports=exports).faults()
    assert fault.key == "exports" and fault.reason.startswith(words)


def test_the_type_of_the_base_is_that_of_what_an_adapter_is_folded_into(tmp_path: Path) -> None:
    base = make_model(tmp_path / "base")
    exports = [{"format": "compressed-tensors", "scheme": "nvfp4"}]
    (fault,) = BaseModelConfig(base_model=str(base), exports=exports, adapter="lora").faults()
    assert fault.key == "exports"
    assert fault.reason.startswith("nvfp4: it is computed in bfloat16, and the base, whose type the model")
    assert "is in float32" in fault.reason
    mxfp4 = QuantizationSettings(weight_dtype="mxfp4", activation_dtype="mxfp4")
    (fault,) = BaseModelConfig(base_model=str(base), quantization=mxfp4, adapter="lora").faults()
    assert fault.key == "quantization" and "mxfp4 is stored of models in bfloat16" in fault.reason
    of_config(lambda config: config.update(dtype="bfloat16"))(base)
    assert not list(BaseModelConfig(base_model=str(base), exports=exports, adapter="lora").faults())


def test_towers_beside_the_language_model_are_not_looked_at(tmp_path: Path) -> None:
    base = make_model(tmp_path / "base")
    of_config(lambda config: config.update(text_config={}))(base)
    exports = [{"format": "compressed-tensors", "scheme": "w4a16"}]
    assert not list(BaseModelConfig(base_model=str(base), exports=exports).faults())


@pytest.mark.skipif(find_spec("llmcompressor") is not None, reason="llmcompressor is installed")
def test_without_the_package_it_says_what_to_install(tmp_path: Path) -> None:
    (fault,) = config_of("w8a8").faults()
    assert fault.key == "scheme" and "pip install 'tunemill[llmcompressor]'" in fault.reason
    with pytest.raises(SettingError, match=r"pip install 'tunemill\[llmcompressor\]'"):
        make(tmp_path / "out", "w8a8", tmp_path)


@pytest.mark.parametrize(
    ("precision", "type_"),
    [
        ({"bf16": True}, "BF16"), ({"bf16": "full"}, "BF16"), ({"bfloat16": True}, "BF16"), ({"fp8": True}, "BF16"),
        ({"float32": True}, "F32"), ({"bf16": False}, "F32"), ({"bf16": False, "fp16": True}, "F32"), ({}, None),
    ],
)  # fmt: skip
def test_of_a_model_that_is_trained_whole_the_training_says_the_type(
    tmp_path: Path, precision: dict[str, Any], type_: str | None
) -> None:
    exports = [{"format": "compressed-tensors", "scheme": "nvfp4"}]
    mxfp4 = QuantizationSettings(weight_dtype="mxfp4", activation_dtype="mxfp4")
    # Where the base is not here, or only its config.json, it is known all the same.
    base = str(make_model(tmp_path / "base")) if type_ == "BF16" else "not/here"
    config = BaseModelConfig(base_model=base, exports=exports, quantization=mxfp4, **precision)
    assert config.trained_type == type_
    told = {fault.key: fault.reason for fault in config.faults() if fault.key != "base_model"}
    noted = {item.key: item.reason for item in config.needs_gpu()}
    assert told.keys() == ({"exports", "quantization"} if type_ == "F32" else set())
    assert all("weights are trained in float32 here. Set bf16: true" in reason for reason in told.values())
    assert noted.keys() == ({"exports", "quantization"} if type_ is None else set())
    assert not list(config.model_copy(update={"adapter": "lora"}).needs_gpu())
