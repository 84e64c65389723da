"""What lets one in, and must not be kept or shown: passwords, tokens and signatures in URLs and variables.

It is found by its shape (in URLs and headers), and by its value where the config or the environment has told it.
"""

import base64
import json
import re
import traceback
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import Any
from urllib.parse import quote, quote_plus, unquote, unquote_plus

from tunemill.resources.protocols import (
    ODD_USER_IN_URL,
    PARAMETER,
    USER_IN_URL,
    is_container,
    is_secret_name,
)

HIDDEN = "***"
# Shorter ones are found by their place only: hiding every `abc` would make messages unreadable.
SHORTEST = 6
# Variables whose names speak of secrets and whose values say where they lie.
PLACES = re.compile(
    r"(PATH|FILE|DIR|SOCK|URL|URI|ENDPOINT|PWD|XAUTHORITY|GOOGLE_APPLICATION_CREDENTIALS)$", re.IGNORECASE
)
HEADER = re.compile(
    r"""(authorization[\\"']*\s*[:=,]\s*[\\"']*(?:(?:bearer|basic|token)\s+)?)[^\s"'\\]+""", re.IGNORECASE
)
CONNECTION = re.compile(r"\b((?:AccountKey|SharedAccessKey|SharedAccessSignature)=)[^;\s]+", re.IGNORECASE)
# Tokens that can be told by how they begin.
TOKENS = re.compile(
    r"\b(?:hf_[A-Za-z0-9]{20,}|gh[opsu]_[A-Za-z0-9]{20,}|github_pat_[A-Za-z0-9_]{20,}|(?:AKIA|ASIA)[0-9A-Z]{16})\b"
)


def redacted(text: str, secrets: tuple[str, ...] = ()) -> str:
    """The text with what lets one in put out of sight; `secrets` are values of which it is known."""
    for secret in secrets:
        text = text.replace(secret, HIDDEN)
    if ":/" in text:
        text = USER_IN_URL.sub(_hide_user, ODD_USER_IN_URL.sub(_hide_user, text))
    if "=" in text:
        text = CONNECTION.sub(rf"\1{HIDDEN}", PARAMETER.sub(_hide_value, text))
    return TOKENS.sub(HIDDEN, HEADER.sub(rf"\1{HIDDEN}", text))


def redacted_document(document: Any, secrets: tuple[str, ...] = ()) -> Any:
    """A document of JSON types with every text in it redacted; names of its parts stay."""
    match document:
        case str():
            return redacted(document, secrets)
        case Mapping():
            return {name: redacted_document(item, secrets) for name, item in document.items()}
        case list() | tuple():
            return [redacted_document(item, secrets) for item in document]
        case _:
            return document


def secrets_in(document: Any, environment: Mapping[str, str]) -> tuple[str, ...]:
    """Every secret that a config's URLs and API keys and an environment's variables hold, in each spelling."""
    found = {secret for text in _texts(document) for secret in _secrets_of_url(text)}
    found.update(_api_keys(document))
    for name, value in environment.items():
        found.update(_secrets_of_url(value))
        if is_secret_name(name) and not PLACES.search(name):
            found.add(value)
        elif name.startswith("FSSPEC_"):
            found.update(_secrets_of_settings(value))
    spelled = {spelling for secret in found for spelling in _spellings(secret)}
    # The long ones first: a short one may be part of them.
    return tuple(
        sorted((item for item in spelled if len(item) >= SHORTEST), key=lambda item: (-len(item), item))
    )


@contextmanager
def hidden_in_errors(secrets: tuple[str, ...], *expected: type[Exception]) -> Iterator[None]:
    """An error that nobody expected and that says a secret becomes a RuntimeError with its redacted traceback as text.

    Every other error passes as it is, also an `expected` one: whoever catches it redacts what it says.
    """

    def look(_: type[BaseException] | None, error: BaseException | None, __: TracebackType | None) -> None:
        if isinstance(error, Exception) and not isinstance(error, expected):
            said = [str(item) for item in _chain(error)]
            if any(redacted(text, secrets) != text for text in said):
                text = "".join(traceback.format_exception(error))
                raise RuntimeError(redacted(text, secrets)) from None

    with ExitStack() as stack:
        stack.push(look)
        yield


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error, and what it came from."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _hide_user(found: re.Match[str]) -> str:
    if is_container(found) or found["user"] == HIDDEN:
        return found.group()
    return f"{found['protocol']}:{found['slashes']}{HIDDEN}@"


def _hide_value(found: re.Match[str]) -> str:
    if not is_secret_name(unquote_plus(found["name"])):
        return found.group()
    return f"{found['before']}{found['name']}={HIDDEN}"


def _texts(document: Any) -> Iterator[str]:
    match document:
        case str():
            yield document
        case Mapping():
            for item in document.values():
                yield from _texts(item)
        case list() | tuple():
            for item in document:
                yield from _texts(item)


def _api_keys(document: Any) -> Iterator[str]:
    """The values of `comet_api_key` and its like. `..._token` is more often a word of a model."""
    match document:
        case Mapping():
            for name, item in document.items():
                if isinstance(item, str) and str(name).endswith("api_key"):
                    yield item
                yield from _api_keys(item)
        case list() | tuple():
            for item in document:
                yield from _api_keys(item)


def _secrets_of_url(text: str) -> Iterator[str]:
    for pattern in (USER_IN_URL, ODD_USER_IN_URL) if ":/" in text else ():
        for found in pattern.finditer(text):
            user, colon, password = found["user"].partition(":")
            if colon:
                yield from (
                    password,
                    base64.b64encode(unquote(found["user"]).encode(errors="replace")).decode(),
                )
            elif not is_container(found):
                yield user
    for found in PARAMETER.finditer(text):
        if is_secret_name(unquote_plus(found["name"])):
            yield found["value"]


def _secrets_of_settings(value: str) -> Iterator[str]:
    """Of a variable of fsspec: the settings of a file system as JSON."""
    try:
        settings = json.loads(value)
    except ValueError:
        return
    pending = list(settings.items()) if isinstance(settings, dict) else []
    while pending:
        name, item = pending.pop()
        if isinstance(item, dict):
            pending += [(f"{name}_{inner}", value) for inner, value in item.items()]
        elif isinstance(item, str) and is_secret_name(str(name)):
            yield from (item, *item.split()[1:])


def _spellings(secret: str) -> Iterator[str]:
    for plain in (secret, unquote(secret), unquote_plus(secret)):
        yield from (plain, quote(plain, safe=""), quote(plain), quote_plus(plain), json.dumps(plain)[1:-1])
