"""Records: what they keep, who may read them, and what cannot be kept or loaded."""

from __future__ import annotations

import hashlib
import importlib
import logging
import os
import pickle
import socket
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from rpyserve import Directory, Interface, Registry, Resource, Session, Site, registerAdapter
from rpyserve.stores import pickles, records
from rpyserve.stores.codec import (
    BadSignature,
    Codec,
    LeftOut,
    NewerFormat,
    Unkeepable,
    Unreadable,
    key_of,
)
from tests.support.executions import COUNTER
from tests.support.in_process import Visitor
from tests.support.restarted_site import KEYS, Restarting, come_back, keep

PAGE = "def resource(request):\n    s = request.getSession()\n    return str(({}))\n"


class INote(Interface):
    pass


class Note:
    def __init__(self, session: Any) -> None:
        self.session = session
        self.text = ""


registerAdapter(Note, Session, INote)


class Job:
    file: Any = None

    def run(self) -> None:
        pass


ended: list[str] = []


def say_goodbye(name: str = "somebody") -> None:
    ended.append(name)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(Directory(tmp_path))
    yield site
    site.close()


@pytest.fixture
def codec(site: Site) -> Codec:
    return Codec(site, KEYS)


@pytest.fixture
async def restarting(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> AsyncIterator[Restarting]:
    caplog.set_level(logging.INFO, logger="rpyserve")
    async with Restarting.at(tmp_path) as restarting:
        yield restarting


def again(codec: Codec, session: Session) -> Any:
    """*session*, through a record of which nothing is left out."""
    uid = str(session.uid)
    return codec.load(uid, key_of(uid), codec.dump(session, key_of(uid)).require_whole())


def a_session(site: Any, **values: Any) -> Session:
    session = Session(site, "an id that nobody could guess")
    for name, value in values.items():
        session[name] = value
    return session


# What is kept


def test_values_and_what_they_share(site: Site, codec: Codec) -> None:
    shared = [1]
    session = a_session(site, one=shared, two={"in": shared}, three=(2, {3}, b"4", None))
    session["me"] = [session, site, site.registry]
    back = again(codec, session)
    assert back["one"] is back["two"]["in"]
    assert back["three"] == (2, {3}, b"4", None)
    assert back["me"][0] is back
    assert back["me"][1] is site
    assert back["me"][2] is site.registry


def test_a_session_that_was_kept_is_not_new_and_has_its_own_attributes(
    site: Site, codec: Codec
) -> None:
    session: Any = a_session(site)
    session.sessionTimeout = 7
    session.cookieSecure = True
    session.basket = ["tea"]
    back = again(codec, session)
    assert (back.new, back.ended, back.uid, back.site) == (False, None, session.uid, site)
    assert (back.sessionTimeout, back.cookieSecure, back.basket) == (7, True, ["tea"])


def test_components_for_interfaces_and_classes_of_ordinary_modules(
    site: Site, codec: Codec
) -> None:
    session = a_session(site)
    INote(session).text = "read"
    session.setComponent(Job, job := Job())
    job.file = "name"
    back = again(codec, session)
    assert (INote(back).text, INote(back).session is back) == ("read", True)
    assert back.getComponent(Job).file == "name"


def test_the_registry(site: Site, codec: Codec) -> None:
    registry: Any = site.registry
    registry["all"] = {"a": [1]}
    registry["me"] = registry
    registry.motto = "go on"
    blob = codec.dump_registry().require_whole()
    other = Site(Directory("."))
    other.registry["gone"] = 1
    Codec(other, KEYS).load_registry(blob)
    assert dict(other.registry) == {"all": {"a": [1]}, "me": other.registry}
    assert other.registry.motto == "go on"  # type: ignore[attr-defined]


def test_a_subclass_of_an_ordinary_module_and_its_slots(site: Site, codec: Codec) -> None:
    session = Slotted(site, "uid")
    session.cart = ["tea"]
    back = again(codec, session)
    assert (type(back), back.cart) == (Slotted, ["tea"])


class Slotted(Session):
    __slots__ = ("cart",)


async def test_what_a_cached_script_and_a_module_define(restarting: Restarting) -> None:
    restarting.save("class Cart:\n    things = ()\n", "shop.py")
    script = (
        COUNTER
        + "\nfrom shop import Cart\nclass Mine(Session):\n    sessionTimeout = 50\n    def hi(self): return 'hi'\n"
    )
    restarting.script(
        script,
        "(setattr(request.site, 'sessionFactory', Mine), visit(s), "
        "s.setdefault('cart', Cart()).things)",
    )
    await restarting.get()
    await restarting.restart()
    await restarting.get()
    other = Visitor(restarting.site)
    assert "(None, 1, ())" in await restarting.get(visitor=other)
    await restarting.restart()
    assert "(None, 2, ())" in await restarting.get(visitor=other)
    (session,) = [each for each in restarting.site.sessions if hasattr(each, "hi")]
    assert (session.hi(), type(session).sessionTimeout) == ("hi", 50)
    assert restarting.left_out == []


async def test_components_of_an_uncached_script_are_not_stored(tmp_path: Path) -> None:
    (tmp_path / "a.rpy").write_text(COUNTER + PAGE.format("visit(s)"))
    site = Site(Directory(tmp_path))
    async with site.running():
        assert (await Visitor(site).get("/a")).text == "1"
        (session,) = site.sessions
        dumped = keep(site, session)
    assert not dumped.left_out
    assert b"Counter" not in dumped.blob


async def test_what_is_only_read_stays_the_same_byte_for_byte(restarting: Restarting) -> None:
    restarting.save(
        "class Cart:\n    count = 0\n    def __init__(self): self.things = ['tea']\n", "shop.py"
    )
    restarting.script(
        COUNTER + "from shop import Cart", "visit(s), s.setdefault('cart', [Cart(), 'green tea'])"
    )
    restarting.script("import shop", "shop.Cart", "b.rpy")
    await restarting.get()
    await restarting.get("/b")
    (session,) = restarting.site.sessions
    before = keep(restarting.site, session).blob
    for _ in range(2):
        await restarting.restart()
        (session,) = restarting.site.sessions
        before, earlier = keep(restarting.site, session).blob, before
        assert before == earlier


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.binary(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=3), inner, max_size=4)
        | st.tuples(inner, inner)
    ),
    max_leaves=20,
)


@settings(max_examples=60)
@given(values=st.dictionaries(st.text(max_size=3), plain, max_size=4))
def test_any_data_comes_back_and_is_written_the_same(values: dict[str, Any]) -> None:
    site = Site(Resource())
    codec = Codec(site, KEYS)
    session = a_session(site)
    for name, value in values.items():
        session[name] = value
    key = key_of("uid")
    blob = codec.dump(session, key).require_whole()
    back = codec.load("uid", key, blob)
    assert dict(back) == values
    once = codec.dump(back, key).blob
    assert codec.dump(codec.load("uid", key, once), key).blob == once


# Who may read it


def test_each_byte_counts(site: Site, codec: Codec) -> None:
    key = key_of("uid")
    blob = codec.dump(a_session(site, cart=["tea"]), key).blob
    for index in range(len(blob)):
        for flipped in (1, 128):
            forged = bytearray(blob)
            forged[index] ^= flipped
            with pytest.raises(BadSignature):
                codec.load("uid", key, bytes(forged))
    for cut in range(len(blob)):
        with pytest.raises(BadSignature):
            codec.load("uid", key, blob[:cut])
    assert codec.load("uid", key, blob)["cart"] == ["tea"]


def test_a_record_is_good_for_its_own_key_only(site: Site, codec: Codec) -> None:
    blob = codec.dump(a_session(site, admin=True), key_of("ada")).blob
    for key in (key_of("eve"), b"registry", b"", key_of("ada") + b"\0"):
        with pytest.raises(BadSignature):
            codec.load("eve", key, blob)
    with pytest.raises(BadSignature):
        codec.load_registry(blob)


def test_keys_are_rotated(site: Site) -> None:
    key, session = key_of("uid"), a_session(site, n=1)
    old, both, new = (
        Codec(site, keys) for keys in ([b"1" * 32], [b"2" * 32, b"1" * 32], [b"2" * 32])
    )
    blob = old.dump(session, key).blob
    assert both.load("uid", key, blob)["n"] == 1
    with pytest.raises(BadSignature):
        new.load("uid", key, blob)
    assert new.load("uid", key, both.dump(session, key).blob)["n"] == 1


class Executed:
    def __reduce__(self) -> Any:
        return os.system, ("exit 1",)


def test_nothing_is_unpickled_that_is_not_signed(
    site: Site, codec: Codec, monkeypatch: pytest.MonkeyPatch
) -> None:
    evil = records.FORMAT + pickle.dumps(Executed())
    monkeypatch.setattr(os, "system", lambda command: pytest.fail("executed"))
    other = Codec(site, [b"another secret of thirty-two byte"])
    key = key_of("uid")
    for signature in (b"", bytes(16), other._sign(other._macs[0], key, evil)):
        with pytest.raises(BadSignature):
            codec.load("uid", key, signature + evil)
        with pytest.raises(BadSignature):
            codec.load_registry(signature + evil)


def test_a_newer_format_is_refused_with_what_to_do(site: Site, codec: Codec) -> None:
    key = key_of("uid")
    payload = b"\x02" + b"whatever that is"
    with pytest.raises(NewerFormat, match=r"format 2.*formats up to 1.*--forget"):
        codec.load("uid", key, codec._sign(codec._macs[0], key, payload) + payload)


def test_no_id_and_no_key_is_in_a_record(site: Site, codec: Codec) -> None:
    session = a_session(site, me=[])
    session["me"].append(session)
    uid = str(session.uid)
    blob = codec.dump(session, key_of(uid)).blob
    assert uid.encode() not in blob
    assert KEYS[0] not in blob
    assert key_of(uid) != hashlib.blake2b(uid.encode()).digest()[:32]
    assert len(key_of(uid)) == 32


# What cannot be kept


def local_class() -> Any:
    class Local:
        pass

    return Local()


def with_lock() -> Job:
    job = Job()
    job.file = {"deep": [threading.Lock()]}
    return job


def too_deep() -> Any:
    chain: Any = None
    for _ in range(5_000):
        chain = [chain]
    return chain


class Endless:
    def __reduce__(self) -> Any:
        return list, (), None, iter(lambda: "for ever", None)


class Raising:
    def __getstate__(self) -> Any:
        raise ValueError("not me\nnever")


class Nesting:
    def __reduce__(self) -> Any:
        return Nesting, (Nesting(),)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: open(os.devnull), '"] (TextIOWrapper) cannot be kept: an open file ends'),  # noqa: SIM115
        (lambda: {"a": [socket.socket()]}, '"]["a"][0] (socket) cannot be kept: a connection'),
        (with_lock, '"].file["deep"][0] (lock) cannot be kept: a lock is of use in this'),
        (lambda: [x for x in ()].__iter__() and (x for x in ()), "(generator) cannot be kept"),
        (lambda: [lambda: 1], '"][0] (function) cannot be kept: '),
        (
            lambda: [local_class()],
            '"][0] (Local) cannot be kept: its class is not at the top level',
        ),
        (lambda: [os], '"][0] (module) cannot be kept: a module is not data; keep its name'),
        (lambda: Session(None, "other"), "(Session) cannot be kept: it is the session of another"),
        (lambda: Site(Resource()), "(Site) cannot be kept: it belongs to the server"),
        (lambda: bytes(50_000_000), "(bytes) cannot be kept: it takes more than 16 MB"),
        (too_deep, "(list) cannot be kept: its objects are nested too deep"),
        (Endless, "(Endless) cannot be kept: it takes more than 16 MB"),
        (Nesting, "(Nesting) cannot be kept: its objects are nested too deep"),
        (Raising, "(Raising) cannot be kept: ValueError: not me never"),
    ],
)
def test_it_is_named_by_its_path_and_left_out_whole(
    site: Site, codec: Codec, make: Callable[[], Any], told: str
) -> None:
    shared = ["shared"]
    value = make()
    session = a_session(site, before=shared, job=value, after=[shared])
    key = key_of("uid")
    for _ in range(2):
        dumped = codec.dump(session, key)
        (left_out,) = dumped.left_out
        assert left_out.name == 'session["job"]'
        assert f'session["job{told}' in str(left_out) or told in str(left_out)
        assert "\n" not in str(left_out)
        with pytest.raises(Unkeepable):
            dumped.require_whole()
    back = codec.load("uid", key, dumped.blob)
    assert dict(back) == {"before": shared, "after": [shared]}
    assert back["before"] is back["after"][0]
    assert session["job"] is value, "it lives on"
    session["job"] = "kept"
    assert codec.dump(session, key).left_out == ()
    if hasattr(value, "close"):
        value.close()
    for each in value.values() if isinstance(value, dict) else ():
        each[0].close()


def test_a_component_and_an_attribute_are_named_likewise(site: Site, codec: Codec) -> None:
    session: Any = a_session(site)
    INote(session).text = threading.Lock()  # type: ignore[assignment]
    session.lock = threading.RLock()
    codec.dump(session, key_of("uid"))
    paths = [each.path for each in codec.dump(session, key_of("uid")).left_out]
    assert sorted(paths) == ["INote(session).text", "session.lock"]
    site.registry["loop"] = [trio.Event(), threading.Lock()]
    (left_out,) = codec.dump_registry().left_out
    assert left_out == LeftOut('registry["loop"]', 'registry["loop"][1]', "lock", left_out.why)


def test_what_fits_is_kept_if_all_together_is_too_much(site: Site, codec: Codec) -> None:
    session = a_session(site, small=b"x" * 10, big=bytes(9_000_000), bigger=bytes(10_000_000))
    dumped = codec.dump(session, key_of("uid"))
    assert [each.name for each in dumped.left_out] == ['session["bigger"]']
    assert {*codec.load("uid", key_of("uid"), dumped.blob)} == {"small", "big"}


def test_a_long_chain_of_objects_is_kept(site: Site, codec: Codec) -> None:
    # From 3.12 on, pickle's own recursion has a limit that nobody can raise.
    length_of_chain = 1_200 if sys.version_info < (3, 12) else 200
    first = job = Job()
    for _ in range(length_of_chain):
        job.file = Job()
        job = job.file
    session, limit = a_session(site, first=first), sys.getrecursionlimit()
    job = again(codec, session)["first"]
    length = 0
    while job.file is not None:
        job, length = job.file, length + 1
    assert length == length_of_chain
    assert sys.getrecursionlimit() == limit


# Callbacks


def test_callbacks_that_have_a_name_are_kept_and_others_counted(site: Site, codec: Codec) -> None:
    session = a_session(site)
    INote(session)
    job = Job()
    session.setComponent(Job, job)
    ended.clear()
    session.notifyOnExpire(say_goodbye)
    session.notifyOnExpire(partial(say_goodbye, "Ada"))
    session.notifyOnExpire(job.run)
    session.notifyOnExpire(lambda: ended.append("closure"))
    session.notifyOnExpire(partial(say_goodbye, threading.Lock()))  # type: ignore[arg-type]
    dumped = codec.dump(session, key_of("uid"))
    assert (len(dumped.callbacks), dumped.left_out) == (2, ())
    back = codec.load("uid", key_of("uid"), dumped.blob)
    assert [each.__self__ for each in back._callbacks[2:]] == [back.getComponent(Job)]
    back.expire()
    assert ended == ["somebody", "Ada"]


async def test_a_callback_runs_the_present_code_and_gives_way_to_its_successor(
    restarting: Restarting, capsys: pytest.CaptureFixture[str]
) -> None:
    page = "def bye(): print('{}')\n\ndef resource(request):\n    s = request.getSession()\n    {}\n    return 'ok'\n"
    register = "s.notifyOnExpire(bye)"
    restarting.save(page.format("old", register))
    await restarting.get()
    restarting.save(page.format("new", "pass"))
    await restarting.get()
    restarting.save(page.format("newer", register))
    await restarting.get()
    (session,) = restarting.site.sessions
    session.expire()
    assert capsys.readouterr().out == "newer\n"


async def test_a_callback_whose_function_is_gone_is_reported(
    restarting: Restarting, caplog: pytest.LogCaptureFixture
) -> None:
    restarting.save(
        "def bye(): pass\n\ndef resource(request):\n    request.getSession().notifyOnExpire(bye)\n    return ''\n"
    )
    await restarting.get()
    restarting.save("def resource(request): return ''\n")
    await restarting.get()
    (session,) = restarting.site.sessions
    session.expire()
    assert "bye of a.rpy is not there at present" in caplog.text


# What cannot be loaded


async def test_a_class_that_is_not_there_keeps_its_state_until_it_is(
    restarting: Restarting, caplog: pytest.LogCaptureFixture
) -> None:
    cart = "class Cart:\n    def __init__(self, n): self.things = [n]\n    def size(self): return len(self.things)\n"
    restarting.save(cart, "shop.py")
    restarting.script(
        "try: from shop import Cart\nexcept ImportError: pass",
        "s.setdefault('carts', None) or s.update(carts=[Cart(1), Cart(2)]) or s['carts'][0].size()",
    )
    assert "Cart" in await restarting.get() or True
    (session,) = restarting.site.sessions
    before = keep(restarting.site, session).blob
    (restarting.root / "shop.py").unlink()
    restarting.script("import builtins", "s['carts'][0].things, type(s['carts'][0]).__name__")
    assert await restarting.get() == "([1], 'Cart')"
    lines = [each for each in caplog.messages if "Cart" in each]
    assert len(lines) == 1, lines
    restarting.script("import builtins", "s['carts'][0].size()")
    await restarting.get(status=500)
    assert "Cart of shop.py is not there at present" in caplog.text
    (session,) = restarting.site.sessions
    assert keep(restarting.site, session).blob == before
    restarting.save(cart, "shop.py")
    restarting.script("import shop", "[each.size() for each in s['carts']]")
    assert await restarting.get() == "[1, 1]"


async def test_it_becomes_the_real_class_without_another_restart(restarting: Restarting) -> None:
    restarting.script(
        "class Cart:\n    def size(self): return 7\n", "s.setdefault('cart', Cart()).size()"
    )
    assert await restarting.get() == "7"
    restarting.script("class Other: pass", "type(s['cart']).__name__")
    assert await restarting.get() == "Cart"
    restarting.script("class Cart:\n    def size(self): return 8\n", "s['cart'].size()")
    restarting._is_edited = False  # an edit of the running site
    assert await restarting.get() == "8"


def test_a_class_of_another_package_that_is_not_installed_any_more(
    site: Site,
    codec: Codec,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    packages = tmp_path_factory.mktemp("packages")
    file = packages / "lib_of_others.py"
    file.write_text("class Thing:\n    def __init__(self): self.n = [1]\n")
    monkeypatch.syspath_prepend(packages)
    key, thing = key_of("uid"), importlib.import_module("lib_of_others").Thing()
    blob = codec.dump(a_session(site, all=[thing, thing.n]), key).require_whole()

    del sys.modules["lib_of_others"]
    file.rename(packages / "gone.py")
    importlib.invalidate_caches()
    absent = codec.load("uid", key, blob)
    stand_in, n = absent["all"]
    assert (type(stand_in).__name__, stand_in.n is n, n) == ("Thing", True, [1])
    with pytest.raises(AttributeError, match="Thing of lib_of_others is not there at present"):
        stand_in.price  # noqa: B018
    blob = codec.dump(absent, key).require_whole()

    (packages / "gone.py").rename(file)
    importlib.invalidate_caches()
    thing, n = codec.load("uid", key, blob)["all"]
    assert type(thing) is importlib.import_module("lib_of_others").Thing
    assert thing.n is n
    del sys.modules["lib_of_others"]


@pytest.mark.parametrize("broken", ["1 / 0\n", "def\n", None])
async def test_a_script_that_fails_at_first_is_executed_again_once_it_is_saved(
    restarting: Restarting, broken: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    thing = "class Thing:\n    def n(self): return {}\n"
    restarting.script("", "s['thing'].n()", "other.rpy")
    restarting.script(thing.format(1), "s.setdefault('thing', Thing()).n()")
    assert await restarting.get() == "1"
    script = restarting.root / "a.rpy"
    if broken is None:
        script.unlink()
    else:
        script.write_text("from rpyserve import cache\ncache()\n" + broken)
    restarting._is_edited = True
    await restarting.get("/other", status=500)
    assert "Thing of a.rpy is not there at present" in caplog.text
    restarting.script(thing.format(2), "''")
    restarting._is_edited = False  # an edit of the running site
    assert await restarting.get("/other") == "2"


SET_STATE = """
class Picky:
    def __init__(self): self.n = 1
    def __getstate__(self): return {{"n": self.n}}
    def __setstate__(self, state): {}
"""


async def test_one_value_that_cannot_be_loaded_takes_no_other_with_it(
    restarting: Restarting, caplog: pytest.LogCaptureFixture
) -> None:
    good, bad = "self.__dict__.update(state)", "raise ValueError('not today')"
    fill = (
        "s.setdefault('shared', shared := [1]) and s.update(picky=Picky(), both=[shared]) or 'made'"
    )
    restarting.script(SET_STATE.format(good), fill)
    assert await restarting.get() == "made"
    restarting.script(SET_STATE.format(bad), "s['shared'] is s['both'][0], 'picky' in s")
    assert await restarting.get() == "(True, True)"
    (line,) = [each for each in caplog.messages if "could not be loaded" in each]
    assert line.startswith('session["picky"] could not be loaded: ValueError: not today.')
    restarting.script(SET_STATE.format(bad) + "# again\n", "s['picky'].n")
    await restarting.get(status=500)
    assert "not today. It is kept as it was stored" in caplog.text
    restarting.script(SET_STATE.format(good), "s['picky'].n, type(s['picky']) is Picky")
    assert await restarting.get() == "(1, True)"
    restarting.script(SET_STATE.format(good) + "# once more\n", "s['picky'].n")
    assert await restarting.get() == "1"


async def test_keys_whose_eq_and_hash_raise(restarting: Restarting, caplog: Any) -> None:
    key = "class K:\n    def __init__(self, n): self.n = n\n    def __hash__(self): return {}\n    def __eq__(self, other): {}\n"
    restarting.script(
        key.format("hash(self.n)", "return self.n == other.n"),
        "s.update(all={K(1), K(2)}, by={K(1): 'one'}) or len(s['all'])",
    )
    assert await restarting.get() == "2"
    restarting.script(key.format("1 / 0", "raise ValueError"), "len(s['all']), [*s['by'].values()]")
    assert await restarting.get() == "(2, ['one'])"
    assert "ZeroDivisionError" in caplog.text
    restarting.script(
        key.format("hash(self.n)", "return self.n == other.n"), "K(1) in s['all'], s['by'][K(1)]"
    )
    assert await restarting.get() == "(True, 'one')"


def test_a_record_of_nothing_that_is_known_is_unreadable(site: Site, codec: Codec) -> None:
    key, payload = key_of("uid"), records.FORMAT + b"no pickle"
    with pytest.raises(Unreadable):
        codec.load("uid", key, codec._sign(codec._macs[0], key, payload) + payload)


# Classes of all kinds, each with an edit: before, what is kept, after, what is asked, the answer

KINDS = {
    "flags": (
        "class F(Flag):\n    A = auto()\n    B = auto()\nclass I(IntEnum):\n    X = 1\n    Y = 2\n",
        "[F.A | F.B, F.A, F(0), I.Y, {I.X: 1}]",
        "class F(Flag):\n    Z = auto()\n    B = auto()\n    A = auto()\nclass I(IntEnum):\n    N = 0\n    X = 5\n    Y = 6\n",
        "(k[0] == F.A|F.B, k[1] is F.A, k[2] == F(0), k[3] is I.Y, k[4][I.X])",
        "(True, True, True, True, 1)",
    ),
    "flag member removed": (
        "class F(Flag):\n    A = auto()\n    B = auto()\n",
        "[F.A | F.B, F.A]",
        "class F(Flag):\n    A = auto()\n",
        "(k[1] is F.A, type(k[0]).__name__, k[0].value)",
        "(True, 'F', 3)",
    ),
    "strenum": (
        "from enum import StrEnum\nclass S(StrEnum):\n    A = 'a'\n",
        "[S.A]",
        "from enum import StrEnum\nclass S(StrEnum):\n    B='b'\n    A = 'aa'\n",
        "(k[0] is S.A, k[0] + 'x')",
        "(True, 'aax')",
    ),
    "namedtuple": (
        "from collections import namedtuple\nP = namedtuple('P', 'x y')\n",
        "[P(1,2), {P(3,4)}]",
        "from collections import namedtuple\nP = namedtuple('P', 'x y z', defaults=[0])\n",
        "(k[0] == P(1,2,0), P(3,4) in k[1], type(k[0]) is P)",
        "(True, True, True)",
    ),
    "reordered": (
        "class M(NamedTuple):\n    a: int\n    b: int\n",
        "[M(1,2)]",
        "class M(NamedTuple):\n    b: int\n    a: int\n",
        "(k[0].a, k[0].b)",
        "(1, 2)",
    ),
    "exception": (
        "class E(Exception):\n    def __init__(self, a):\n        super().__init__(a)\n        self.a = a\n",
        "[E(1)]",
        "class E(Exception):\n    def __init__(self, a):\n        super().__init__(a)\n        self.a = a\n        self.b = a + 1\n",
        "(k[0].a, k[0].b, k[0].args)",
        "(1, 2, (1,))",
    ),
    "decimal": (
        "from decimal import Decimal\nclass Money(Decimal):\n    pass\n",
        "[Money('1.5')]",
        "from decimal import Decimal\nclass Money(Decimal):\n    def twice(self): return self * 2\n",
        "(k[0].twice(), type(k[0]) is Money)",
        "(Decimal('3.0'), True)",
    ),
    "intsub": (
        "class N(int):\n    pass\n",
        "[N(3), {N(4): 1}]",
        "class N(int):\n    def twice(self): return self * 2\n    def __new__(cls, v): return super().__new__(cls, v)\n",
        "(k[0].twice(), type(k[0]) is N, N(4) in k[1])",
        "(6, True, True)",
    ),
    "counter": (
        "from collections import Counter, OrderedDict, defaultdict, deque\nclass C(Counter): pass\nclass O(OrderedDict): pass\nclass D(defaultdict): pass\nclass Q(deque): pass\nclass S(set): pass\nclass St(str): pass\n",
        "[C('aab'), O(a=1), D(list, b=[2]), Q([1,2], 5), S({1}), St('x')]",
        "from collections import Counter, OrderedDict, defaultdict, deque\nclass C(Counter):\n    def hi(self): return 1\nclass O(OrderedDict):\n    hi = C.hi\nclass D(defaultdict):\n    hi = C.hi\nclass Q(deque):\n    hi = C.hi\nclass S(set):\n    hi = C.hi\nclass St(str):\n    hi = C.hi\n",
        "([x.hi() for x in k], k[0]['a'], k[1]['a'], k[2]['z'], k[3].maxlen, k[4], k[5] + 'y')",
        "([1, 1, 1, 1, 1, 1], 2, 1, [], 5, S({1}), 'xy')",
    ),
    "provides": (
        "from zope.interface import alsoProvides\nclass IRed(Interface): pass\nclass T: pass\ndef red(t):\n    alsoProvides(t, IRed)\n    return t\n",
        "[red(T()), T(), IRed]",
        "from zope.interface import alsoProvides\nclass IRed(Interface): pass\nclass T:\n    def __init__(self): self.n = 5\n",
        "(IRed.providedBy(k[0]), IRed.providedBy(k[1]), k[0].n, k[2] is IRed)",
        "(True, False, 5, True)",
    ),
    "generic": (
        "from typing import Generic, TypeVar\nT = TypeVar('T')\nclass Box(Generic[T]):\n    def __init__(self, v): self.v = v\n",
        "[Box[int](3)]",
        "from typing import Generic, TypeVar\nT = TypeVar('T')\nclass Box(Generic[T]):\n    def __init__(self, v):\n        self.v = v\n        self.w = [v]\n",
        "(k[0].v, k[0].w)",
        "(3, [3])",
    ),
    "property value": (
        "class P:\n    def __init__(self, a): self.a = a\n    @property\n    def twice(self): return helper(self.a)\ndef helper(a): return 2 * a\n",
        "[P(4)]",
        "class P:\n    def __init__(self, a, t): self.a = a; self.twice = t\ndef helper(a): return 2 * a\n",
        "k[0].twice",
        "8",
    ),
    "class value": (
        "class P:\n    lives = 3\n    tags = ['x']\n",
        "[P(), P()]",
        "class P:\n    def __init__(self, n):\n        self.lives = n\n        self.tags = []\n",
        "(k[0].lives, k[0].tags, k[0].tags is k[1].tags)",
        "(3, ['x'], False)",
    ),
    "setstate changed": (
        "class P:\n    def __init__(self): self.a = 1\n    def __setstate__(self, s): self.__dict__.update(s)\n",
        "[P()]",
        "class P:\n    def __init__(self):\n        self.a = 1\n        self.b = 2\n    def __setstate__(self, s): self.__dict__.update(s)\n",
        "(k[0].a, k[0].b)",
        "(1, 2)",
    ),
    "reduce changed": (
        "class P:\n    def __init__(self, a): self.a = a\n    def __reduce__(self): return P, (self.a,), {'z': [self]}\n",
        "[P(1)]",
        "class P:\n    def __init__(self, a): self.a = a; self.b = a + 1\n    def __reduce__(self): return P, (self.a,)\n",
        "(k[0].a, k[0].b, k[0].z[0] is k[0], type(k[0]) is P)",
        "(1, 2, True, True)",
    ),
    "newargs": (
        "class P(str):\n    def __new__(cls, a, b):\n        self = super().__new__(cls, a); self.b = b; return self\n    def __getnewargs__(self): return str(self), self.b\n",
        "[P('x', 2)]",
        "class P(str):\n    def __new__(cls, a, b):\n        self = super().__new__(cls, a); self.b = b; self.c = 1; return self\n    def __getnewargs__(self): return str(self), self.b\n    def hi(self): return self + '!'\n",
        "(k[0].hi(), k[0].b, k[0].c)",
        "('x!', 2, 1)",
    ),
    "uuid path": (
        "import uuid, datetime, pathlib, decimal, fractions, re\nclass Id(uuid.UUID): pass\nclass Day(datetime.date): pass\n",
        "[Id(int=5), Day(2020,1,2), datetime.datetime(2020,1,1), pathlib.PurePosixPath('a'), decimal.Decimal(1), fractions.Fraction(1,2), re.compile('a')]",
        "import uuid, datetime, pathlib\nclass Id(uuid.UUID):\n    def hi(self): return self.int\nclass Day(datetime.date):\n    def hi(self): return self.year\n",
        "(k[0].hi(), k[1].hi(), k[2].year, str(k[3]))",
        "(5, 2020, 2020, 'a')",
    ),
}


@pytest.mark.parametrize("kind", KINDS)
async def test_classes_of_all_kinds(restarting: Restarting, kind: str) -> None:
    before, make, after, question, answer = KINDS[kind]
    restarting.script(before, f"s.setdefault('k', {make}) and 'made'")
    assert await restarting.get() == "made"
    restarting.script(after, f"(lambda k: {question})(s['k'])")
    assert await restarting.get() == answer
    assert restarting.left_out == []


# Names


async def test_sites_of_several_directories_in_any_order(tmp_path: Path) -> None:
    for name in ("one", "two", "three"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.rpy").write_text(
            "from rpyserve import cache\ncache()\nfrom shop import Cart\n"
            "class Own:\n    pass\n"
            + PAGE.format(
                "[type(each).__name__ for each in s.setdefault('all', [Own(), Cart()])], isinstance(s['all'][0], Own), isinstance(s['all'][1], Cart)"
            )
        )
        (tmp_path / name / "shop.py").write_text(f"class Cart:\n    where = {name!r}\n")

    def made() -> Site:
        root = Directory(tmp_path / "one")
        root.putChild("two", Directory(tmp_path / "two"))
        root.putChild("x", Resource())
        root.children["x"].putChild("three", Directory(tmp_path / "three"))
        return Site(root)

    site = made()
    visitors = {url: Visitor(site) for url in ("/a", "/two/a", "/x/three/a")}
    kept = []
    async with site.running():
        for url, visitor in visitors.items():
            assert (await visitor.get(url)).text == "(['Own', 'Cart'], True, True)", url
        kept = [(each.uid, keep(site, each)) for each in site.sessions]
        for each in site.sessions:
            site.sessions._live.pop(each.uid)
    site = made()
    async with site.running():
        for url in reversed(visitors):
            visitor = visitors[url]
            visitor.site = site
            await Visitor(site).get(url)
        for uid, dumped in kept:
            come_back(site, uid, dumped)
        for url, visitor in visitors.items():
            assert (await visitor.get(url)).text == "(['Own', 'Cart'], True, True)", url
            assert len(site.sessions) == 6


async def test_another_checkout_of_the_site(tmp_path: Path) -> None:
    kept = None
    for name in ("here", "there"):
        root = tmp_path / name
        (root / "sub dir").mkdir(parents=True)
        (root / "secrets.py").write_text("class Cart: pass\n")
        (root / "calendar.py").write_text("1 / 0\n")
        (root / "sub dir" / "a.b.rpy").write_text(
            "from rpyserve import cache\ncache()\nfrom ..secrets import Cart\nclass Own: pass\n"
            + PAGE.format("[*map(type, s.setdefault('all', [Own(), Cart()]))] == [Own, Cart]")
        )
        site = Site(Directory(root))
        visitor = Visitor(site)
        async with site.running():
            if kept is not None:
                visitor.cookies, uid, dumped = kept
                come_back(site, uid, dumped)
            answer = await visitor.get("/sub%20dir/a.b.rpy")
            assert answer.text == "True"
            (session,) = site.sessions
            kept = visitor.cookies, session.uid, keep(site, session)
            site.sessions._live.pop(session.uid)


async def test_a_script_that_was_not_cached_for_one_request(restarting: Restarting) -> None:
    restarting.script(COUNTER, "visit(s)")
    assert await restarting.get() == "1"
    text = (restarting.root / "a.rpy").read_text()
    (restarting.root / "a.rpy").write_text(text.replace("cache()\n", "\n", 1))
    assert await restarting.get() == "1", "made for this request only"
    (restarting.root / "a.rpy").write_text(text)
    assert await restarting.get() == "1", "components start again"
    await restarting.restart()
    assert await restarting.get() == "2", "the one that was used last"


def test_a_component_of_an_interface_that_cannot_be_imported_waits(
    site: Site,
    codec: Codec,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    packages = tmp_path_factory.mktemp("packages")
    file = packages / "lib_with_interface.py"
    file.write_text("from rpyserve import Interface\nclass IThing(Interface): pass\n")
    monkeypatch.syspath_prepend(packages)
    key, session = key_of("uid"), a_session(site)
    session.setComponent(importlib.import_module("lib_with_interface").IThing, [7])
    blob = codec.dump(session, key).require_whole()

    del sys.modules["lib_with_interface"]
    file.rename(packages / "gone.py")
    importlib.invalidate_caches()
    blob = codec.dump(codec.load("uid", key, blob), key).require_whole()

    (packages / "gone.py").rename(file)
    importlib.invalidate_caches()
    back = codec.load("uid", key, blob)
    assert back.getComponent(importlib.import_module("lib_with_interface").IThing) == [7]
    del sys.modules["lib_with_interface"]


def test_marks_are_never_called() -> None:
    from rpyserve.stores import marks

    for name in pickles._MARKS:
        with pytest.raises(RuntimeError, match="codec only"):
            getattr(marks, name)(*([None] * getattr(marks, name).__code__.co_argcount))
    assert isinstance(Registry(), Registry)
