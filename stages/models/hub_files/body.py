"""Fetches what is needed of a repository of the Hub, and checks each file against its hash there."""

import json
import os
from pathlib import Path

from tunemill.resources.protocols import CARD, licence_in
from tunemill.stages.errors import SourceError
from tunemill.stages.models.adapter_folder import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    fault_of_kind,
    stored_settings,
)
from tunemill.stages.models.files import INDEX_FILE, copy_file
from tunemill.stages.models.hub_files.config import HubFilesConfig
from tunemill.stages.models.hub_files.download_body import Progress, Repository, fetch, look
from tunemill.stages.models.hub_files.wanted import (
    beside_weights,
    check_adapter,
    index_name,
    not_ignored,
    shards,
    tokenizer_names,
)
from tunemill.stages.report import Report, Workspace


def hub_files(config: HubFilesConfig, out: Workspace, report: Report) -> None:
    """Write the files that are needed, as they are in the repository at the commit behind `revision`.

    Files lie in the folder of checkpoints until all are there, so an interrupted attempt is gone on with. Raises
    SourceError for a repository that cannot be had, or is no model, tokenizer or adapter that can be read.
    """
    found = look(config.repository, config.revision, config.hf_use_auth_token)
    fetched = out.checkpoints / "files"
    names = wanted(config, found, fetched)
    bytes_of = {name: found.files[name].size or 0 for name in names}
    total = sum(bytes_of.values())
    report.log(f"{found.name} at commit {found.commit}: {len(names)} files, {total / 1e6:.1f} MB")
    progress = Progress(lambda done: report.progress(min(done, total), total, "bytes"))
    hashes = {}
    for name in names:
        hashes[name] = fetch(found, name, fetched, progress)
        progress.finish(bytes_of[name])
        report.checkpoint(name)
    for name in names:
        target = out.data / name
        target.parent.mkdir(parents=True, exist_ok=True)
        place(fetched / name, target)
    licence = _licence(found, out.checkpoints / "card")
    report.summary(repository=found.name, commit=found.commit, files=len(names), bytes=total, **licence)
    rows = [[name, bytes_of[name], hashes[name]] for name in names]
    report.table("files", ["file", "bytes", "sha256"], rows)


def _licence(found: Repository, folder: Path) -> dict[str, str]:
    """The licence that the repository's card names, which is no part of what is fetched; empty where it names none."""
    if CARD not in found.files:
        return {}
    fetch(found, CARD, folder, Progress(lambda _: None))
    named = licence_in((folder / CARD).read_text(encoding="utf-8", errors="replace"))
    return {} if named is None else {"license": named}


def wanted(config: HubFilesConfig, found: Repository, fetched: Path) -> list[str]:
    """The names of the files that are needed; an index of weights is fetched for it."""
    if config.needed == "adapter":
        return wanted_of_adapter(found, fetched)
    ignored = config.base_model_ignore_patterns
    names = not_ignored(found.files, ignored)
    if config.needed == "tokenizer":
        if kept := tokenizer_names(names):
            return kept
        raise SourceError(
            f"{found.name} has no files of a tokenizer. Name one that has them in tokenizer_config"
        )
    config_only = config.needed == "config"
    needed = beside_weights(
        names, found.name, ignored, code=config.trust_remote_code, config_only=config_only
    )
    if config_only:
        return sorted(needed)
    if not config.reinit_weights:
        first = index_name(names, found.name, ignored)
        needed.add(first)
        if first == INDEX_FILE:
            fetch(found, first, fetched, Progress(lambda _: None))
            needed.update(shards(weight_map(fetched / first), names, found.name, ignored))
    return sorted(needed)


def wanted_of_adapter(found: Repository, fetched: Path) -> list[str]:
    """The names of an adapter's files; its settings are fetched for it. Raises where it is none to train further."""
    check_adapter(found.files, found.name)
    fetch(found, ADAPTER_CONFIG, fetched, Progress(lambda _: None))
    if reason := fault_of_kind(stored_settings(fetched)):
        raise SourceError(f"{found.name}: {reason}")
    return [ADAPTER_CONFIG, ADAPTER_WEIGHTS]


def weight_map(index: Path) -> object:
    """What an index of weights says; None where it is damaged."""
    try:
        document = json.loads(index.read_text(encoding="utf-8"))
    except ValueError:
        return None
    return document.get("weight_map") if isinstance(document, dict) else None


def place(source: Path, target: Path) -> None:
    """Put a file where it is published from, and leave it where the next attempt would find it."""
    try:
        os.link(source, target)
    except OSError:
        copy_file(source, target)
