"""Valid configs of the orpo stage, for the tests of keys."""

from support.samples import TESTS, load

SAMPLES = load(TESTS / "stages" / "training" / "samples.py")
