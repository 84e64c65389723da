"""Completions that were kept, scored by what the YAML asks for now."""

from collections.abc import Iterator
from contextlib import contextmanager

from tunemill.pipelines.config.slices import ASSET_SCHEME
from tunemill.pipelines.graph.nodes import Pipeline
from tunemill.pipelines.run.team import artifact_behind
from tunemill.resources.errors import StoreError
from tunemill.resources.store import Store
from tunemill.stages.artifacts import Model
from tunemill.stages.errors import UserError
from tunemill.stages.training.online.browsed import Kept, Rescored, rescored
from tunemill.stages.training.online.reward_asking import Rewards, rewards_by
from tunemill.stages.training.online.reward_keys import RewardKeys


def rescore_kept(pipeline: Pipeline, name: str, kept: Kept, store: Store) -> Rescored:
    """What the rewards of a node say now. Raises StoreError for a node without any, UserError where too many fail."""
    node = next((one for one in pipeline.nodes if one.name == name), None)
    if node is None or not isinstance(node.config, RewardKeys) or not node.config.reward_funcs:
        raise StoreError(f"{pipeline.name}/{name}: has no rewards of its own to score by")
    if faults := list(node.config.faults()):
        raise UserError(f"{faults[0].key}: {faults[0].reason}")
    with _opened(node.config, store) as ask:
        return rescored(kept, node.config.reward_names, node.config.weights, ask)


@contextmanager
def _opened(config: RewardKeys, store: Store) -> Iterator[Rewards]:
    if len(config.own_rewards) == len(config.reward_funcs):
        with rewards_by(config, [], lambda _folder: lambda _asked: []) as ask:
            yield ask
        return
    # Models need torch, which functions do not wait for.
    from tunemill.stages.training.online.rewards_body import open_rewards

    models = [_model(name, store) for name in config.reward_funcs if name.startswith(ASSET_SCHEME)]
    with open_rewards(config, models) as ask:
        yield ask


def _model(name: str, store: Store) -> Model:
    pipeline, _, node = name.removeprefix(ASSET_SCHEME).partition("/")
    ref = store.ref(pipeline, node)
    if ref is None:
        raise StoreError(f"{name}: nothing has been computed yet; run its pipeline")
    return Model(artifact_behind(store, name, ref).data)
