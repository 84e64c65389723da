"""Where a graph's model is published, and what is wrong with that."""

from collections.abc import Iterator, Sequence

from tunemill.pipelines.config.document import Document, problem_at
from tunemill.pipelines.config.graph_config import GraphConfig
from tunemill.pipelines.config.key_paths import KeyPath
from tunemill.pipelines.config.problems import Problem
from tunemill.pipelines.graph.looks import lacks_package, no_folder
from tunemill.pipelines.graph.place import Place
from tunemill.pipelines.graph.published_places import publishable
from tunemill.resources.local import absolute
from tunemill.resources.shared_folder import LOCAL, is_repository
from tunemill.resources.targets import Target, target
from tunemill.stages.choices import nearest

OF: KeyPath = ("pipeline", "publish", "of")


def targets_of(graph: GraphConfig, document: Document) -> Iterator[Target]:
    """Everywhere that the model goes; a folder on this machine is seen from that of the document."""
    for place in graph.publish_places:
        where = absolute(place, document.folder) if place.startswith(LOCAL) else place
        yield target(where, graph.publish_branch, graph.publish_private, graph.hf_use_auth_token)


def publish_problems(graph: GraphConfig, found: Sequence[Place], document: Document) -> Iterator[Problem]:
    """A model that there is not, and places that cannot be written to from this machine."""
    names = publishable(found)
    if graph.publish_places and graph.publish_of not in names:
        near = nearest(graph.publish_of, names)
        message = f"there is no such model here; there are {', '.join(names)}"
        yield problem_at(OF, document, "value", message, near[0] if near else None)
    for place in graph.publish_places:
        key: KeyPath = ("hub_model_id",) if place == graph.hub_model_id else ("pipeline", "publish", "to")
        is_local = place.startswith(LOCAL)
        reason = no_folder(absolute(place, document.folder)) if is_local else lacks_package(place)
        if reason is not None:
            yield problem_at(key, document, "value", reason)
        if is_repository(place) and graph.hf_use_auth_token is False:
            message = (
                "nothing can be pushed to the Hub without a token, and hf_use_auth_token: false sends none"
            )
            yield problem_at(key, document, "conflict", message)
