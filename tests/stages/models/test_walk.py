"""A walk is the model's own forward pass."""

import torch
from support.tiny_model import tiny_config
from transformers import AutoModelForSequenceClassification

from tunemill.stages.models.probe_body import logits_of
from tunemill.stages.models.walk_body import Walk


def test_a_model_that_scores_sequences_says_what_it_makes_of_each_beginning() -> None:
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(tiny_config(num_labels=1)).eval()
    ids = torch.arange(3, 23).reshape(2, 10)
    walk = Walk(model, {}, ids)
    walk.go()
    assert walk.arrive() is None
    assert walk.logits().shape == (2, 10, 1)
    torch.testing.assert_close(walk.logits(), logits_of(model, ids))
    walk.close()
