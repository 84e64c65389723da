"""The URL of an OpenAI-compatible endpoint, as keys hold it."""

import re
from typing import Annotated

from pydantic import AfterValidator

from tunemill.resources.protocols import without_credentials


def _is_an_endpoint(value: str) -> str:
    if not re.match(r"https?://[^/\s]", value):
        raise ValueError("must be a URL such as http://127.0.0.1:8000/v1")
    if without_credentials(value) != value:
        raise ValueError(
            "must hold no password and no key: set OPENAI_API_KEY in the environment instead, which no file keeps"
        )
    return value


EndpointUrl = Annotated[str, AfterValidator(_is_an_endpoint)]
