"""A whole training beside TRL's GRPOTrainer: the same completions give the same losses, figures and weights.

TRL's completions are ours of the same round, which its `rollout_func` reads from the journal. Everything behind them is
each side's own: rewards, advantages, probabilities of the policy and the reference, the loss, the optimizer.
"""

from importlib.util import module_from_spec, spec_from_file_location

import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file
from support.online import answer_to, asking, rewards_file, trained, words_to_sort
from support.tiny_model import Heard, make_model
from support.trl_training import assert_same_curves, trl_trainer

from tunemill.stages.training.online.journal import Journal

ROUNDS, TWICE = 3, 2
OURS = {
    "max_steps": ROUNDS * TWICE, "num_iterations": TWICE, "micro_batch_size": 4, "gradient_accumulation_steps": 2,
    "num_generations": 4, "max_completion_length": 8, "learning_rate": 1e-3, "temperature": 0.9, "weight_decay": 0.01,
    "reward_funcs": ["letters.varied", "letters.short"], "reward_weights": [1.0, 0.25],
}  # fmt: skip
THEIRS = {
    "max_steps": ROUNDS * TWICE, "num_iterations": TWICE, "per_device_train_batch_size": 4,
    "gradient_accumulation_steps": 2, "num_generations": 4, "max_completion_length": 8, "temperature": 0.9,
    "weight_decay": 0.01, "reward_weights": [1.0, 0.25], "shuffle_dataset": False,
}  # fmt: skip


def letters(folder):
    """The module of the rewards."""
    spec = spec_from_file_location("letters", rewards_file(folder))
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
@pytest.mark.parametrize(
    "keys",
    [
        pytest.param({"loss_type": "dapo", "beta": 0.04, "use_bias_correction_kl": False}, id="dapo"),
        pytest.param(
            {"loss_type": "grpo", "beta": 0.04, "epsilon": 0.01}, id="grpo", marks=pytest.mark.exhaustive
        ),
        pytest.param(
            {"loss_type": "dr_grpo", "scale_rewards": "batch", "importance_sampling_level": "sequence"},
            id="gspo",
            marks=pytest.mark.exhaustive,
        ),
        pytest.param({"loss_type": "cispo", "epsilon_high": 5.0}, id="cispo", marks=pytest.mark.exhaustive),
    ],
)
def test_losses_figures_and_weights_are_those_of_trls_trainer(tmp_path, keys):
    from trl import GRPOConfig, GRPOTrainer

    torch.set_num_threads(1)
    base = make_model(tmp_path / "base", initializer_range=0.2)
    words, heard = words_to_sort()[: 2 * ROUNDS], Heard()
    ours = load_file(
        trained(tmp_path / "run", base, words, heard.report, **OURS, **keys) / "model.safetensors"
    )
    journal = Journal(tmp_path / "run" / "checkpoints" / "journal")
    sampled = iter([journal.rollouts(number, 0) for number in range(ROUNDS)])

    def ours_again(prompts, _trainer):
        found = next(sampled)
        assert [asking(words[one.prompt_row]) for one in found] == prompts
        return {
            "prompt_ids": [list(one.prompt_ids) for one in found],
            "completion_ids": [list(one.completion.ids) for one in found],
            "logprobs": [list(one.completion.log_p) for one in found],
        }

    rewards = letters(tmp_path)
    rows = Dataset.from_list([{"prompt": asking(word), "answer": answer_to(word)} for word in words])
    trainer = trl_trainer(
        lambda **given: GRPOTrainer(
            **given, reward_funcs=[rewards.varied, rewards.short], rollout_func=ours_again
        ),
        GRPOConfig, tmp_path / "trl", base, rows, **THEIRS, **keys,
    )  # fmt: skip
    trainer.train()
    log = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert_same_curves(heard, log, ["loss", "grad_norm"], rel=1e-4)
    # Those of TRL are means of micro batches' means, ours of all tokens.
    assert_same_curves(heard, log, ["entropy", *(["kl"] if keys.get("beta") else ())], rel=0.02)
    # TRL tells it of a step that samples alone.
    said = {int(entry["step"]): entry["reward"] for entry in log if "reward" in entry}
    told = heard.steps("reward")
    assert {step: told[step] for step in said} == pytest.approx(said, rel=1e-5) and len(said) == ROUNDS
    theirs = trainer.model.state_dict()
    start = load_file(base / "model.safetensors")
    for name, weight in ours.items():
        apart = (weight - theirs[name]).abs().max()
        moved = (weight - start[name]).abs().max()
        assert apart < 1e-5 and moved > 1e-3, name
