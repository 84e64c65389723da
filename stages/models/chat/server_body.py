"""A model behind OpenAI's protocol: /v1/chat/completions, /v1/completions, /v1/models.

One answer at a time, in the order of the requests; where too many wait already, the next one is refused.
"""

import asyncio
import json
import secrets
import socket
import time
from collections.abc import Generator
from threading import Event
from typing import Any
from weakref import WeakSet

import uvicorn
from anyio import CancelScope
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from tunemill.stages.errors import UserError
from tunemill.stages.models.chat.requests import Asked, Kind, RequestError, asked
from tunemill.stages.models.chat.sampling import Answer, Sampling
from tunemill.stages.models.chat.speaker_body import Speaker, answer, answering, prompt_of
from tunemill.stages.models.chat.turns import Turn, Turns

PATHS: dict[str, Kind] = {"/v1/chat/completions": "chat", "/v1/completions": "text"}
OBJECTS = {"chat": ("chat.completion", "chat.completion.chunk"), "text": ("text_completion",) * 2}
PREFIXES = {"chat": "chatcmpl-", "text": "cmpl-"}


def make_app(speaker: Speaker, name: str, usual: Sampling) -> Starlette:
    """The server of one model; `usual` is how it answers where a request does not say."""
    turns, began = Turns(), int(time.time())
    cancels: WeakSet[Event] = WeakSet()

    async def complete(request: Request) -> Response:
        kind = PATHS[request.url.path]
        try:
            body = await request.json()
        except (ValueError, RecursionError):
            return _error(RequestError("the body is no JSON"))
        except ClientDisconnect:
            # Nobody hears it.
            return Response()
        try:
            wanted = asked(body, kind, name, usual)
        except RequestError as error:
            return _error(error)
        turn = turns.take()
        if turn is None:
            return _too_many(turns)
        cancelled = Event()
        cancels.add(cancelled)
        return await _answered(request, speaker, wanted, kind, name, turn, cancelled)

    async def models(request: Request) -> Response:
        one = {"id": name, "object": "model", "created": began, "owned_by": "tunemill"}
        asked_for = request.path_params.get("model")
        if asked_for is None:
            return JSONResponse({"object": "list", "data": [one]})
        if asked_for != name:
            return _error(RequestError(f"there is no model {asked_for!r} here, only {name!r}", "model", 404))
        return JSONResponse(one)

    async def health(_: Request) -> Response:
        return JSONResponse({"status": "ok"})

    app = Starlette(
        routes=[
            *(Route(path, complete, methods=["POST"]) for path in PATHS),
            Route("/v1/models", models),
            Route("/v1/models/{model:path}", models),
            Route("/health", health),
        ]
    )
    app.state.cancels = cancels
    return app


async def _answered(
    request: Request, speaker: Speaker, wanted: Asked, kind: Kind, name: str, turn: Turn, cancelled: Event
) -> Response:
    """The answer, whole or in pieces; the place in the queue is left once it is there, or cannot be."""
    is_theirs = False
    try:
        prompt = await run_in_threadpool(prompt_of, speaker, wanted.said)
        if wanted.stream:
            lines = _lines(speaker, prompt, wanted, kind, name, turn, cancelled)
            is_theirs = True
            return Stream(lines, turn)
        watching = asyncio.create_task(_cancel_once_gone(request, cancelled))
        try:
            return JSONResponse(
                await run_in_threadpool(_whole, speaker, prompt, wanted, kind, name, turn, cancelled)
            )
        finally:
            watching.cancel()
    except RequestError as error:
        return _error(error)
    except UserError as error:
        return _error(RequestError(str(error)))
    finally:
        if not is_theirs:
            turn.leave()


class Stream(StreamingResponse):
    """An answer in pieces, which leaves its place in the queue however it ends, also where nobody has heard any."""

    def __init__(self, lines: Generator[str], turn: Turn) -> None:
        super().__init__(lines, media_type="text/event-stream")
        self._lines, self._turn = lines, turn

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            # Nothing is generated any more when the next one begins.
            with CancelScope(shield=True):
                await run_in_threadpool(self._lines.close)
            self._turn.leave()


class Server(uvicorn.Server):
    """Ends the answers that are being generated when it is told to end, instead of waiting for them."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End them, then all else."""
        for cancelled in list(self.config.app.state.cancels):  # type: ignore[union-attr]
            cancelled.set()
        await super().shutdown(sockets)


async def _cancel_once_gone(request: Request, cancelled: Event) -> None:
    """Nothing more is generated for a client that has hung up."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
    cancelled.set()


def _too_many(turns: Turns) -> JSONResponse:
    text = "too many requests are waiting for this model, which answers one at a time; come back later"
    told = {"message": text, "type": "server_error", "param": None, "code": "overloaded"}
    return JSONResponse({"error": told}, status_code=503, headers={"Retry-After": str(turns.seconds)})


def _error(error: RequestError) -> JSONResponse:
    told = {"message": str(error), "type": "invalid_request_error", "param": error.param, "code": None}
    return JSONResponse({"error": told}, status_code=error.status)


def _usage(found: Answer) -> dict[str, int]:
    return {
        "prompt_tokens": found.prompt_tokens,
        "completion_tokens": found.tokens,
        "total_tokens": found.prompt_tokens + found.tokens,
    }


def _envelope(kind: Kind, name: str, is_piece: bool) -> dict[str, Any]:
    return {
        "id": PREFIXES[kind] + secrets.token_hex(12),
        "object": OBJECTS[kind][is_piece],
        "created": int(time.time()),
        "model": name,
    }


def _whole(
    speaker: Speaker, prompt: list[int], wanted: Asked, kind: Kind, name: str, turn: Turn, cancelled: Event
) -> dict[str, Any]:
    turn.wait()
    try:
        found = answer(speaker, prompt, wanted.sampling, lambda _: None, cancelled)
    finally:
        # Also where the handler has ended before: then nobody waits for this thread.
        turn.leave()
    said = (
        {"message": {"role": "assistant", "content": found.text}} if kind == "chat" else {"text": found.text}
    )
    choice = {"index": 0, **said, "logprobs": None, "finish_reason": found.finish_reason}
    return {**_envelope(kind, name, False), "choices": [choice], "usage": _usage(found)}


def _lines(
    speaker: Speaker, prompt: list[int], wanted: Asked, kind: Kind, name: str, turn: Turn, cancelled: Event
) -> Generator[str]:
    """Server-sent events. Nothing more is generated once nobody reads them."""
    envelope = _envelope(kind, name, True)

    def event(said: dict[str, Any], reason: str | None = None) -> str:
        piece = {"delta": said} if kind == "chat" else {"text": said.get("content", "")}
        choice = {"index": 0, **piece, "logprobs": None, "finish_reason": reason}
        return f"data: {json.dumps({**envelope, 'choices': [choice]})}\n\n"

    if kind == "chat":
        yield event({"role": "assistant", "content": ""})
    turn.wait()
    try:
        for item in answering(speaker, prompt, wanted.sampling, cancelled):
            if isinstance(item, str):
                yield event({"content": item})
                continue
            yield event({}, item.finish_reason)
            if wanted.counts:
                yield f"data: {json.dumps({**envelope, 'choices': [], 'usage': _usage(item)})}\n\n"
    except UserError as error:
        yield f"data: {json.dumps({'error': {'message': str(error), 'type': 'invalid_request_error'}})}\n\n"
    finally:
        turn.leave()
    yield "data: [DONE]\n\n"
