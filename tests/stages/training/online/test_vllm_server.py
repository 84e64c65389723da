"""A real vLLM, started for a training and given what is trained: it samples of the weights as they are."""

from pathlib import Path
from typing import Any

import pytest
import torch
from stages.training.online.test_vllm_engine import ENDS, PROBE, policy, step
from support.own_environment import python_with_vllm
from support.tiny_model import Heard, make_model, workspace

from tunemill.stages.artifacts import Model
from tunemill.stages.training.online.engine import SamplingSettings
from tunemill.stages.training.online.vllm_engine_body import vllm_engine
from tunemill.stages.training.online.vllm_keys import VllmKeys

pytest.importorskip("openai")
SAMPLING = SamplingSettings(max_new_tokens=6, temperature=0.7)


@pytest.mark.parametrize(
    "lora",
    [
        pytest.param(True, id="adapter", marks=pytest.mark.slow),
        pytest.param(False, id="weights", marks=[pytest.mark.slow, pytest.mark.exhaustive]),
    ],
)
def test_vllm_samples_of_what_is_trained(tmp_path: Path, lora: bool) -> None:
    base = make_model(tmp_path / "base", hidden_size=64)
    model: Any = policy(base, lora=lora)
    config = VllmKeys(use_vllm=True, vllm_python=str(python_with_vllm()), vllm_server_timeout=400)
    out, heard = workspace(tmp_path / "run"), Heard()
    prompts = [PROBE[0]] * 4
    with vllm_engine(config, model, Model(base), PROBE, ENDS, 64, out, heard.report) as engine:
        for number in range(3):
            engine.sync(str(number), number)
            assert engine.gate is not None and engine.gate.apart < 1e-4
            assert engine.gate.is_proven == (number > 0)
            made = engine.generate(prompts, [10 * number + place for place in range(4)], SAMPLING)
            again = engine.generate(prompts, [10 * number + place for place in range(4)], SAMPLING)
            assert made == again, "a seed draws the same again"
            assert len({one.ids for one in made}) > 1
            for one in made:
                ids = torch.tensor([[*PROBE[0], *one.ids]])
                with torch.no_grad():
                    log_p = (model(ids).logits[0, len(PROBE[0]) - 1 : -1] / 0.7).log_softmax(-1)
                expected = log_p.gather(-1, torch.tensor(one.ids)[:, None])[:, 0]
                assert torch.allclose(torch.tensor(one.log_p), expected, atol=1e-3)
            step(model, number)
