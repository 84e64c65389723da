"""What Dagster loads: every pipeline below TUNEMILL_PIPELINES, with results below TUNEMILL_HOME.

Without them: `examples/` of the working folder if there is one, else the working folder; and `.tunemill`.
TUNEMILL_STORE names a store that a team shares, in place of those of the YAMLs.
"""

import gc
import os
from pathlib import Path

from tunemill.pipelines.assets.folder import build_definitions

_here = Path.cwd()
_folder = os.environ.get("TUNEMILL_PIPELINES") or (
    _here / "examples" if (_here / "examples").is_dir() else _here
)

_state = os.environ.get("TUNEMILL_HOME") or _here / ".tunemill"
definitions = build_definitions(Path(_folder), Path(_state), team=os.environ.get("TUNEMILL_STORE") or None)
# They stay for as long as this process: no search for garbage need look at them.
gc.freeze()
