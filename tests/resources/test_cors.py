"""Cross-origin resource sharing: who may read, preflights, and what is refused at once."""

from __future__ import annotations

from typing import Any

import pytest

from rpyserve import HTTPError, Request, Resource, Response, Site, cors
from tests.support.in_process import Answer, ask

PAGE = "http://localhost:5173"


def api(request: Request) -> Any:
    if request.method == "POST":
        raise HTTPError(400, "no")
    return Response({"ok": True}, headers={"Vary": "Accept"})


def allowed(answer: Answer) -> dict[str, str]:
    prefix = "Access-Control-"
    said = [
        (name[len(prefix) :].lower(), value)
        for name, value in answer.headers
        if name.startswith(prefix)
    ]
    return {name.removeprefix("allow-"): value for name, value in said}


def vary(answer: Answer) -> list[str]:
    return [value for name, value in answer.headers if name == "Vary"]


async def test_any_origin() -> None:
    site = Site(cors(api))
    answer = await ask(site, "/", headers=[("Origin", PAGE)])
    assert answer.body == b'{"ok": true}' and allowed(answer) == {"origin": "*"}
    assert vary(answer) == ["Accept"]
    assert allowed(await ask(site, "/")) == {}


async def test_named_origins_and_credentials() -> None:
    site = Site(
        cors(api, [PAGE, "https://example.com"], credentials=True, expose=["X-Count", "X-Page"])
    )
    answer = await ask(site, "/", headers=[("Origin", PAGE)])
    assert allowed(answer) == {
        "origin": PAGE,
        "credentials": "true",
        "expose-headers": "X-Count, X-Page",
    }
    assert vary(answer) == ["Accept", "Origin"]
    for origin in ("http://evil.example", "null", PAGE + ".evil.example", "http://localhost:51730"):
        answer = await ask(site, "/", headers=[("Origin", origin)])
        assert allowed(answer) == {} and vary(answer) == ["Accept", "Origin"]


async def test_letter_case_of_origins() -> None:
    answer = await ask(Site(cors(api, PAGE.title())), "/", headers=[("Origin", PAGE)])
    assert allowed(answer) == {"origin": PAGE}


async def test_errors_may_be_read_too() -> None:
    answer = await ask(Site(cors(api, PAGE)), "/", "POST", headers=[("Origin", PAGE)])
    assert answer.status == 400 and allowed(answer) == {"origin": PAGE}


async def preflight(site: Site, target: str = "/", origin: str = PAGE, **more: str) -> Answer:
    asked = [(f"Access-Control-Request-{name}", value) for name, value in more.items()]
    return await ask(site, target, "OPTIONS", headers=[("Origin", origin), *asked])


async def test_preflights() -> None:
    root = Resource()
    root.putChild("api", cors(Resource(), PAGE))
    site = Site(root)
    for target in ("/api", "/api/", "/api/a/b"):
        answer = await preflight(site, target, Method="PUT", Headers="x-token, content-type")
        assert answer.status == 204 and answer.body == b""
        assert allowed(answer) == {
            "origin": PAGE, "methods": "PUT", "headers": "x-token, content-type", "max-age": "600",
        }  # fmt: skip
    answer = await preflight(site, "/api", "http://evil.example", Method="PUT")
    assert "origin" not in allowed(answer)
    assert (
        await ask(site, "/api", "OPTIONS")
    ).status == 404  # no preflight: the resource's own business


async def test_other_options_are_answered_by_the_page_and_may_be_read() -> None:
    site = Site(cors(api, PAGE))
    answer = await ask(site, "/", "OPTIONS", headers=[("Origin", PAGE)])
    assert (answer.status, answer.header("allow")) == (204, "GET, HEAD, OPTIONS, POST")
    assert allowed(answer) == {"origin": PAGE}
    asked = [("Origin", PAGE), ("Access-Control-Request-Method", "PUT")]
    assert allowed(await ask(Site(api), "/", "OPTIONS", headers=asked)) == {}


async def test_preflights_of_chosen_methods() -> None:
    site = Site(cors(api, PAGE, methods=["GET", "PUT"], headers="X-Token", max_age=5))
    found = allowed(await preflight(site, Method="DELETE", Headers="x-other"))
    assert found == {"origin": PAGE, "methods": "GET, PUT", "headers": "X-Token", "max-age": "5"}


def test_what_would_open_everything_or_nothing() -> None:
    with pytest.raises(ValueError, match="needs named origins"):
        cors(api, credentials=True)
    for origin in ("localhost:5173", "http://localhost/", "http://localhost/path", "", "://x"):
        with pytest.raises(ValueError, match="is not an origin"):
            cors(api, origin)
