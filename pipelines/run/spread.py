"""Where the processes of a training run: on this machine, on several, or in a Ray cluster."""

from dataclasses import replace

from tunemill.pipelines.graph.nodes import Node, Pipeline
from tunemill.resources.calls import Call, Nodes, Ray
from tunemill.resources.errors import LaunchError


def spread_call(call: Call, node: Node, pipeline: Pipeline, key: str, *, joins: bool = False) -> Call:
    """The call with the place of its processes, where `pipeline.launcher` names another than this machine alone.

    Raises LaunchError on a machine that only helps the first one, unless it `joins`, whose result nobody publishes.
    """
    launcher = pipeline.launcher
    if not node.config.may_be_spread:
        return call
    call = replace(call, hangs_after=launcher.hangs_after)
    if launcher.kind == "ray":
        name = launcher.run_name or f"{pipeline.name}-{node.name}-{key[:8]}"
        return replace(call, ray=Ray(launcher.address, launcher.resources_per_worker or {}, name))
    if launcher.nodes > 1:
        if launcher.joins and not joins:
            raise LaunchError(
                f"pipeline.launcher.node_rank: {launcher.node_rank}: this machine only helps the first one, which "
                f"publishes the result; give `tunemill run` here, or node_rank: 0",
                user=True,
            )
        assert launcher.rendezvous is not None, "the launcher's keys are checked"
        return replace(call, nodes=Nodes(launcher.nodes, launcher.node_rank, launcher.rendezvous, key))
    return call
