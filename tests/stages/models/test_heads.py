"""Models that score, made of language models: the same new head everywhere, and nothing else is new."""

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.quantized import make_base, quantized
from support.tiny_model import make_model
from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification, MambaConfig

from tunemill.stages.errors import SettingError, SourceError
from tunemill.stages.models.heads import Head, head_of_config
from tunemill.stages.models.heads_body import check_head, head_modules, head_of_folder
from tunemill.stages.models.loading_body import load_causal_lm, load_model
from tunemill.stages.models.probe_body import fixed_tokens, logits_of
from tunemill.stages.models.skeleton_body import skeleton_of_folder

REWARD, STEPS = Head("sequence", 1), Head("token", 3)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return make_model(tmp_path_factory.mktemp("base"), tie_word_embeddings=True)


@pytest.mark.parametrize(
    ("head", "stock"),
    [(REWARD, AutoModelForSequenceClassification), (STEPS, AutoModelForTokenClassification)],
)
def test_stock_transformers_reads_what_was_saved(base, tmp_path, head, stock):
    made = load_model(base, head, seed=3, dtype=torch.float32).eval()
    made.save_pretrained(tmp_path)
    assert head_of_folder(tmp_path) == head and head_modules(made) == ["score"]
    read, told = stock.from_pretrained(tmp_path, output_loading_info=True)
    assert not told["missing_keys"] and not told["unexpected_keys"]
    ids = fixed_tokens(416)
    found = logits_of(load_model(tmp_path, dtype=torch.float32), ids)
    assert found.shape == (4, 24, head.labels) and torch.equal(found, logits_of(made, ids))
    assert torch.equal(found, logits_of(read.eval(), ids))
    assert type(skeleton_of_folder(tmp_path)) is type(made)


def test_the_head_is_drawn_from_the_seed_alone_and_the_body_is_the_bases(base):
    torch.manual_seed(5)
    one = load_model(base, REWARD, seed=1, dtype=torch.float32).state_dict()
    torch.manual_seed(6)
    same, other = (load_model(base, REWARD, seed=seed, dtype=torch.float32).state_dict() for seed in (1, 2))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["score.weight"], other["score.weight"])
    plain = load_causal_lm(base, dtype=torch.float32).state_dict()
    assert all(torch.equal(one[name], plain[name]) for name in one.keys() - {"score.weight"})
    # The spread of the model's config, .2.
    assert 0.1 < float(one["score.weight"].std()) < 0.3
    assert not load_model(base, STEPS, dtype=torch.float32).score.bias.any()


def test_a_head_on_a_base_in_bits_is_whole(tmp_path):
    wide = make_base(tmp_path / "base")
    folder = quantized(tmp_path / "bits", wide)[0].path
    found = load_model(folder, REWARD, dtype=torch.float32)
    assert type(found.score) is torch.nn.Linear and found.score.weight.dtype == torch.float32
    assert found.model.layers[0].mlp.up_proj.weight.dtype != torch.float32
    expected = load_model(wide.path, REWARD, dtype=torch.float32).score.weight
    assert torch.equal(found.score.weight, expected)


def test_what_is_no_such_model_is_refused(base, tmp_path):
    load_model(base, REWARD, dtype=torch.float32).save_pretrained(tmp_path)
    with pytest.raises(SettingError, match=r"it is a model that scores whole sequences .1 score., and"):
        load_causal_lm(tmp_path, dtype=torch.float32)
    with pytest.raises(SettingError, match=r"scores tokens .3 scores. is trained"):
        load_model(tmp_path, STEPS, dtype=torch.float32)
    assert head_of_config({"architectures": ["GPT2ForSequenceClassification"]}) == Head("sequence", 2)


def test_a_family_without_such_a_head_and_a_damaged_folder_are_refused(base, tmp_path):
    with pytest.raises(SettingError, match=r"no class ...ForSequenceClassification for models of type mamba"):
        check_head(MambaConfig(), REWARD)
    load_causal_lm(base, dtype=torch.float32).save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    del weights["model.norm.weight"]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(SourceError, match=r"model.norm.weight: not in its files"):
        load_model(tmp_path, REWARD, dtype=torch.float32)
