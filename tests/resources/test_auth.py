"""A Basic guard: who passes, who does not, and what is below it."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from rpyserve import BasicAuth, Directory, Request, Resource, Site, cors
from tests.support.in_process import Visitor, ask

USERS = {"ada": "lovelace", "grace": "höpper:1"}


def basic(name: str, password: str, encoding: str = "utf-8") -> tuple[str, str]:
    return "Authorization", "Basic " + base64.b64encode(
        f"{name}:{password}".encode(encoding)
    ).decode()


def guarded(users: Any = USERS) -> Site:
    return Site(BasicAuth(lambda request: f"hello {request.user}", users, 'the "vault"'))


async def test_who_passes_and_who_does_not() -> None:
    site = guarded()
    answer = await ask(site, "/")
    assert answer.status == 401
    assert answer.header("www-authenticate") == 'Basic realm="the \\"vault\\"", charset="UTF-8"'
    for name, password in USERS.items():
        assert (await ask(site, "/", headers=[basic(name, password)])).text == f"hello {name}"
        assert (
            await ask(site, "/", headers=[basic(name, password, "latin-1")])
        ).text == f"hello {name}"
    for name, password in [
        ("ada", ""),
        ("ada", "Lovelace"),
        ("", ""),
        ("eve", ""),
        ("ada", "lovelace "),
    ]:
        assert (await ask(site, "/", headers=[basic(name, password)])).status == 401


@pytest.mark.parametrize(
    "sent", ["", "Basic", "Basic !!!", "Basic YWRh", "Bearer x", "Digest a=b", "basic  ", "Basic é"]
)
async def test_what_is_no_authorization(sent: str) -> None:
    assert (await ask(guarded(), "/", headers=[("Authorization", sent)])).status == 401


@given(st.text(max_size=20), st.text(max_size=20))
def test_any_name_and_password_come_as_they_were_sent(name: str, password: str) -> None:
    sent = Request("GET", "/", [(b"authorization", basic(name, password)[1].encode())]).credentials
    if ":" in name or any(char < " " or char == "\x7f" for char in name + password):
        assert sent is None or sent == tuple(f"{name}:{password}".split(":", 1))
    else:
        assert sent == (name, password)


@pytest.mark.parametrize("is_async", [False, True])
async def test_a_function_may_decide(is_async: bool) -> None:
    async def later(name: str, password: str) -> bool:
        await trio.lowlevel.checkpoint()
        return name == password

    site = guarded(later if is_async else lambda name, password: name == password)
    assert (await ask(site, "/", headers=[basic("a", "a")])).text == "hello a"
    assert (await ask(site, "/", headers=[basic("a", "b")])).status == 401


async def test_all_that_is_below_is_guarded(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.txt").write_text("text", encoding="utf-8")
    (tmp_path / "b.rpy").write_text(
        "def resource(request):\n    return request.user + request.field('x')\n", encoding="utf-8"
    )
    root = Resource()
    root.putChild("vault", BasicAuth(Directory(tmp_path), USERS))
    async with Site(root).running() as site:
        ada = [basic("ada", "lovelace")]
        for target in (
            "/vault",
            "/vault/",
            "/vault/sub/",
            "/vault/sub/a.txt",
            "/vault/b",
            "/vault/nothing",
        ):
            assert (await ask(site, target)).status == 401
        assert (await ask(site, "/vault", headers=ada)).header("location") == "/vault/"
        assert "sub/" in (await ask(site, "/vault/", headers=ada)).text
        assert (await ask(site, "/vault/sub/a.txt", headers=ada)).text == "text"
        assert (await ask(site, "/vault/nothing", headers=ada)).status == 404
        form = [*ada, ("Content-Type", "application/x-www-form-urlencoded")]
        assert (await ask(site, "/vault/b", "POST", body=b"x=1", headers=form)).text == "ada1"


async def test_a_script_guards_a_directory_that_is_hidden_otherwise(tmp_path: Path) -> None:
    (tmp_path / ".members").mkdir()
    (tmp_path / ".members" / "index.html").write_text("for members", encoding="utf-8")
    (tmp_path / "members.rpy").write_text(
        "from rpyserve import BasicAuth, Directory\n"
        f"resource = BasicAuth(Directory({str(tmp_path / '.members')!r}), {{'ada': 'lovelace'}})\n",
        encoding="utf-8",
    )
    async with Site(Directory(tmp_path)).running() as site:
        assert (await ask(site, "/.members/index.html")).status == 404
        assert (await ask(site, "/members/")).status == 401
        visitor = Visitor(site)
        assert (await visitor.get("/members", headers=[basic("ada", "lovelace")])).header(
            "location"
        ) == "/members/"
        assert (
            await visitor.get("/members/", headers=[basic("ada", "lovelace")])
        ).text == "for members"


async def test_what_is_wrong_inside_is_said_of_what_is_inside() -> None:
    class Page(Resource):
        def render_GET(self, request: Request) -> Any:
            pass

    users = {"ada": "pw"}
    for resource in (BasicAuth(Page(), users), BasicAuth(cors(Page()), users)):
        answer = await ask(Site(resource), "/", headers=[("Authorization", "Basic YWRhOnB3")])
        assert "Page.render_GET returned nothing" in answer.text

    class Delegating(Resource):
        def render_GET(self, request: Request) -> Any:
            return BasicAuth(lambda request: f"for {request.user}", users).render(request)

    answer = await ask(Site(Delegating()), "/", headers=[("Authorization", "Basic YWRhOnB3")])
    assert answer.text == "for ada"


async def test_a_body_is_not_read_for_strangers() -> None:
    read = []

    async def body() -> Any:
        read.append(True)
        yield b"x=1"

    request = Request("POST", "/", [], body=body())
    assert (await guarded().respond(request)).status == 401
    assert not read


def test_twisteds_names() -> None:
    name, value = basic("ada", "lovelace")
    request = Request("GET", "/", [(name.lower().encode(), value.encode())])
    assert (request.getUser(), request.getPassword()) == ("ada", "lovelace")
    assert (Request("GET", "/").getUser(), Request("GET", "/").getPassword()) == ("", "")


def test_what_cannot_be_users_or_a_realm() -> None:
    with pytest.raises(TypeError, match="the password of 'ada' must be text"):
        BasicAuth(lambda request: "", {"ada": 1234})  # type: ignore[dict-item]
    for realm in ("a\nb", "\u20ac"):
        with pytest.raises(ValueError, match="realm"):
            BasicAuth(lambda request: "", {}, realm)
    with pytest.raises(TypeError, match="takes a mapping"):
        BasicAuth(Resource(), ["ada"])  # type: ignore[arg-type]
