"""`pipeline.data_report`: what it adds to the graph, and that models do not wait for it."""

import pytest
from support.configs import ORPO, PRETRAINING, SFT, load

FULL = {"pipeline": {"data_report": "full"}}
TESTED = {**SFT, "test_datasets": [{"path": "other.jsonl", "type": "chat_template"}]}


def test_held_out_datasets_are_compared_with_training_data(tmp_path):
    assert "training_data" not in load(tmp_path, TESTED).node("evaluation_data").inputs
    pipeline = load(tmp_path, {**TESTED, **FULL})
    assert pipeline.node("evaluation_data").inputs["training_data"] == ("training_data",)
    for name in ("tokenized_rows", "training_data", "evaluation_data"):
        assert pipeline.node(name).config.data_report == "full"


def test_it_is_part_of_the_configs_of_data_alone(tmp_path):
    plain, full = load(tmp_path, SFT), load(tmp_path, {**SFT, **FULL})
    cheap = load(tmp_path, {**SFT, "pipeline": {"data_report": "cheap"}})
    changed = {
        node.name for node in full.nodes if node.config.semantic() != plain.node(node.name).config.semantic()
    }
    assert changed == {"tokenized_rows", "training_data"}
    assert all(node.config.semantic() == plain.node(node.name).config.semantic() for node in cheap.nodes)


@pytest.mark.parametrize("config", [ORPO, PRETRAINING])
def test_where_there_are_no_such_figures_a_note_says_so(tmp_path, config):
    (note,) = (note for note in load(tmp_path, {**config, **FULL}).notes if "data_report" in note.path)
    assert note.kind == "idle" and note.path == "pipeline.data_report"
