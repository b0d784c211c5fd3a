"""A plain value of a session is changed: what may be, to what, and that nothing else is called."""

from __future__ import annotations

import html
import json
import re
from collections import OrderedDict, deque
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlencode

import pytest

from rpyserve import Session, Site
from tests.inspector.test_inspector import EVIL, Pages, Served, handle, token
from tests.support.in_process import Answer, Visitor


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    site = Site(Pages())
    async with site.running():
        yield site


@pytest.fixture
def visitor(site: Site) -> Visitor:
    return Visitor(Served(site))


@pytest.fixture
async def session(site: Site, visitor: Visitor) -> Session:
    await handle(visitor)
    [session] = site.sessions
    return session


async def change(visitor: Visitor, path: str, seen: object, value: object, **more: Any) -> Answer:
    name = await handle_of(visitor)
    key = await token(visitor, name)
    fields = {"path": path, "seen": seen, "value": value, **more}
    return await post(visitor, name, {"token": key, **fields})


async def post(visitor: Visitor, name: str, fields: dict[str, Any]) -> Answer:
    headers = [("Content-Type", "application/json")]
    body = json.dumps(fields).encode()
    return await visitor.ask("POST", f"/-/sessions/{name}/set", body, headers)


async def handle_of(visitor: Visitor) -> str:
    items = json.loads((await visitor.get("/-/sessions.json")).body)["items"]
    return str(next(each["id"] for each in items if each["you"]))


def refuse(*args: Any) -> Any:
    raise AssertionError("the author's code was called")


class Thing:
    """An object that must not be asked anything."""

    __slots__ = ("__dict__", "slot")
    __module__ = "__main__"

    def __init__(self) -> None:
        object.__getattribute__(self, "__dict__")["name"] = "Ada"
        Thing.slot.__set__(self, 1.5)  # type: ignore[attr-defined]

    price = property(refuse, refuse)
    __setattr__ = __getattribute__ = __repr__ = __eq__ = refuse  # type: ignore[assignment]


async def test_each_kind_in_each_place(visitor: Visitor, session: Session) -> None:
    session["list"] = [1, "a", None, True]
    session["ordered"] = OrderedDict(a=1.5)
    session["deep"] = {"a": [{"b": 3}]}
    session[EVIL] = "evil"
    for path, seen, value in (
        ("session['n']", "1", 7),
        ("session['list'][0]", "1", "-12"),
        ("session['list'][1]", "'a'", EVIL),
        ("session['list'][3]", "True", False),
        ("session['ordered']['a']", "1.5", "3"),
        ("session['deep']['a'][0]['b']", "3", 4),
        (f"session[{EVIL!r}]", "'evil'", ""),
    ):
        answer = await change(visitor, path, seen, value)
        assert answer.status == 200, answer.text
    values = dict(session)
    assert (values["n"], values["list"]) == (7, [-12, EVIL, None, False])
    assert (values["ordered"]["a"], values["deep"]) == (3.0, {"a": [{"b": 4}]})
    assert values[EVIL] == ""
    assert (await visitor.get("/")).text == "8", "the site goes on with it"


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [("text", "x", "x"), ("whole number", "3", 3), ("number", "3", 3.0), ("truth", "true", True)],
)
async def test_none_may_become_anything(
    visitor: Visitor, session: Session, kind: str, text: str, value: object
) -> None:
    session["none"] = None
    answer = await change(visitor, "session['none']", "None", text)
    assert answer.status == 400, "of which kind?"
    answer = await change(visitor, "session['none']", "None", text, kind=kind)
    assert answer.status == 200, answer.text
    assert session["none"] == value
    assert type(session["none"]) is type(value)


async def test_attributes_without_the_authors_code(visitor: Visitor, session: Session) -> None:
    assert session._values is not None
    thing = session._values["thing"] = Thing()
    assert (await change(visitor, "session['thing'].name", "'Ada'", "Bob")).status == 200
    assert (await change(visitor, "session['thing'].slot", "1.5", "2.5")).status == 200
    assert object.__getattribute__(thing, "__dict__") == {"name": "Bob"}
    assert object.__getattribute__(thing, "slot") == 2.5
    answer = await change(visitor, "session['thing'].price", "1", "2")
    assert (answer.status, "no value" in answer.text) == (404, True), "it is a property"


@pytest.mark.parametrize(
    ("path", "seen", "value", "more", "status"),
    [
        ("session['n']", "2", 3, {}, 409),  # it has changed
        ("session['n']", "1", "x", {}, 400),
        ("session['n']", "1", "1.5", {}, 400),
        ("session['n']", "1", "9" * 5000, {}, 400),
        ("session['n']", "1", True, {}, 400),
        ("session['n']", "1", None, {}, 400),
        ("session['n']", "1", "x", {"kind": "text"}, 409),
        ("session['n']", "1", "2", {"kind": "secret"}, 400),
        ("session['n']", "1", [], {}, 400),
        ("session['float']", "1.5", "nan", {}, 400),
        ("session['float']", "1.5", "inf", {}, 400),
        ("session['password']", "•••", "x", {}, 409),
        ("session['query']", "'password=•••'", "x", {}, 409),
        ("session['inner']['token']", "•••", "x", {}, 409),
        ("session['long']", "x", "x", {}, 409),
        ("session['tuple'][0]", "1", "2", {}, 404),
        ("session['deque'][0]", "1", "2", {}, 404),
        ("session['set']{1}", "1", "2", {}, 404),
        ("session['inner']", "dict of 1", "2", {}, 409),
        ("session['nothing']", "1", "2", {}, 404),
        ("session.site", "None", "2", {}, 404),
        ("session._uid", "'x'", "2", {}, 404),
        ("__import__('os').system('true')", "1", "2", {}, 404),
        ("../../etc/passwd", "1", "2", {}, 404),
        (EVIL, EVIL, EVIL, {}, 404),
        ("\ud800", "1", "2", {}, 404),
    ],
)
async def test_what_is_refused(
    visitor: Visitor,
    session: Session,
    path: str,
    seen: str,
    value: object,
    more: dict[str, str],
    status: int,
) -> None:
    session["password"], session["query"] = "sesame in the session", "password=hidden"
    session["inner"], session["long"] = {"token": "sesame"}, "x" * 10_000_000
    session["tuple"], session["deque"], session["set"] = (1,), deque([1]), {1}
    session["float"] = 1.5
    before = repr(dict(session))
    if isinstance(value, list):
        name = await handle_of(visitor)
        fields = {"token": await token(visitor, name), "path": path, "seen": seen, "value": value}
        answer = await post(visitor, name, fields)
    else:
        answer = await change(visitor, path, seen, value, **more)
    assert answer.status == status, answer.text
    assert json.loads(answer.body)["detail"]
    assert repr(dict(session)) == before
    assert "sesame" not in answer.text


async def test_two_places_that_are_written_alike(visitor: Visitor, session: Session) -> None:
    assert session._values is not None
    session["both"] = {"x" * 100 + "1": 1, "x" * 100 + "2": 1}
    path = next(
        each["path"]
        for each in json.loads(
            (await visitor.get(f"/-/sessions/{await handle_of(visitor)}.json")).body
        )["holds"]
        if "xxx" in each["path"]
    )
    assert (await change(visitor, path, "1", "2")).status == 404
    assert set(session["both"].values()) == {1}


@pytest.mark.parametrize("missing", ["path", "seen", "value"])
async def test_a_field_that_is_missing(visitor: Visitor, session: Session, missing: str) -> None:
    fields = {"path": "session['n']", "seen": "1", "value": "2"}
    del fields[missing]
    name = await handle_of(visitor)
    key = await token(visitor, name)
    answer = await post(visitor, name, {"token": key, **fields})
    assert answer.status == 400
    assert session["n"] == 1


async def test_by_the_form_of_the_page(visitor: Visitor, session: Session) -> None:
    session["deep"] = {"a": {EVIL: 1, "b": "<b>'\""}}
    name = await handle_of(visitor)
    page = (await visitor.get(f"/-/sessions/{name}")).text
    links = [html.unescape(each) for each in re.findall('class=change href="([^"]+)"', page)]
    assert len(links) == 3
    page = (await visitor.get(f"/-/sessions/{name}{links[2]}")).text
    form = re.search("<form class=change.*?</form>", page, re.S)
    assert form, page
    pairs = re.findall(r'name="?(\w+)"? value="([^"]*)"', form[0])
    fields = {key: html.unescape(value) for key, value in pairs}
    assert fields["value"] == "<b>'\"", "what is there is in the field"
    answer = await visitor.post(f"/-/sessions/{name}/set", urlencode(fields | {"value": "<i>"}))
    assert answer.status == 200, answer.text
    assert session["deep"]["a"]["b"] == "<i>"
    again = await visitor.post(f"/-/sessions/{name}/set", urlencode(fields))
    assert again.status == 409
    assert "It has changed meanwhile, to &#39;&lt;i&gt;&#39;" in again.text
    assert re.search(r'<details id="session%5B%27deep%27%5D%5B%27a%27%5D" open>', page)
