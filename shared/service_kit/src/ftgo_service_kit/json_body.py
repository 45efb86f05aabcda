"""Bodies are JSON that all readers read alike (RFC 8259, in UTF-8), and the client says that they are."""

import json
from collections.abc import Callable, Coroutine, Sequence
from email.message import Message
from typing import Any, NoReturn

from fastapi import APIRouter, Request, Response
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from ftgo_service_kit.header_fields import field

MOST_FIELDS = 50
"""Of one object. The largest that a service knows has a tenth of that, and each unknown one costs an error."""


class MalformedJson(HTTPException):
    slug = "malformed-json"

    def __init__(self, reason: str) -> None:
        super().__init__(400, f"The body is not JSON that this service reads: {reason}.")


class UnsupportedMediaType(HTTPException):
    """An HTTPException, because FastAPI turns any other error while reading a body into a 400."""

    slug = "unsupported-media-type"

    def __init__(self, reason: str) -> None:
        detail = f"{reason} Send JSON in UTF-8, with the header Content-Type: application/json."
        super().__init__(415, detail, {"Accept": "application/json", "Accept-Encoding": "identity"})


def loads(body: bytes) -> Any:
    """Raises MalformedJson, with a sentence that says what is wrong and where."""
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise MalformedJson(f"byte {error.start} is not UTF-8") from None
    if text.startswith("\ufeff"):
        raise MalformedJson("it begins with a byte order mark, which does not belong there")
    try:
        return _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise MalformedJson(f"{error.msg} (character {error.pos})") from None
    except RecursionError:
        raise MalformedJson("it is nested too deeply") from None
    except ValueError:  # Python's bound on the digits of an integer
        raise MalformedJson("it holds a number of thousands of digits") from None


def _object(fields: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    known = dict(fields)
    if len(known) < len(fields):
        # Readers differ in which one they take: what a proxy has checked would not be what is carried out.
        raise MalformedJson("an object names the same field twice")
    if len(known) > MOST_FIELDS:
        raise MalformedJson(f"an object has {len(known)} fields, and none may have more than {MOST_FIELDS}")
    return known


def _no_number(name: str) -> NoReturn:
    raise MalformedJson(f"{name} is not a number of JSON")


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_no_number)


class JsonRequest(Request):
    async def body(self) -> bytes:
        body = await super().body()
        if body:
            self._require_json()
        return body

    async def json(self) -> Any:
        return loads(await self.body())

    def _require_json(self) -> None:
        if (field(self.scope, b"content-encoding") or "identity").lower() != "identity":
            raise UnsupportedMediaType("The body is compressed.")
        given = field(self.scope, b"content-type")
        if given == "application/json":
            return
        if not given:
            # A page of any web site can have its visitor's browser send a body without a type, but not one of JSON.
            raise UnsupportedMediaType("The body has no media type.")
        header = Message()
        header["Content-Type"] = given
        kind = header.get_content_type()
        if kind != "application/json" and not (kind.startswith("application/") and kind.endswith("+json")):
            raise UnsupportedMediaType(f"The body's media type is {kind}.")
        if str(header.get_param("charset", "utf-8")).lower() not in {"utf-8", "utf8"}:
            raise UnsupportedMediaType("The body's character set is not UTF-8.")


class JsonRoute(APIRoute):
    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def strictly(request: Request) -> Response:
            return await handle(JsonRequest(request.scope, request.receive))

        return handle if self.body_field is None else strictly


class JsonRouter(APIRouter):
    """What every route that takes a body belongs to."""

    def __init__(self, **options: Any) -> None:
        super().__init__(route_class=JsonRoute, **options)
