"""Plays the rows with rpyserve: in a cached script, or in a module that such a script imports."""

import sys

import trio
from common import play_all

from rpyserve import Directory, Request, Site

PAGE = """\
from rpyserve import cache

cache()
{definitions}


def resource(request):
    session = request.getSession()
    if "kept" not in session:
        session["kept"] = {make}
        return "made"
    kept = session["kept"]
    return "yes" if ({check}) else "no"
"""


async def visit(site, url, cookies):
    request = Request("GET", url, [(b"host", b"localhost"), (b"cookie", b"; ".join(cookies))])
    response = await site.respond(request)
    request.close()
    cookies += [value for name, value in response.headers if name.lower() == b"set-cookie"]
    return response.body.decode()


async def edit_and_visit(directory, number, row):
    directory = directory / f"site{number}"
    directory.mkdir()

    def save(definitions):
        if in_module:
            (directory / "shop.py").write_text(definitions)
            definitions = "from shop import *\n"
        page = PAGE.format(definitions=definitions, make=row["make"], check=row["check"])
        (directory / "page.rpy").write_text(page)

    site = Site(Directory(directory))
    cookies = []
    async with site.running():
        save(row["before"])
        made = await visit(site, "/page", cookies)
        assert made == "made", made
        save(row["after"])
        answer = await visit(site, "/page", cookies)
    if answer not in ("yes", "no"):
        raise RuntimeError(answer.splitlines()[0])
    return answer == "yes"


in_module = sys.argv[1:] == ["module"]
play_all(lambda *args: trio.run(edit_and_visit, *args))
