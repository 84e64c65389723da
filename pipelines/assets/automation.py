"""`pipeline.automation`: what a plan wants to run, as a condition of Dagster's declarative automation."""

import warnings
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import dagster as dg

from tunemill.pipelines.assets.assets import asset_key
from tunemill.pipelines.assets.jobs import ASKED_BY, PIPELINE
from tunemill.pipelines.config.problems import ConfigError
from tunemill.pipelines.graph.plan import make_plan, not_in_place
from tunemill.pipelines.graph.source_versions import asked_for
from tunemill.pipelines.graph.sweep import loaded_anew
from tunemill.pipelines.run.materialize import Session
from tunemill.resources.errors import StoreError
from tunemill.stages.errors import UserError


@dataclass
class Wanted:
    """What a pipeline wants, looked at once in a tick: assets that are not in place, and a word for all it asks for.

    A YAML with problems, and a source that is gone, want nothing; `tunemill plan` says what they are.
    """

    session: Session
    at: datetime | None = None
    assets: frozenset[dg.AssetKey] = frozenset()
    asks: str = ""

    def look(self, now: datetime) -> None:
        """Plan, with the YAML and the sources as they are, unless this tick has."""
        if self.at == now:
            return
        self.at, store = now, self.session.store
        try:
            pipeline = loaded_anew(self.session.pipeline)
            names = not_in_place(make_plan(pipeline, store))
            self.asks = asked_for(pipeline, store)
        except (ConfigError, StoreError, UserError, OSError):
            names = []
        self.assets = frozenset(asset_key(self.session.pipeline.name, name) for name in names)


class NotInPlace(dg.AutomationCondition):  # type: ignore[type-arg]
    """True of the nodes that `tunemill run` would hand to Dagster now; with `anew` once for all that is asked for."""

    def __init__(self, wanted: Wanted, *, anew: bool = False) -> None:
        self._wanted, self._anew = wanted, anew

    @property
    def name(self) -> str:
        """As the UI shows it."""
        return "not_in_place_anew" if self._anew else "not_in_place"

    @property
    def description(self) -> str:
        """As the UI shows it."""
        path = self._wanted.session.pipeline.document.path.name
        return f"tunemill plan {path} wants to run it" + (", and did not before" if self._anew else "")

    def evaluate(self, context: Any) -> dg.AutomationResult:  # type: ignore[type-arg]
        """One node in one tick."""
        self._wanted.look(context.evaluation_time)
        is_wanted = context.key in self._wanted.assets
        asks = self._wanted.asks if is_wanted else ""
        holds = is_wanted and not (self._anew and context.cursor == asks)
        found = context.candidate_subset if holds else context.get_empty_subset()
        return dg.AutomationResult(context, found, cursor=asks if self._anew else None)


def condition(session: Session) -> dg.AutomationCondition:  # type: ignore[type-arg]
    """Not in place, and not asked for since the pipeline asks for this.

    So a node that fails is not run again and again, but once for each change.
    """
    of: Any = dg.AutomationCondition
    wanted = Wanted(session)
    now: Any = NotInPlace(wanted)
    anew: Any = NotInPlace(wanted, anew=True)
    asked: dg.AutomationCondition = (  # type: ignore[type-arg]
        anew.since(of.newly_requested()) & now & ~of.in_progress() & ~of.any_deps_in_progress()
    )
    return asked


def build_automation(session: Session) -> list[dg.SensorDefinition]:
    """The sensor that evaluates the condition, of a pipeline that asks for one."""
    pipeline = session.pipeline
    if pipeline.automation is None:
        return []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.BetaWarning)
        sensor = dg.AutomationConditionSensorDefinition(
            f"{pipeline.name}_automation",
            target=dg.AssetSelection.assets(
                *(asset_key(pipeline.name, node.name) for node in pipeline.nodes)
            ),
            default_condition=condition(session),
            use_user_code_server=True,
            emit_backfills=False,
            run_tags={PIPELINE: pipeline.name, ASKED_BY: "automation"},
            default_status=dg.DefaultSensorStatus[pipeline.automation.upper()],
            description=f"Brings `{pipeline.name}` up to date after every change of its sources or of its YAML.",
        )
    return [sensor]
