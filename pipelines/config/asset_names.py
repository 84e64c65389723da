"""Names of other pipelines' results: `asset://<pipeline>/<node>`."""

import re

from tunemill.pipelines.config.slices import ASSET_SCHEME
from tunemill.resources.protocols import ADOPTED


def whole_asset(name: str, node: str) -> str:
    """A name, and of an `asset://` one the pipeline too where that is left out. `node`: the example of an error."""
    if not name.startswith(ASSET_SCHEME):
        return name
    if re.fullmatch(r"asset://\w+", name):
        return f"{ASSET_SCHEME}{ADOPTED}/{name.removeprefix(ASSET_SCHEME)}"
    if not re.fullmatch(r"asset://\w+/\w+(/\w+)?", name):
        raise ValueError(
            f"write asset://<pipeline>/<node>, for example asset://sft/{node}, or asset://<name> of what was adopted"
        )
    return name
