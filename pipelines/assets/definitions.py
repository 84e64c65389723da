"""What Dagster loads: every pipeline below TUNEMILL_PIPELINES, with results below TUNEMILL_HOME.

Without them: `examples/` of the working folder if there is one, else the working folder; and `.tunemill`.
"""

import gc
import os
from pathlib import Path

from tunemill.pipelines.assets.folder import build_definitions

_here = Path.cwd()
_folder = os.environ.get("TUNEMILL_PIPELINES") or (
    _here / "examples" if (_here / "examples").is_dir() else _here
)

definitions = build_definitions(Path(_folder), Path(os.environ.get("TUNEMILL_HOME") or _here / ".tunemill"))
# They stay for as long as this process: no search for garbage need look at them.
gc.freeze()
