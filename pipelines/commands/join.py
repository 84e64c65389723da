"""`tunemill run` on a machine that only helps to train (`pipeline.launcher.node_rank` above 0)."""

import argparse
import os
import sys
from functools import partial

from tunemill.pipelines.commands.listing import show
from tunemill.pipelines.commands.options import print_json
from tunemill.pipelines.commands.tables import show_run
from tunemill.pipelines.commands.watched import Interrupted, watched_run
from tunemill.pipelines.config.problems import ConfigError
from tunemill.pipelines.graph.keys import upstream_of
from tunemill.pipelines.graph.nodes import Node, Pipeline
from tunemill.pipelines.graph.plan import needed_nodes
from tunemill.pipelines.graph.selection import Selection
from tunemill.pipelines.run.join import join
from tunemill.pipelines.run.materialize import Session
from tunemill.pipelines.run.progress import show_progress
from tunemill.resources.errors import LaunchError, StoreError
from tunemill.resources.machines import fault_of_name
from tunemill.resources.redaction import redacted, secrets_in
from tunemill.resources.store import Store
from tunemill.stages.errors import SettingError, UserError

RUN = "joined"


def joined_run(options: argparse.Namespace, pipeline: Pipeline, store: Store, chosen: Selection) -> int:
    """Prepare what the trainings of a pipeline read, and do this machine's part of each; 1 if anything failed."""
    trained = trained_together(pipeline, store, chosen)
    read = frozenset(name for node in trained for name in upstream_of(node))
    finished = watched_run(pipeline, store, chosen.refresh & read, read)
    failed = [item.node for item in finished if item.state in ("failed", "skipped")]
    ended: dict[str, str] = {}
    if not failed:
        session = Session(pipeline, store, refresh=chosen.refresh)
        for node in trained:
            ended[node.name] = joined(session, node)
            if ended[node.name] == "failed":
                break
    if options.json:
        nodes = [item.as_json() for item in finished]
        print_json({"pipeline": pipeline.name, "nodes": nodes, "joined": ended})
    else:
        show_run(finished, verbose=options.verbose)
        for name, what in ended.items():
            show(f"{name}: {what}")
    return 1 if failed or "failed" in ended.values() else 0


def trained_together(pipeline: Pipeline, store: Store, chosen: Selection) -> list[Node]:
    """The trainings of a run that several processes share."""
    needed = needed_nodes(pipeline, store.pins.of(pipeline.name), chosen.only, chosen.refresh)
    return [node for node in pipeline.nodes if node.name in needed and node.config.ranks > 1]


def refuse_unknown_machine(pipeline: Pipeline, store: Store, chosen: Selection) -> None:
    """Raises SettingError where machines are to meet at a name that this one does not know: before hours of work."""
    place = pipeline.launcher.rendezvous
    if place is not None and trained_together(pipeline, store, chosen) and (fault := fault_of_name(place)):
        raise SettingError(
            f"pipeline.launcher.rendezvous: {place}: {fault}. Write the name or the address of the first machine, as "
            f"all of them know it"
        )


def joined(session: Session, node: Node) -> str:
    """Do this machine's part of one training, and say what became of it."""
    rank = session.pipeline.launcher.node_rank
    with show_progress() as display:
        try:
            took_part = join(session, node, RUN, partial(display, node.name))
        except (ConfigError, LaunchError, StoreError, UserError) as error:
            secrets = secrets_in(node.config.model_dump(mode="json"), os.environ)
            print(f"{node.name}: {redacted(str(error), secrets)}", file=sys.stderr)
            return "failed"
        except KeyboardInterrupt:
            raise Interrupted(
                f"interrupted; {node.name} ends on the other machines too, and the same command on all goes on"
            ) from None
    return f"took part as machine {rank}; the first one has the result" if took_part else "is there already"
