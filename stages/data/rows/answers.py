"""The column of a prompt's row that has a good answer to it."""

GROUND_TRUTH = "ground_truth"
