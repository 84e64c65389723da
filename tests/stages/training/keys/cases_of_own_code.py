"""Cases of the keys that name Python of one's own."""

from stages.training.keys.case import SGD, Case
from support.plugin_files import FILES, OTHER, OTHER_TRAINER, TRAINER

from stages.training.keys import observations as see

OWN_CODE: dict[str, list[Case]] = {
    "plugin_code": [Case((FILES, OTHER), see.weights, {"plugins": ["own_plugin.Steps"]})],
    "trainer_cls": [Case((None, "own_trainer.Weighs"), see.weights, {**SGD, "trainer_code": TRAINER})],
    "trainer_code": [
        Case((TRAINER, OTHER_TRAINER), see.weights, {**SGD, "trainer_cls": "own_trainer.Weighs"})
    ],
    "plugin_settings": [
        Case(
            ({}, {"shrink": 0.5}),
            see.weights,
            {"plugins": ["own_plugin.Freezes"], "plugin_code": FILES},
        )
    ],
}
