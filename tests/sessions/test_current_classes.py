"""After a save, an object is of the present class at its first use, whichever page asks."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from rpyserve.livereload.live_reload import directories_in
from tests.support.edited_site import Editing

pytestmark = pytest.mark.usefixtures("autojump_clock")

CART = "class Cart:\n    def total(self): return {total!r}\n"
SHOP = (
    "def resource(request):\n"
    "    s = request.getSession()\n"
    "    if 'cart' not in s: s['cart'] = Cart()\n"
    "    return s['cart'].total()\n"
)
HEADER = "def resource(request): return request.getSession()['cart'].total()\n"


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Editing]:
    async with Editing.at(tmp_path) as editing:
        yield editing


def save(site: Editing, name: str, text: str) -> None:
    path = site.root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


@pytest.mark.parametrize("cached", ["cache()\n", ""])
async def test_a_page_that_does_not_import_the_module(site: Editing, cached: str) -> None:
    save(site, "shop.py", CART.format(total="old"))
    save(site, "shop.rpy", f"{cached}from shop import Cart\n{SHOP}")
    save(site, "header.rpy", cached + HEADER)
    assert [await site.get("/shop"), await site.get("/header")] == ["old", "old"]
    save(site, "shop.py", CART.format(total="new"))
    assert [await site.get("/header") for _ in range(2)] == ["new", "new"]
    assert await site.get("/shop") == "new"


@pytest.mark.parametrize("cached", ["cache()\n", ""])
async def test_a_page_other_than_the_script(site: Editing, cached: str) -> None:
    save(site, "shop.rpy", f"cache()\n{CART.format(total='old')}{SHOP}")
    save(site, "header.rpy", cached + HEADER)
    assert [await site.get("/shop"), await site.get("/header")] == ["old", "old"]
    for total in ("new", "newer"):
        save(site, "shop.rpy", f"cache()\n{CART.format(total=total)}{SHOP}")
        assert [await site.get("/header") for _ in range(2)] == [total, total]


async def test_the_script_is_executed_once_for_each_save(site: Editing) -> None:
    counted = "cache()\nregistry['runs'] = registry.get('runs', 0) + 1\n"
    save(site, "shop.rpy", f"{counted}{CART.format(total='old')}{SHOP}")
    save(site, "header.rpy", HEADER)
    save(site, "runs.rpy", "def resource(request): return str(registry['runs'])\n")
    await site.get("/shop")
    save(site, "shop.rpy", f"{counted}{CART.format(total='new')}{SHOP}")
    assert await site.get("/runs") == "1"  # nobody has asked for what it defines
    assert [await site.get("/header"), await site.get("/shop")] == ["new", "new"]
    assert await site.get("/runs") == "2"


async def test_a_class_that_is_imported_when_it_is_used(site: Editing) -> None:
    save(site, "shop.py", CART.format(total="old"))
    save(site, "shop.rpy", f"from shop import Cart\n{SHOP}")
    save(
        site,
        "lazy.rpy",
        "def resource(request):\n    cart = request.getSession()['cart']\n"
        "    from shop import Cart\n    return f'{isinstance(cart, Cart)} {cart.total()}'\n",
    )
    await site.get("/shop")
    assert await site.get("/lazy") == "True old"
    save(site, "shop.py", CART.format(total="new"))
    assert await site.get("/lazy") == "True new"


async def test_objects_deep_in_the_registry(site: Editing) -> None:
    save(site, "models.py", CART.format(total="old"))
    save(
        site,
        "fill.rpy",
        "import models\nregistry['all'] = []\nregistry['all'].append({'a': (models.Cart(),)})\n"
        "def resource(request): return ''\n",
    )
    save(site, "show.rpy", "def resource(request): return registry['all'][0]['a'][0].total()\n")
    await site.get("/fill")
    save(site, "models.py", CART.format(total="new"))
    assert await site.get("/show") == "new"


async def test_a_class_whose_base_class_is_in_a_module(site: Editing) -> None:
    save(site, "base.py", "class Base:\n    def total(self): return 'old'\n")
    shop = f"cache()\nfrom base import Base\nclass Cart(Base): pass\n{SHOP}"
    save(site, "shop.rpy", shop)
    save(site, "header.rpy", "cache()\n" + HEADER)
    assert [await site.get("/shop"), await site.get("/header")] == ["old", "old"]
    save(site, "base.py", "class Base:\n    def total(self): return 'new'\n")
    assert await site.get("/header") == "new"


@pytest.mark.parametrize(
    ("module", "broken", "said"),
    [
        (True, "class Cart(:\n", "SyntaxError"),
        (True, "1 / 0\n", "ZeroDivisionError: division by zero"),
        (False, "class Cart(:\n", "SyntaxError"),
        (False, "cache()\nraise ValueError('x')\n", "ValueError: x"),
    ],
)
async def test_a_save_that_fails_leaves_objects_as_they_were(
    site: Editing, module: bool, broken: str, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "rpyserve")
    name = "shop.py" if module else "shop.rpy"
    head, tail = ("", "") if module else ("cache()\n", SHOP)
    save(site, "shop.rpy", f"from shop import Cart\n{SHOP}")
    save(site, name, f"{head}{CART.format(total='old')}{tail}")
    save(site, "header.rpy", HEADER)
    await site.get("/shop")
    save(site, name, broken)
    assert [await site.get("/header") for _ in range(3)] == ["old"] * 3
    told = [r.getMessage() for r in caplog.records if "keep their old methods" in r.getMessage()]
    assert len(told) == 1 and said in told[0] and told[0].startswith(name.removesuffix(".py"))
    save(site, name, f"{head}{CART.format(total='new')}{tail}")
    assert await site.get("/header") == "new"


async def test_a_module_that_is_deleted_is_no_failure(
    site: Editing, caplog: pytest.LogCaptureFixture
) -> None:
    save(site, "shop.py", CART.format(total="old"))
    save(site, "shop.rpy", f"from shop import Cart\n{SHOP}")
    save(site, "header.rpy", HEADER)
    await site.get("/shop")
    (site.root / "shop.py").unlink()
    assert await site.get("/header") == "old"
    assert "fails" not in caplog.text
    save(site, "shop.py", CART.format(total="new"))
    assert await site.get("/header") == "new"


async def test_a_thread_that_asks_first_for_what_a_script_defines(site: Editing) -> None:
    save(
        site,
        "shop.rpy",
        f"cache()\n{CART.format(total='old')}registry.setdefault('cart', Cart())\n{SHOP}",
    )
    work = (
        "import trio\ndef work(): return registry['cart'].total()\n"
        "async def resource(request): return await trio.to_thread.run_sync(work)\n"
    )
    save(site, "work.rpy", work)
    await site.get("/shop")
    assert await site.get("/work") == "old"
    save(site, "shop.rpy", f"cache()\n{CART.format(total='new')}{SHOP}")
    # A script is executed in the thread of the event loop only, so that comes with a request.
    assert await site.get("/work") in ("old", "new")
    assert await site.get("/work") == "new"


async def test_a_thread_that_asks_first_for_what_a_module_defines(site: Editing) -> None:
    save(site, "shop.py", CART.format(total="old"))
    save(site, "fill.rpy", "import shop\nregistry['cart'] = shop.Cart()\nresource = lambda r: ''\n")
    save(
        site,
        "work.rpy",
        "import trio\ndef work(): return registry['cart'].total()\n"
        "async def resource(request): return await trio.to_thread.run_sync(work)\n",
    )
    await site.get("/fill")
    save(site, "shop.py", CART.format(total="new"))
    assert await site.get("/work") == "new"


async def test_a_stream_sees_a_save_with_the_event_of_the_watcher(site: Editing) -> None:
    """No request comes between, which would look at the files."""
    save(site, "shop.rpy", f"cache()\n{CART.format(total='old')}{SHOP}")
    await site.get("/shop")
    session = next(iter(site.site.sessions))
    save(site, "shop.rpy", f"cache()\n{CART.format(total='new')}{SHOP}")
    next(directories_in(site.site.root))[0].scripts.refresh()
    assert session["cart"].total() == "new"


# Classes that move


SHOW = (
    "def resource(request):\n"
    "    s = request.getSession()\n"
    "    if 'player' not in s: s['player'] = {cls}()\n"
    "    return f\"{{isinstance(s['player'], {cls})}} {{s['player'].version()}}\"\n"
)
PLAYER = "class Player:\n    def version(self): return {!r}\n"


@pytest.mark.parametrize("cached", ["cache()\n", ""])
@pytest.mark.parametrize(
    ("imports", "cls"),
    [
        ("import game as m", "m.Player"),
        ("import game", "game.Player"),
        ("from game import Player", "Player"),
        ("import pack.game", "pack.game.Player"),
        ("from pack import game", "game.Player"),
    ],
)
async def test_a_module_that_is_renamed(
    site: Editing, cached: str, imports: str, cls: str, caplog: pytest.LogCaptureFixture
) -> None:
    file = "pack/game.py" if "pack" in imports else "game.py"
    save(site, "models.py", PLAYER.format("old"))
    save(site, "a.rpy", f"{cached}import models as m\n{SHOW.format(cls='m.Player')}")
    save(
        site,
        "header.rpy",
        "def resource(request): return request.getSession()['player'].version()\n",
    )
    if "from game" in imports:
        save(site, "a.rpy", f"{cached}from models import Player\n{SHOW.format(cls='Player')}")
    assert await site.get() == "True old"
    (site.root / "models.py").unlink()
    save(site, file, PLAYER.format("new"))
    save(site, "a.rpy", f"{cached}{imports}\n{SHOW.format(cls=cls)}")
    if cached:
        assert await site.get("/header") == "new"
    assert await site.get() == "True new"
    assert await site.get("/header") == "new"
    assert "no longer there" not in caplog.text


@pytest.mark.parametrize(
    ("imports", "cls"),
    [("import models", "models.Player"), ("from models import Player", "Player")],
)
async def test_a_class_that_moves_from_a_script_to_a_module(
    site: Editing, imports: str, cls: str, caplog: pytest.LogCaptureFixture
) -> None:
    save(site, "a.rpy", f"cache()\n{PLAYER.format('old')}{SHOW.format(cls='Player')}")
    save(
        site,
        "header.rpy",
        "def resource(request): return request.getSession()['player'].version()\n",
    )
    assert await site.get() == "True old"
    save(site, "models.py", PLAYER.format("new"))
    save(site, "a.rpy", f"cache()\n{imports}\n{SHOW.format(cls=cls)}")
    assert await site.get("/header") == "new"
    assert await site.get() == "True new"
    assert "no longer there" not in caplog.text


async def test_another_class_of_that_name_is_no_move(site: Editing) -> None:
    save(site, "one.py", PLAYER.format("one"))
    save(site, "two.py", PLAYER.format("two"))
    save(site, "b.rpy", f"cache()\nimport one\n{SHOW.format(cls='one.Player')}")
    save(site, "a.rpy", f"cache()\nimport one\n{SHOW.format(cls='one.Player')}")
    assert [await site.get("/a"), await site.get("/b")] == ["True one", "True one"]
    save(site, "a.rpy", f"cache()\nimport two\n{SHOW.format(cls='two.Player')}")
    assert [await site.get("/a"), await site.get("/b")] == ["False one", "True one"]
