"""Valid settings of what is published, for the tests of keys."""

from support.samples import Samples

SAMPLES = Samples(values={"publish_sign": ["/key.pem"]})
