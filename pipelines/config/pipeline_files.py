"""The YAMLs of a folder that are pipelines."""

import os
from collections.abc import Iterator
from pathlib import Path

from tunemill.pipelines.config.graph_config import GraphConfig
from tunemill.pipelines.config.yaml_text import YamlError, nodes_of, text_of_file
from tunemill.pipelines.config.yaml_values import in_file, values_of
from tunemill.resources.local import is_folder

ENDINGS = (".yml", ".yaml")


def pipeline_files(folder: Path) -> Iterator[Path]:
    """The YAMLs below a folder that look like pipelines, or cannot be read; those that lie less deep come first.

    Hidden files and folders are passed over, and links to folders.
    """
    files = []
    for parent, names, found in os.walk(folder):
        # A store below the folder has thousands of files, and is hidden.
        names[:] = [name for name in names if not name.startswith(".")]
        files += [Path(parent, name) for name in found if not name.startswith(".") and name.endswith(ENDINGS)]
    for path in sorted(files, key=lambda path: (len(path.parts), path)):
        if not is_folder(path) and _looks_like_pipeline(path):
            yield path


def _looks_like_pipeline(path: Path) -> bool:
    """Whether a file is a mapping with the keys that every graph needs; also if it cannot be told."""
    needed = {key for key, field in GraphConfig.model_fields.items() if field.is_required()}
    try:
        text = text_of_file(path)
        documents = [values_of(node, in_file(text)).data for node in nodes_of(text)]
    except (OSError, YamlError):
        return True
    return any(isinstance(data, dict) and needed <= data.keys() for data in documents)
