"""Forgotten `await`, and one too many."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest

from rpyserve import Site
from rpyserve.files.directory import Directory
from tests.support.in_process import ask

USER = "import trio\n\n\nasync def user():\n    return {'name': 'Ada'}\n\n\n"
PLAIN = USER + "def resource(request):\n"
ASYNC = USER + "async def resource(request):\n"

HELD = "found is a coroutine, because its call lacks `await`. Write:\nfound = await user(...)"
CALLED = "The call of an async function lacks `await`. Write:\nvalue = await f(...)"

CASES = {
    "subscript": (ASYNC + "    found = user()\n    return found['name']\n", HELD),
    "subscript, plain": (PLAIN + "    found = user()\n    return found['name']\n", HELD),
    "attribute": (ASYNC + "    found = user()\n    return found.name\n", HELD),
    "sum": (ASYNC + "    return 'Hello ' + user()\n", CALLED),
    "sum, plain": (PLAIN + "    return 'Hello ' + user()\n", CALLED),
    "loop": (ASYNC + "    return [x for x in user()]\n", CALLED),
    "len": (ASYNC + "    found = user()\n    return str(len(found))\n", HELD),
    "JSON": (ASYNC + "    import json\n    found = user()\n    return json.dumps(found)\n", HELD),
    "top level": (USER + "found = user()\nfound['name']\n", HELD),
    "another's": (ASYNC + "    return 'x' + trio.sleep(0)\n", CALLED),
    "await of a value": (
        ASYNC + "    return await str(1)\n",
        "This function is not async: it returns a value (str) at once. Remove the `await`.",
    ),
    "await of None": (ASYNC + "    await print()\n", "This function is not async: it returns a value (NoneType) at once. Remove the `await`."),
    "await twice": (
        ASYNC + "    found = user()\n    await found\n    await found\n",
        "A coroutine can be awaited only once. Call the function again each time:\nawait f(...)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
async def test_await(case: str, tmp_path: Path) -> None:
    source, hint = CASES[case]
    (tmp_path / "a.rpy").write_text(source)
    site = Site(Directory(tmp_path))
    answer = await ask(site, "/a")
    site.close()
    gc.collect()  # while the warnings of what was not awaited are ignored
    assert answer.status == 500
    lines = "\n".join(line.removeprefix("  ") for line in answer.text.splitlines())
    assert lines.endswith("\n" + hint)
