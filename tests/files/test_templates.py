"""Templates: where they are found, what they escape, and that no edit of one is missed."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from rpyserve import Directory, Site
from tests.support.in_process import ask
from tests.support.script_site import set_back

jinja2 = pytest.importorskip("jinja2")

SCRIPT = (
    "from rpyserve import html, template\n\ndef resource(request):\n    return template({!r}, {})\n"
)


@pytest.fixture
async def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Site]:
    monkeypatch.chdir(tmp_path)
    async with Site(Directory(tmp_path)).running() as site:
        yield site


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


async def test_values_are_escaped_and_markup_is_not(site: Site, tmp_path: Path) -> None:
    write(tmp_path / "page.html.j2", "<p>{{ name }}</p>{{ link }}")
    values = "name=request.field('name'), link=html('<a href=\"{}\">x</a>', '\"')"
    write(tmp_path / "page.rpy", SCRIPT.format("page.html.j2", values))
    answer = await ask(site, "/page?name=%3Cb%3EA%26da")
    assert answer.text == '<p>&lt;b&gt;A&amp;da</p><a href="&#34;">x</a>'
    assert answer.header("content-type") == "text/html; charset=utf-8"
    assert (await ask(site, "/page.html.j2")).status == 404


async def test_beside_the_script_then_in_the_site(site: Site, tmp_path: Path) -> None:
    write(tmp_path / "a.html.j2", "top {% include 'part.html.j2' %}")
    write(tmp_path / "part.html.j2", "top part")
    write(tmp_path / "sub" / "part.html.j2", "sub part")
    write(tmp_path / "sub" / "base.html.j2", "sub [{% block body %}{% endblock %}]")
    write(
        tmp_path / "sub" / "b.html.j2",
        "{% extends 'base.html.j2' %}{% block body %}{% include 'part.html.j2' %}{% endblock %}",
    )
    for name in ("a", "b"):
        write(tmp_path / "sub" / f"{name}.rpy", SCRIPT.format(f"{name}.html.j2", ""))
    assert (await ask(site, "/sub/a")).text == "top top part"
    assert (await ask(site, "/sub/b")).text == "sub [sub part]"


async def test_never_outside_of_the_site(site: Site, tmp_path: Path) -> None:
    outside = write(tmp_path.parent / f"{tmp_path.name}-secret.html.j2", "secret")
    write(tmp_path / "a.rpy", SCRIPT.format(f"../{outside.name}", ""))
    write(tmp_path / "b.html.j2", "{% include '../" + outside.name + "' %}")
    write(tmp_path / "b.rpy", SCRIPT.format("b.html.j2", ""))
    (tmp_path / "c.html.j2").symlink_to(outside)
    write(tmp_path / "c.rpy", SCRIPT.format("c.html.j2", ""))
    write(tmp_path / "d.rpy", SCRIPT.format(str(outside), ""))
    for name in "abcd":
        answer = await ask(site, f"/{name}")
        assert (
            answer.status == 500 and "TemplateNotFound" in answer.text and answer.text != "secret"
        ), name


@pytest.mark.parametrize("first", ["", "cache()\n"])
async def test_no_edit_is_missed(site: Site, tmp_path: Path, first: str) -> None:
    page = write(
        tmp_path / "page.html.j2", "{% extends 'base.html.j2' %}{% block x %}1{% endblock %}"
    )
    base = write(tmp_path / "base.html.j2", "a{% block x %}{% endblock %}")
    write(tmp_path / "page.rpy", first + SCRIPT.format("page.html.j2", ""))
    assert (await ask(site, "/page")).text == "a1"
    stamp = os.stat(page).st_mtime_ns
    for number in range(2, 6):  # of the same size, with the same time
        set_back(
            page, page.read_text(encoding="utf-8").replace(f"{number - 1}{{", f"{number}{{"), stamp
        )
        assert (await ask(site, "/page")).text == f"a{number}"
    set_back(base, "b{% block x %}{% endblock %}", os.stat(base).st_mtime_ns)
    assert (await ask(site, "/page")).text == "b5"


async def test_faults_name_the_template_and_its_line(site: Site, tmp_path: Path) -> None:
    write(tmp_path / "page.rpy", SCRIPT.format("page.html.j2", "items=[1, 0]"))
    write(
        tmp_path / "page.html.j2",
        "<ul>\n{% for item in items %}\n<li>{{ 1 / item }}</li>\n{% endfor %}\n</ul>",
    )
    answer = await ask(site, "/page")
    assert answer.status == 500 and "ZeroDivisionError" in answer.text
    assert "page.html.j2" in answer.text and "1 / item" in answer.text
    write(tmp_path / "page.html.j2", "<ul>\n{% for item in items %}\n")
    answer = await ask(site, "/page")
    assert "TemplateSyntaxError" in answer.text and "page.html.j2" in answer.text
    write(tmp_path / "page.html.j2", "{{ nmae }}")
    answer = await ask(site, "/page")
    assert "'nmae' is undefined" in answer.text
    write(tmp_path / "page.rpy", SCRIPT.format("paeg.html.j2", ""))
    answer = await ask(site, "/page")
    assert "There is no template 'paeg.html.j2' in the site." in answer.text


async def test_text_is_not_escaped(site: Site, tmp_path: Path) -> None:
    write(tmp_path / "a.txt.j2", "{{ name }}")
    write(tmp_path / "a.rpy", SCRIPT.format("a.txt.j2", "name='<b>'"))
    assert (await ask(site, "/a")).text == "<b>"


async def test_without_jinja_the_page_says_what_to_install(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rpyserve.files import templates

    templates._environment.cache_clear()
    monkeypatch.setitem(sys.modules, "jinja2", None)
    write(tmp_path / "a.html.j2", "x")
    write(tmp_path / "a.rpy", SCRIPT.format("a.html.j2", ""))
    answer = await ask(site, "/a")
    assert answer.status == 500 and "pip install Jinja2" in answer.text
