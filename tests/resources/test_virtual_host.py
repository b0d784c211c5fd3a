"""Several sites behind one address."""

from __future__ import annotations

from pathlib import Path

import pytest

from rpyserve import Directory, NameVirtualHost, Site
from tests.support.in_process import ask


def hosts() -> NameVirtualHost:
    root = NameVirtualHost()
    root.addHost("cats.localhost", lambda request: "cats")
    root.addHost(b"Dogs.Localhost", lambda request: "dogs")
    return root


@pytest.mark.parametrize(
    ("host", "text"),
    [
        ("cats.localhost", "cats"),
        ("CATS.localhost:8080", "cats"),
        ("dogs.localhost.", "dogs"),
        ("dogs.localhost", "dogs"),
    ],
)
async def test_the_host_decides(host: str, text: str) -> None:
    assert (await ask(Site(hosts()), "/", headers=[("Host", host)])).text == text


async def test_the_target_goes_before_the_header() -> None:
    answer = await ask(
        Site(hosts()), "http://cats.localhost/", headers=[("Host", "dogs.localhost")]
    )
    assert answer.text == "cats"


async def test_other_names() -> None:
    root = hosts()
    answer = await ask(Site(root), "/", headers=[("Host", "localhost")])
    assert answer.status == 404 and "cats.localhost, dogs.localhost" in answer.text
    root.default = root.hosts["cats.localhost"]
    assert (await ask(Site(root), "/", headers=[("Host", "localhost")])).text == "cats"
    assert (await ask(Site(root), "/")).text == "cats"
    root.removeHost("DOGS.localhost")
    assert (await ask(Site(root), "/", headers=[("Host", "dogs.localhost")])).text == "cats"
    with pytest.raises(KeyError):
        root.removeHost("dogs.localhost")


async def test_directories_with_helpers_of_the_same_name(tmp_path: Path) -> None:
    root = NameVirtualHost()
    for name in ("cats", "dogs"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "helper.py").write_text(f"WORD = {name!r}\n", encoding="utf-8")
        (tmp_path / name / "404.rpy").write_text(
            f"def resource(request):\n    return 'no {name}'\n", encoding="utf-8"
        )
        (tmp_path / name / "a.rpy").write_text(
            "from . import helper\n\ndef resource(request):\n"
            "    session = request.getSession()\n    session['n'] = session.get('n', 0) + 1\n"
            "    return helper.WORD\n",
            encoding="utf-8",
        )
        root.addHost(f"{name}.localhost", Directory(tmp_path / name))
    async with Site(root).running() as site:
        for _ in range(2):
            for name in ("cats", "dogs"):
                host = [("Host", f"{name}.localhost")]
                assert (await ask(site, "/a", headers=host)).text == name
                assert (await ask(site, "/b", headers=host)).text == f"no {name}"
