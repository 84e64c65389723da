"""The keys of what is done with a finished model: read, refused or noted."""

import pytest
from support.configs import SFT, load, problems

from tunemill.pipelines.config.schema import field_schema
from tunemill.pipelines.config.use_config import VllmSettings


def test_they_are_read_and_move_no_key(tmp_path):
    keys = {"gradio_title": "Mine", "gradio_temperature": 0.5, "vllm": {"port": 9000, "max_model_len": 512}}
    pipeline = load(tmp_path, {**SFT, **keys})
    assert pipeline.use.gradio_title == "Mine" and pipeline.use.vllm.port == 9000 and not pipeline.notes
    plain = load(tmp_path, SFT)
    assert plain.use is None
    assert [node.config for node in pipeline.nodes] == [node.config for node in plain.nodes]


def test_editors_know_all_of_a_block_of_which_a_training_reads_a_part():
    for key in VllmSettings.model_fields:
        assert field_schema(f"vllm.{key}")["title"] == key.replace("_", " ").title()


@pytest.mark.parametrize(
    ("keys", "path", "said"),
    [
        ({"gradio_server_port": 70_000}, "gradio_server_port", "65535"),
        ({"gradio_max_new_tokens": 0}, "gradio_max_new_tokens", "above 0"),
        ({"gradio_temperature": -1}, "gradio_temperature", "0"),
        ({"vllm": {"prot": 1}}, "vllm.prot", "port"),
        ({"vllm": {"gpu_memory_utilization": 1.5}}, "vllm.gpu_memory_utilization", "1"),
        ({"vllm": {"dtype": "fp8"}}, "vllm.dtype", "bfloat16"),
        ({"vllm": {"enable_reasoning": True}}, "vllm", "reasoning_parser"),
    ],
)
def test_wrong_values_are_told_with_their_key(tmp_path, keys, path, said):
    (problem,) = problems(tmp_path, {**SFT, **keys})
    assert problem.path == path and said in str(problem)


def test_what_asks_for_nothing_is_noted(tmp_path):
    block = {"device": "auto", "serve_module": "x.y", "enable_reasoning": True, "reasoning_parser": "qwen3"}
    notes = load(tmp_path, {**SFT, "vllm": block}).notes
    assert {note.path for note in notes} == {"vllm.device", "vllm.serve_module", "vllm.enable_reasoning"}
    assert {note.kind for note in notes} == {"idle"}
