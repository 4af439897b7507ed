"""Signing in to the pages with an API key, and out again; without JavaScript."""

from urllib.parse import parse_qs

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response
from starlette.concurrency import run_in_threadpool

from app.api.sessions import COOKIE, LASTS_S, Sessions
from app.api_keys import ApiKey, describe_scopes
from app.dashboard.rendering import Fields, Pages
from app.errors import BodyTooLarge, TidemarkError
from app.keyring import Keyring

HOME = "./"
_OWN_PAGES = frozenset({HOME, "plot"})
_MOST_BYTES = 16_384
_SEE_OTHER = 303
_FORBIDDEN = 403
_NOT_VALID = "This key is not valid. It may be mistyped, revoked or expired."


def add_routes(routes: APIRouter, pages: Pages, keyring: Keyring, sessions: Sessions) -> None:
    """The page, what its form sends, and the button that ends the session."""

    @routes.get("/sign-in", include_in_schema=False)
    def ask(request: Request, next: str = HOME) -> Response:  # noqa: A002  its name in the URL
        is_known = sessions.key_of(request.headers.get("cookie", "")) is not None
        if is_known or keyring.is_required is False:
            return RedirectResponse(own_page(next), _SEE_OTHER)
        return pages.answer(request, "sign_in.html", lambda: {"next": own_page(next), "refusal": None})

    @routes.post("/sign-in", include_in_schema=False)
    async def sign_in(request: Request) -> Response:
        try:
            form = await _read_form(request)
            to = own_page(form.get("next", [HOME])[0])
            key = await find(form.get("key", [""])[0].strip())
        except TidemarkError as error:
            return pages.fail(request, error)
        refusal = _refusal(key)
        if key is None or refusal is not None:
            fields: Fields = {"next": to, "refusal": refusal}
            return pages.answer(request, "sign_in.html", lambda: fields, status=_FORBIDDEN)
        response = RedirectResponse(to, _SEE_OTHER)
        _set_cookie(request, response, sessions.cookie(key), LASTS_S)
        return response

    async def find(text: str) -> ApiKey | None:
        known = keyring.find(text.encode())
        if known is None and text:
            await run_in_threadpool(keyring.read)  # it may have been made since the keys were read
            known = keyring.find(text.encode())
        return known

    @routes.post("/sign-out", include_in_schema=False)
    def sign_out(request: Request) -> Response:
        response = RedirectResponse("sign-in", _SEE_OTHER)
        _set_cookie(request, response, "", 0)
        return response


async def _read_form(request: Request) -> dict[str, list[str]]:
    """Of whoever sends it, so not of any size. Raises BodyTooLarge."""
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > _MOST_BYTES:
            raise BodyTooLarge(f"The form of a sign-in has at most {_MOST_BYTES} bytes.")
    return parse_qs(body.decode("utf-8", "replace"))


def own_page(to: str) -> str:
    """Where to go on: a page of ours as the gate names it, with its query; home in place of anything else."""
    path, _, query = to.partition("?")
    if path not in _OWN_PAGES:
        return HOME
    return f"{path}?{query}" if query else path


def _refusal(key: ApiKey | None) -> str | None:
    if key is None:
        return _NOT_VALID
    if "read" not in key.scopes:
        return f"The key {key.name} has the scope {describe_scopes(key.scopes)}. The pages need read."
    return None


def _set_cookie(request: Request, response: Response, value: str, lasts_s: int) -> None:
    """Without a path the browser takes the folder of this page, which is right under the prefix of a proxy, too."""
    response.set_cookie(
        COOKIE,
        value,
        max_age=lasts_s,
        path=None,
        secure=request.url.scheme == "https",
        httponly=True,
        samesite="lax",  # strict would ask again whoever follows a link to a plot
    )
