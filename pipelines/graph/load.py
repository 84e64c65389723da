"""From a YAML to a pipeline: everything that can be said about a config without reading a row or asking the network."""

import bisect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from tunemill.pipelines.config.document import Document, problem_at, read_document
from tunemill.pipelines.config.entry_keys import entry_keys
from tunemill.pipelines.config.graph_config import GraphConfig
from tunemill.pipelines.config.idle_keys import idle_keys
from tunemill.pipelines.config.key_paths import KeyPath
from tunemill.pipelines.config.launcher_keys import (
    BATCH_KEYS,
    BatchError,
    GlobalBatch,
    LauncherSettings,
    RunKeys,
    global_batch,
    number_in,
)
from tunemill.pipelines.config.machine import has_gpu, meant_without_gpu
from tunemill.pipelines.config.overrides import Override
from tunemill.pipelines.config.problems import ConfigError, Problem
from tunemill.pipelines.config.renamed_keys import with_todays_names
from tunemill.pipelines.config.slices import ASSET_SCHEME, Slice, cut, validate
from tunemill.pipelines.config.sweep_points import asked_for
from tunemill.pipelines.config.tracker_config import TrackerConfig
from tunemill.pipelines.config.use_config import UseConfig, VllmSettings
from tunemill.pipelines.graph.evaluation_problems import evaluation_problems
from tunemill.pipelines.graph.gates import all_gates, gate_problems
from tunemill.pipelines.graph.key_problems import enough_for_keys, strange_keys, unread_problems
from tunemill.pipelines.graph.looks import LookAt, lacks_package, looked_at, no_folder, nothing
from tunemill.pipelines.graph.nodes import Node, Pipeline
from tunemill.pipelines.graph.place import Place
from tunemill.pipelines.graph.places import places, plain_name
from tunemill.pipelines.graph.publishing import publish_problems, targets_of
from tunemill.resources.local import absolute, local_path, odd_url, refusal, shown, unusable
from tunemill.resources.shared_folder import LOCAL, SharedFolder, shared_folder
from tunemill.stages.declaration import StageConfig

# In bytes, for the names of a node and of a link that is not in its place yet.
ROOM_FOR_LINKS = 80
ACCUMULATION = BATCH_KEYS[1]
# Micro batches of each device, too: those that are sampled together.
ONLINE, PER_ROUND = "trl", "steps_per_generation"


def load_pipeline(
    path: Path, overrides: Sequence[str | Override] = (), look_at: LookAt = nothing
) -> Pipeline:
    """Read and check a pipeline's YAML, and the files that the nodes of `look_at` name on this machine.

    Of a sweep it is the one point that `pipeline.point` names. Raises ConfigError with every problem found.
    """
    written = read_document(path, overrides)
    point = asked_for(written, own_name(written))
    if point is not None:
        written = read_document(path, (*overrides, *point.overrides))
    document, problems = with_todays_names(spelled_out(written))
    problems = [*document.problems, *problems, *document.notes]
    problems += idle_keys(document)
    problems += entry_keys(document)
    pipeline, more = build(document, look_at)
    problems = once([*problems, *more])
    if pipeline is None or document.problems or not all(problem.is_note for problem in problems):
        raise ConfigError(document.path, problems)
    return replace(pipeline, notes=tuple(problems), point=point)


def pipeline_name(path: Path) -> str:
    """The name of a pipeline, whatever else its YAML says. Raises ConfigError where it cannot be read at all."""
    document = read_document(path)
    own = document.data.get("pipeline")
    given = own.get("name") if isinstance(own, dict) else None
    if given is None and document.problems:
        raise ConfigError(document.path, document.problems)
    return own_name(document)


def own_name(document: Document) -> str:
    """The name that a YAML gives its pipeline, or that of its file."""
    own = document.data.get("pipeline")
    given = own.get("name") if isinstance(own, dict) else None
    return str(given or default_name(document))


def default_name(document: Document) -> str:
    """The name of a pipeline that gives none."""
    return plain_name(document.path.stem)


def build(document: Document, look_at: LookAt = nothing) -> tuple[Pipeline | None, list[Problem]]:
    """The graph of a document with its notes; or None and every problem that stands in its way."""
    piece = cut(GraphConfig, document)
    graph = validate(GraphConfig, piece, document)
    if isinstance(graph, list):
        guessed = _of_guess(document, graph, look_at)
        return None, [*strange_keys(document), *graph, *guessed]
    assert isinstance(graph, GraphConfig)
    made, problems = built(document, graph, piece, look_at)
    if made is None and graph.launcher.is_unasked and graph.launcher.count > 1:
        # What nobody asked for is no reason to refuse: several processes may be too many for one of its settings.
        alone = graph.model_copy(update={"launcher": LauncherSettings(kind="python")})
        single, notes = built(document, alone, piece, look_at)
        if single is not None:
            why = next(problem.message for problem in problems if not problem.is_note)
            reason = f"one process trains, though there are {graph.launcher.count} GPUs: {why}"
            return single, [*notes, problem_at(("pipeline", "launcher"), document, "idle", reason)]
    return made, problems


def built(
    document: Document, graph: GraphConfig, piece: Slice, look_at: LookAt
) -> tuple[Pipeline | None, list[Problem]]:
    """The graph of a document whose keys of the graph are right; see `build`."""
    document, batch, problems = spread(document, graph)
    found = places(graph)
    enough = enough_for_keys(found, document)
    problems += strange_keys(document, enough)
    nodes, more = nodes_of(found, document, look_at, graph.launcher.count)
    problems += more
    problems += evaluation_problems(graph, found, document)
    problems += gate_problems(graph.gates, found, nodes, document)
    problems += publish_problems(graph, found, document)
    trackers, more = trackers_of(document)
    problems += more
    use, more = use_of(document)
    problems += more
    problems += idle_problems(graph, piece.places, document)
    if enough is None:
        problems += unread_problems(graph, found, document)
    problems += refused_places(graph, document)
    name = graph.name or default_name(document)
    models = {
        ("base_model",): graph.base_model,
        ("lora_model_dir",): graph.adapter_from,
        ("pipeline", "teacher"): graph.teacher,
        ("lm_eval_model",): graph.lm_eval_model,
    }
    for place, named in models.items():
        if named and named.startswith(f"{ASSET_SCHEME}{name}/"):
            message = f"{named} is this pipeline's own result; name another pipeline's"
            problems.append(problem_at(place, document, "conflict", message))
    if not all(problem.is_note for problem in problems):
        return None, problems
    output_dir, prepared_path = (
        document.folder / local_path(place, "the folder of links to results") if place else None
        for place in (graph.output_dir, graph.dataset_prepared_path)
    )
    made = Pipeline(
        name,
        document,
        tuple(nodes),
        output_dir,
        prepared_path,
        trackers=trackers,
        use=use,
        shared=shared_by(graph, document),
        gates=all_gates(graph, found),
        targets=tuple(targets_of(graph, document)),
        schedule=graph.schedule,
        watch=graph.watch,
        automation=graph.automation,
        limits=graph.limits,
        owners=tuple(graph.owners),
        tags=graph.tags,
        openlineage=graph.openlineage,
        batch=batch,
        store=graph.store,
        launcher=graph.launcher,
    )
    return made, problems


def shared_by(graph: GraphConfig, document: Document) -> SharedFolder | None:
    """Where the graph's prepared rows are shared; a folder on this machine is seen from that of the document."""
    place = graph.push_dataset_to_hub
    if place is None:
        return None
    if place.startswith(LOCAL):
        place = absolute(place, document.folder)
    return shared_folder(place, graph.hf_use_auth_token)


def _of_guess(document: Document, wrong: Sequence[Problem], look_at: LookAt) -> Iterator[Problem]:
    """Wrong values of the nodes that there would be without the keys that are wrong for the graph."""
    said = {problem.path for problem in (*wrong, *document.problems)}
    kept = {key: value for key, value in document.data.items() if key not in said}
    guess = replace(document, data={"base_model": ".", **kept}, problems=())
    graph = validate(GraphConfig, cut(GraphConfig, guess), guess)
    if isinstance(graph, GraphConfig):
        _, problems = nodes_of(places(graph), document, look_at)
        yield from (problem for problem in problems if problem.kind == "value")


def spread(document: Document, graph: RunKeys) -> tuple[Document, GlobalBatch | None, list[Problem]]:
    """The document as its stages read it, where several processes share a step or the size of a step is given.

    There, `gradient_accumulation_steps` are the micro batches of a step over all devices: whatever a stage makes of
    steps is the same however they are shared. Also what goes into a step, and what is wrong with it.
    """
    if graph.launcher.count == 1 and graph.global_batch_size is None:
        return document, None, []
    try:
        batch = global_batch(graph, document.data)
    except BatchError as error:
        return document, None, [problem_at(error.key, document, "value", str(error))]
    if batch is None:
        return document, None, []
    notes = []
    given = document.data.get(ACCUMULATION)
    if graph.global_batch_size is not None and given is not None and number_in(given) != batch.accumulation:
        reason = f"asks for nothing: pipeline.global_batch_size: {batch.size} makes it {batch.accumulation}"
        notes.append(problem_at((ACCUMULATION,), document, "idle", reason))
    data = {**document.data, ACCUMULATION: batch.accumulation * batch.replicas}
    online = data.get(ONLINE)
    if isinstance(online, dict) and (together := number_in(online.get(PER_ROUND))) is not None:
        data[ONLINE] = {**online, PER_ROUND: together * batch.replicas}
    return replace(document, data=data), batch, notes


def nodes_of(
    found: Sequence[Place], document: Document, look_at: LookAt, processes: int = 1
) -> tuple[list[Node], list[Problem]]:
    """The nodes whose slices are right, and the problems and notes of all. `processes`: how many a stage may run in."""
    nodes: list[Node] = []
    problems: list[Problem] = []
    without_gpu = not has_gpu()
    for place in found:
        given = place.given if processes == 1 else {**place.given, "processes": processes}
        piece = cut(place.stage.config, document, place.entry, given)
        piece = replace(piece, places={**piece.places, **place.named_by})
        config = validate(place.stage.config, piece, document)
        if isinstance(config, list):
            problems += config
            continue
        unused = config.unused_inputs()
        inputs = {name: upstream for name, upstream in place.inputs.items() if name not in unused}
        nodes.append(Node(place.name, place.stage, config, inputs, piece.places, place.about))
        refused = list(refused_sources(nodes[-1], document))
        problems += refused
        problems += idle_problems(config, piece.places, document)
        problems += [
            problem_at(piece.places[item.key], document, "code", item.reason) for item in config.runs_code()
        ]
        problems += [
            problem_at(piece.places[item.key], document, "elsewhere", item.reason)
            for item in config.depends_on_machine()
        ]
        if without_gpu:
            problems += meant_without_gpu(config, piece.places, document)
        if not refused and look_at(nodes[-1]):
            problems += looked_at(nodes[-1], document)
    return nodes, problems


def trackers_of(document: Document) -> tuple[TrackerConfig | None, list[Problem]]:
    """Where the figures of training go, and what is wrong with it or asks for nothing."""
    if not document.data.keys() & TrackerConfig.top_keys():
        return None, []
    piece = cut(TrackerConfig, document)
    config = validate(TrackerConfig, piece, document)
    if isinstance(config, list):
        return None, config
    assert isinstance(config, TrackerConfig)
    notes = list(idle_problems(config, piece.places, document))
    notes += [problem_at((key,), document, "elsewhere", reason) for key, reason in config.missing()]
    return config, notes


def use_of(document: Document) -> tuple[UseConfig | None, list[Problem]]:
    """How a finished model is shown and served, and what is wrong with that."""
    if not document.data.keys() & UseConfig.top_keys():
        return None, []
    piece = cut(UseConfig, document)
    config = validate(UseConfig, piece, document)
    if isinstance(config, list):
        return None, config
    assert isinstance(config, UseConfig)
    places = {**piece.places, **{f"vllm.{key}": ("vllm", key) for key in VllmSettings.model_fields}}
    return config, list(idle_problems(config, places, document))


def idle_problems(
    config: StageConfig, places: Mapping[str, KeyPath], document: Document
) -> Iterator[Problem]:
    """The settings that ask for nothing beside the others."""
    for item in config.idle():
        place = places.get(item.key) or tuple(item.key.split("."))
        yield problem_at(place, document, "idle", f"asks for nothing: {item.reason}")


def refused_sources(node: Node, document: Document) -> Iterator[Problem]:
    """Sources that can be none, going by their names and by what lies there. None is opened, and none must be there."""
    for name, sources in node.places_named.items():
        reasons = [odd_url(source) if "://" in source else refusal(source) for source in sources]
        refused = [
            f"{shown(source)}: {reason}" for source, reason in zip(sources, reasons, strict=True) if reason
        ]
        if refused:
            # A pattern may name thousands.
            more = f"; and {len(refused) - 1} more cannot be read" if len(refused) > 1 else ""
            yield problem_at(node.places[name], document, "value", f"{refused[0]}{more}")


def refused_places(graph: GraphConfig, document: Document) -> Iterator[Problem]:
    """Folders of links in which no link could be made, and a place to push to that can be none on this machine."""
    for key in ("output_dir", "dataset_prepared_path"):
        place = getattr(graph, key)
        if place is not None:
            folder = document.folder / local_path(place, "the folder of links to results")
            reason = unusable(folder, ROOM_FOR_LINKS)
            if reason:
                yield problem_at((key,), document, "value", f"{shown(folder)}: {reason}")
    pushed = graph.push_dataset_to_hub or ""
    is_local = pushed.startswith(LOCAL)
    reason = no_folder(absolute(pushed, document.folder)) if is_local else lacks_package(pushed)
    if reason is not None:
        yield problem_at(("push_dataset_to_hub",), document, "value", reason)


def once(problems: Sequence[Problem]) -> list[Problem]:
    """Each problem once.

    Of a key that nobody reads the first that is said counts; and of a value with something wrong inside it not also
    that it is none of the other things that might stand there.
    """
    found: list[Problem] = []
    said: set[str] = set()
    paths = sorted({problem.path for problem in problems})
    for problem in dict.fromkeys(problems):
        if problem.kind == "unread" and problem.path in said:
            continue
        if problem.kind == "value" and has_inside(paths, problem.path):
            continue
        found.append(problem)
        if problem.kind != "ambiguous":
            said.add(problem.path)
    return found


def has_inside(paths: Sequence[str], outer: str) -> bool:
    """Whether one of the sorted paths leads into the value of another."""
    starts = (f"{outer}.", f"{outer}[")
    after = (bisect.bisect_left(paths, start) for start in starts)
    return any(
        index < len(paths) and paths[index].startswith(start)
        for index, start in zip(after, starts, strict=True)
    )


def spelled_out(document: Document) -> Document:
    """The document with `pretraining_dataset: name`, which Axolotl takes too, as a list of one entry."""
    given = document.data.get("pretraining_dataset")
    if not isinstance(given, str):
        return document
    return replace(document, data={**document.data, "pretraining_dataset": [{"path": given}]})
