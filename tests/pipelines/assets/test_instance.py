"""The databases of a run in this process: how it ends is told once, by whoever asked for the run."""

import subprocess
import sys

# A connection whose end is where the interrupt comes.
INTERRUPTED = """
import sys
from pathlib import Path
from sqlalchemy.pool import NullPool
from tunemill.pipelines.assets.instance import open_instance

class Connection:
    def rollback(self):
        pass

    def close(self):
        raise KeyboardInterrupt

with open_instance(Path(sys.argv[1])):
    try:
        NullPool(Connection).connect().close()
    except KeyboardInterrupt:
        print("interrupted")
"""


def test_an_interrupt_while_a_connection_is_closed_is_no_traceback(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == ("interrupted\n", "")
