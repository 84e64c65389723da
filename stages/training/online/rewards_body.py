"""Reward models on the device, beside functions in processes of their own."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch

from tunemill.stages.artifacts import Model
from tunemill.stages.errors import SettingError
from tunemill.stages.models.heads_body import head_of_folder
from tunemill.stages.models.loading_body import load_model
from tunemill.stages.models.words_body import load_words
from tunemill.stages.training.online.reward_asking import Asked, Rewards, Scorer, rewards_by
from tunemill.stages.training.online.reward_keys import RewardKeys, is_scorer

# Texts that a reward model reads side by side.
AT_ONCE = 16


def open_rewards(config: RewardKeys, models: Sequence[Model]) -> AbstractContextManager[Rewards]:
    """What asks all of `trl.reward_funcs`, until the block ends; see `rewards_by`."""
    return rewards_by(config, models, reward_model)


def reward_model(folder: Path) -> Scorer:
    """What a model that scores texts says of a prompt with its completion, each rendered by its own template.

    Raises SettingError for a folder with another model.
    """
    head = head_of_folder(folder)
    if not is_scorer(head):
        raise SettingError(
            f"trl.reward_funcs: {folder} is {head or 'a language model'}, and a reward model scores texts"
        )
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = load_model(folder, dtype="auto").to(device).eval()
    words = load_words(folder)
    padding = model.config.get_text_config().pad_token_id
    # Without padding a text is read by itself.
    at_once = 1 if padding is None else AT_ONCE

    def ids_of(prompt: Any, completion: Any) -> list[int]:
        rendered = prompt + completion
        if not isinstance(rendered, str):
            rendered = words.apply_chat_template(rendered, tokenize=False)
        found: list[int] = words(rendered, add_special_tokens=False)["input_ids"]
        return found

    def score(asked: Asked) -> list[float]:
        texts = [ids_of(*both) for both in zip(asked.prompts, asked.completions, strict=True)]
        # Texts of like length share batches.
        order = sorted(range(len(texts)), key=lambda row: len(texts[row]))
        found: dict[int, float] = {}
        for first in range(0, len(order), at_once):
            rows = order[first : first + at_once]
            longest = max(len(texts[row]) for row in rows)
            ids_bl = torch.tensor(
                [texts[row] + [padding] * (longest - len(texts[row])) for row in rows], device=device
            )
            lengths_b = torch.tensor([[len(texts[row])] for row in rows], device=device)
            mask_bl = (torch.arange(longest, device=device) < lengths_b).long()
            with torch.no_grad():
                scores_b = model(input_ids=ids_bl, attention_mask=mask_bl).logits[:, 0].float()
            found |= dict(zip(rows, scores_b.tolist(), strict=True))
        return [found[row] for row in range(len(texts))]

    return score
