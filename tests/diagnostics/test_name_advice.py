"""Names of other servers, and names that must be imported."""

from __future__ import annotations

import importlib

import pytest

from rpyserve import Request, Resource, Session
from rpyserve.diagnostics import name_advice
from rpyserve.diagnostics.advice import advice_for
from rpyserve.diagnostics.name_advice import for_member, for_unimported


def missing(thing: object, name: str) -> str:
    with pytest.raises(AttributeError) as caught:
        getattr(thing, name)
    return advice_for(caught.value)


@pytest.mark.parametrize(
    ("name", "instead"),
    [
        ("getClientIP", "request.client[0]"), ("form", 'request.field("name")'),
        ("isSecure", 'request.scheme == "https"'),
        ("headers", 'request.getHeader("user-agent")'), ("get_json", "request.json()"),
        ("notifyFinish", "async def render_GET(self, request):\n    try:\n        ...\n    finally:"),
    ],
)  # fmt: skip
def test_requests(name: str, instead: str) -> None:
    assert missing(Request("GET", "/"), name) == f"rpyserve's Request has no {name}. Write:\n{instead}"


def test_sessions_and_resources() -> None:
    assert missing(Session(None, None), "permanent") == (
        "rpyserve's Session has no permanent. Write:\nsession.sessionTimeout = None"
    )
    assert missing(Resource(), "listNames") == "rpyserve's Resource has no listNames. Write:\nlist(self.children)"


def test_what_there_is_is_not_in_the_tables() -> None:
    things = {Request: Request("GET", "/"), Session: Session(None, None), Resource: Resource()}
    for kind, names in name_advice._MEMBERS.items():
        assert not [name for name in names if hasattr(things[kind], name)]
    assert for_member(object(), "form") == ""


def test_every_module_has_what_is_imported_from_it() -> None:
    for name, module in name_advice._HOMES.items():
        assert hasattr(importlib.import_module(module), name), f"{module}.{name}"


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("Redirect", "from rpyserve import Redirect"), ("Path", "from pathlib import Path"), ("json", "import json"),
        ("escape", "from html import escape"), ("sleep", "from trio import sleep"), ("trio", "import trio"),
    ],
)  # fmt: skip
def test_what_must_be_imported(name: str, line: str) -> None:
    assert for_unimported(name) == f"Import it first:\n{line}"
    assert for_unimported("nothing_of_the_kind") == ""
