"""What the dataset stage reads of an entry of `datasets:`."""

from tunemill.stages.data.sources.keys import SourceKeys


class DatasetConfig(SourceKeys):
    """Where one dataset comes from, and which of its rows."""
