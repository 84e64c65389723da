"""Folders quantized by GPTQ, AWQ and in NVFP4 are read as numbers in 16 bits.

The packers are written here, bit by bit, from the formats' descriptions, and share nothing with what reads them.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.tiny_model import Heard, make_model, workspace

from tunemill.stages.artifacts import Tokenizer
from tunemill.stages.errors import SettingError, SourceError
from tunemill.stages.models.base_model.body import base_model
from tunemill.stages.models.base_model.config import BaseModelConfig
from tunemill.stages.models.loading_body import is_quantized

# Outputs of 96 rows, inputs of 64 columns: what is packed along one of them is not square.
SIZES = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 1}
NAME = "model.layers.0.mlp.up_proj"
Tensors = dict[str, torch.Tensor]


def pack_stream(codes: list[int], bits: int) -> list[int]:
    """Whole numbers of 32 bits that hold the codes one behind the other, the first in the lowest bits."""
    stream = sum(code << (bits * place) for place, code in enumerate(codes))
    words = [(stream >> (32 * place)) & 0xFFFFFFFF for place in range(len(codes) * bits // 32)]
    return [word - (1 << 32) if word >= 1 << 31 else word for word in words]


def pack_rows(codes: torch.Tensor, bits: int) -> torch.Tensor:
    return torch.tensor([pack_stream(row, bits) for row in codes.tolist()], dtype=torch.int32)


def gptq(weight: torch.Tensor, bits: int, *, order: bool, less_one: bool) -> tuple[Tensors, torch.Tensor]:
    """A weight's tensors in a folder of GPTQ, and the numbers that they stand for."""
    outputs, inputs = weight.shape
    codes = torch.randint(2**bits, (inputs, outputs))
    zeros = torch.randint(2**bits, (inputs // 32, outputs))
    scales = torch.rand(inputs // 32, outputs).half()
    group = torch.randperm(inputs) // 32 if order else torch.arange(inputs) // 32
    expected = torch.empty(outputs, inputs)
    for out in range(outputs):
        for one in range(inputs):
            of_group = group[one]
            expected[out, one] = float(codes[one, out] - zeros[of_group, out]) * float(scales[of_group, out])
    stored = (zeros - 1) % 2**bits if less_one else zeros
    tensors = {
        ".qweight": pack_rows(codes.T, bits).T.contiguous(),
        ".qzeros": pack_rows(stored, bits),
        ".scales": scales,
    }
    return ({**tensors, ".g_idx": group.int()} if order else tensors), expected.half()


def awq(weight: torch.Tensor) -> tuple[Tensors, torch.Tensor]:
    outputs, inputs = weight.shape
    codes, zeros = torch.randint(16, (inputs, outputs)), torch.randint(16, (inputs // 32, outputs))
    scales = torch.rand(inputs // 32, outputs).half()
    order = [0, 2, 4, 6, 1, 3, 5, 7]

    def pack(table: torch.Tensor) -> torch.Tensor:
        shuffled = [
            [row[8 * number + place] for number in range(outputs // 8) for place in order]
            for row in table.tolist()
        ]
        return pack_rows(torch.tensor(shuffled), 4)

    expected = torch.empty(outputs, inputs)
    for one in range(inputs):
        expected[:, one] = (codes[one] - zeros[one // 32]).float() * scales[one // 32].float()
    return {".qweight": pack(codes), ".qzeros": pack(zeros), ".scales": scales}, expected.half()


def nvfp4(weight: torch.Tensor, *, modelopt: bool) -> tuple[Tensors, torch.Tensor]:
    outputs, inputs = weight.shape
    numbers = [0, 0.5, 1, 1.5, 2, 3, 4, 6]
    codes = torch.randint(16, (outputs, inputs))
    scales = (torch.rand(outputs, inputs // 16) * 100 + 1).to(torch.float8_e4m3fn)
    expected = torch.empty(outputs, inputs)
    for out in range(outputs):
        for one in range(inputs):
            code = int(codes[out, one])
            number = numbers[code % 8] * (-1 if code >= 8 else 1)
            expected[out, one] = number * float(scales[out, one // 16]) / 512
    packed = (codes[:, 0::2] | codes[:, 1::2] << 4).to(torch.uint8)
    if modelopt:
        tensors = {
            ".weight": packed,
            ".weight_scale_2": torch.tensor(1 / 512),
            ".input_scale": torch.tensor(2.0),
        }
    else:
        tensors = {".weight_packed": packed, ".weight_global_scale": torch.tensor([512.0])}
    return {**tensors, ".weight_scale": scales}, expected.to(torch.bfloat16)


def packed_model(
    folder: Path, pack: Any, settings: dict[str, Any], dtype: torch.dtype
) -> tuple[Path, Tensors]:
    """A folder whose projections are packed, and the weights that they stand for."""
    source, tensors, expected = make_model(folder, dtype=dtype, **SIZES), {}, {}
    torch.manual_seed(1)
    for name, weight in load_file(source / "model.safetensors").items():
        if not name.endswith("_proj.weight"):
            tensors[name] = expected[name] = weight
            continue
        found, expected[name] = pack(weight)
        tensors |= {name.removesuffix(".weight") + end: tensor for end, tensor in found.items()}
    save_file(tensors, source / "model.safetensors", metadata={"format": "pt"})
    path = source / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "quantization_config": settings}))
    return source, expected


def read(source: Path, folder: Path, **settings: Any) -> tuple[Path, Heard]:
    out, heard = workspace(folder), Heard()
    config = BaseModelConfig(base_model=str(source), **settings)
    base_model(config, tokenizer=Tokenizer(source), upstream=None, out=out, report=heard.report)
    assert not list(config.faults()) and not is_quantized(out.data)
    return out.data, heard


def check(source: Path, expected: Tensors, folder: Path, **settings: Any) -> None:
    data, heard = read(source, folder, **settings)
    found = load_file(data / "model.safetensors")
    assert found.keys() == expected.keys()
    for name, weight in expected.items():
        assert found[name].dtype == weight.dtype and torch.equal(found[name], weight), name
    assert heard.summary["unpacked_modules"] == 7
    assert "they are read as numbers in 16 bits" in heard.of("log")[0]["message"]


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize(("order", "layout"), [(False, "gptq"), (True, "gptq_v2")])
def test_gptq(tmp_path: Path, bits: int, order: bool, layout: str) -> None:
    settings = {"quant_method": "gptq", "bits": bits, "group_size": 32, "desc_act": order}
    settings |= {} if layout == "gptq" else {"checkpoint_format": layout}
    source, expected = packed_model(
        tmp_path / "source",
        lambda weight: gptq(weight, bits, order=order, less_one=layout == "gptq"),
        settings,
        torch.float16,
    )
    check(source, expected, tmp_path / "out", gptq=True)


def test_awq(tmp_path: Path) -> None:
    settings = {"quant_method": "awq", "bits": 4, "group_size": 32, "version": "gemm", "zero_point": True}
    check(*packed_model(tmp_path / "source", awq, settings, torch.float16), tmp_path / "out")


@pytest.mark.parametrize("modelopt", [False, True])
def test_nvfp4(tmp_path: Path, modelopt: bool) -> None:
    settings = {"quant_method": "compressed-tensors", "format": "nvfp4-pack-quantized"}
    if modelopt:
        settings = {"quant_method": "modelopt", "quant_algo": "NVFP4"}
    made = packed_model(
        tmp_path / "source", lambda weight: nvfp4(weight, modelopt=modelopt), settings, torch.bfloat16
    )
    check(*made, tmp_path / "out", adapter="lora", overrides_of_model_config={"attention_dropout": 0.25})


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"quant_method": "gptq", "bits": 5}, "bits 5, and only 2, 3, 4, 8 are read"),
        ({"quant_method": "gptq", "bits": 4, "checkpoint_format": "marlin"}, "checkpoint_format marlin"),
        ({"quant_method": "gptq", "bits": 4, "dynamic": {"+:.*": {"bits": 8}}}, "modules of other bits"),
        ({"quant_method": "awq", "version": "gemv"}, "version gemv, and only gemm"),
        ({"quant_method": "awq", "backend": "llm-awq"}, "backend llm-awq, and only"),
        ({"quant_method": "awq", "bits": 3}, "bits 3, and only 4"),
        (
            {"quant_method": "compressed-tensors", "format": "pack-quantized"},
            "format pack-quantized, and only",
        ),
        ({"quant_method": "modelopt", "quant_algo": "FP8"}, "quant_algo FP8, and only NVFP4"),
    ],
)
def test_formats_that_are_not_read(tmp_path: Path, settings: dict[str, Any], reason: str) -> None:
    source = make_model(tmp_path / "source")
    path = source / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "quantization_config": settings}))
    config = BaseModelConfig(base_model=str(source), gptq=settings["quant_method"] == "gptq")
    assert [reason in fault.reason for fault in config.faults()] == [True]
    with pytest.raises(SourceError, match=reason):
        base_model(
            config, tokenizer=Tokenizer(source), upstream=None, out=workspace(tmp_path), report=Heard().report
        )


def test_the_key_and_the_folder_say_the_same(tmp_path: Path) -> None:
    plain = make_model(tmp_path / "plain")
    (fault,) = BaseModelConfig(base_model=str(plain), gptq=True).faults()
    assert fault.key == "gptq" and "are not quantized by GPTQ. Take it out" in fault.reason
    with pytest.raises(SettingError, match="gptq: true, but the weights of"):
        read(plain, tmp_path / "out", gptq=True)
    settings = {"quant_method": "gptq", "bits": 4, "group_size": 32}
    source, _ = packed_model(
        tmp_path / "source",
        lambda weight: gptq(weight, 4, order=True, less_one=True),
        settings,
        torch.float16,
    )
    (fault,) = BaseModelConfig(base_model=str(source)).faults()
    assert fault.key == "base_model" and "Set gptq: true to read them as numbers" in fault.reason
    tensors = load_file(source / "model.safetensors")
    del tensors[f"{NAME}.scales"]
    save_file(tensors, source / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(SourceError, match=r"up_proj\.scales is missing from the files"):
        read(source, tmp_path / "incomplete", gptq=True)


def test_the_config_of_another_folder_hides_no_format(tmp_path: Path) -> None:
    plain, source = make_model(tmp_path / "plain"), make_model(tmp_path / "source")
    path = source / "config.json"
    settings = {"quant_method": "awq", "version": "gemv"}
    path.write_text(json.dumps({**json.loads(path.read_text()), "quantization_config": settings}))
    for model, described, key, reason in (
        (source, plain, "base_model", "version gemv, and only gemm is read"),
        (plain, source, "base_model_config", "says that weights are quantized, by awq"),
    ):
        config = BaseModelConfig(base_model=str(model), base_model_config=str(described))
        (fault,) = config.faults()
        assert fault.key == key and reason in fault.reason
        with pytest.raises(SourceError, match=f"{key}: .*{reason}"):
            read(model, tmp_path / key, base_model_config=str(described))
    with pytest.raises(SourceError, match=r"base_model_config: .*no config\.json in it"):
        read(plain, tmp_path / "empty", base_model_config=str(tmp_path))
    path.write_text("[")
    (fault,) = BaseModelConfig(base_model=str(plain), base_model_config=str(source)).faults()
    assert fault.key == "base_model_config" and "is no JSON object" in fault.reason
    path.write_bytes(b"\xef\xbb\xbf{}")
    (fault,) = BaseModelConfig(base_model=str(plain), base_model_config=str(source)).faults()
    assert f"{path} begins with a byte order mark" in fault.reason
