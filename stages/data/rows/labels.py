"""The label of a token that is not trained on."""

IGNORED = -100
