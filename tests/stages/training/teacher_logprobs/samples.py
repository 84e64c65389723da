"""Valid configs of the teacher_logprobs stage, for the tests of keys."""

from support.samples import Samples

SAMPLES = Samples(smallest={"teacher": "/teacher"}, values={"teacher": ["/other"]})
