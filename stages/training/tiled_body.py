"""MLPs that compute some tokens at a time, and again in the backward pass, so that only one tile is ever held."""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tunemill.kernels.in_models.applied import Applied
from tunemill.kernels.in_models.modules import in_place_of
from tunemill.kernels.in_models.structure import mlp_projections
from tunemill.stages.errors import SettingError
from tunemill.stages.report import Report


class TiledMlp(nn.Module):  # type: ignore[misc]
    """In the place of an MLP, which works on each token by itself: the same over tiles of its tokens."""

    tiles: int | None

    def forward(self, hidden: Tensor) -> Tensor:
        """Hidden states, tokens in the last dimension but one, to the same shape."""
        whole = super().forward
        tokens, width = hidden.shape[-2:]
        tiles = min(self.tiles or math.ceil(tokens / width), tokens)
        if tiles <= 1:
            return whole(hidden)
        parts = hidden.tensor_split(tiles, dim=-2)
        if torch.is_grad_enabled():
            done = [checkpoint(whole, part, use_reentrant=False) for part in parts]
        else:
            done = [whole(part) for part in parts]
        return torch.cat(done, dim=-2)


def tile_mlps(model: Any, tiles: int | None, report: Report) -> Applied:
    """Put every MLP of the model behind tiles. Raises SettingError for a model that has none."""
    applied = Applied()
    found = {name: module for name, module in model.named_modules() if mlp_projections(module)}
    for name, module in found.items():
        applied.put_child(model, name, module, in_place_of(TiledMlp, module, tiles=tiles))
    if not found:
        raise SettingError(
            f"tiled_mlp: true: no module of {type(model).__name__} is an MLP of gate, up and down projections. Set "
            f"tiled_mlp: false."
        )
    report.log(f"{len(found)} MLPs compute their tokens in tiles")
    return applied
