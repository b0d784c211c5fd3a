"""Adaptation, and where components live."""

from __future__ import annotations

import gc
import subprocess
import sys
import weakref
from functools import partial
from typing import Any

import pytest
from zope.interface import Interface, implementer

from rpyserve.sessions.adapters import registerAdapter
from rpyserve.sessions.components import Components
from rpyserve.sessions.session import Registry, Session
from tests.support import tutorial
from tests.support.executions import COUNTER, execute


class IThing(Interface):
    pass


class IOther(Interface):
    pass


class Thing:
    def __init__(self, holder: Any) -> None:
        self.holder = holder


def new_interface(name: str = "INew") -> Any:
    return type(Interface)(name, (Interface,), {}, __module__=__name__)


# Adapting


@pytest.mark.parametrize("holder", [Session(None, None), Registry()])
def test_a_component_is_made_once_and_is_the_same_ever_after(holder: Components) -> None:
    registerAdapter(Thing, Components, IThing)
    thing = IThing(holder)
    assert isinstance(thing, Thing) and thing.holder is holder
    assert IThing(holder) is thing
    assert holder.getComponent(IThing) is thing


def test_each_session_has_its_own() -> None:
    registerAdapter(Thing, Session, IThing)
    assert IThing(Session(None, None)) is not IThing(Session(None, None))


def test_subclasses_are_adapted_and_the_nearest_class_counts() -> None:
    class Mine(Session):
        pass

    class Other(Thing):
        pass

    interface = new_interface()
    registerAdapter(Thing, Session, interface)
    mine = Mine(None, None)
    assert type(interface(mine)) is Thing
    registerAdapter(Other, Mine, interface)
    assert type(interface(Mine(None, None))) is Other
    assert type(interface(Session(None, None))) is Thing
    assert type(interface(mine)) is Thing, "what was made stays"


def test_an_adapter_for_a_subclass_is_not_for_its_base() -> None:
    class Mine(Session):
        pass

    interface = new_interface()
    registerAdapter(Thing, Mine, interface)
    assert interface(Session(None, None), None) is None


def test_the_prompt_of_the_series() -> None:
    program = f"""
from zope.interface import Interface, Attribute, implementer
from rpyserve import registerAdapter, Session
{tutorial.COUNTER}
ses = Session(None, None)
data = ICounter(ses)
data is ICounter(ses)
ICounter(ses) is ICounter(ses)
data is ICounter(Session(None, None))
class ICounter(Interface): pass

registerAdapter(Counter, Session, ICounter)
data is ICounter(ses)
"""
    prompt = subprocess.run(
        [sys.executable, "-i", "-q"], input=program, capture_output=True, text=True, timeout=60
    )
    assert "Error" not in prompt.stderr
    assert prompt.stdout.split() == ["True", "True", "False", "False"]


def test_registering_again_replaces() -> None:
    class Other(Thing):
        pass

    interface = new_interface()
    for factory in (Thing, Thing, Other):
        registerAdapter(factory, Session, interface)
    assert type(interface(Session(None, None))) is Other


def test_several_interfaces_in_one_call_are_several_components() -> None:
    a, b = new_interface("IA"), new_interface("IB")
    registerAdapter(Thing, Session, a, b)
    session = Session(None, None)
    assert isinstance(a(session), Thing) and isinstance(b(session), Thing)
    assert a(session) is not b(session)


def test_interfaces_of_one_name_are_two_keys() -> None:
    a, b = new_interface(), new_interface()
    assert a == b, "zope compares by name"
    registerAdapter(Thing, Session, a)
    registerAdapter(Thing, Session, b)
    session = Session(None, None)
    assert a(session) is not b(session)


def test_no_adapter() -> None:
    session, interface = Session(None, None), new_interface()
    with pytest.raises(TypeError, match="Could not adapt"):
        interface(session)
    assert interface(session, 7) == 7
    assert session.getComponent(interface) is None
    assert session.getComponent(interface, 7) == 7


def test_a_factory_that_returns_none_is_no_adapter_and_is_asked_once() -> None:
    asked = []
    interface = new_interface()
    registerAdapter(asked.append, Session, interface)
    session = Session(None, None)
    with pytest.raises(TypeError, match="Could not adapt"):
        interface(session)
    assert asked == [session]
    assert interface(session, 7) == 7
    registerAdapter(Thing, Session, interface)
    assert isinstance(interface(session), Thing)


@pytest.mark.parametrize("error", [ValueError("no"), TypeError("no"), KeyError("no")])
def test_a_factory_that_raises_leaves_nothing(error: Exception) -> None:
    def fail(session: Session) -> None:
        raise error

    interface = new_interface()
    registerAdapter(fail, Session, interface)
    session = Session(None, None)
    for _ in range(2):
        with pytest.raises(type(error)) as raised:
            interface(session)
        assert raised.value is error
    registerAdapter(Thing, Session, interface)
    assert isinstance(interface(session), Thing)


def test_a_factory_may_adapt_again() -> None:
    a, b = new_interface("IA"), new_interface("IB")
    registerAdapter(Thing, Session, a)
    registerAdapter(lambda session: [a(session)], Session, b)
    session = Session(None, None)
    assert b(session) == [a(session)]
    assert b(session) is b(session)


def test_what_a_factory_stored_itself_stays() -> None:
    interface = new_interface()
    handed_out = []

    def factory(session: Session) -> Thing:
        session.setComponent(interface, Thing(session))
        handed_out.append(interface(session))
        return Thing(session)

    registerAdapter(factory, Session, interface)
    session = Session(None, None)
    assert interface(session) is handed_out[0]
    assert interface(session) is handed_out[0]


def test_a_session_that_provides_the_interface_is_its_own_component() -> None:
    interface = new_interface()

    @implementer(interface)
    class Mine(Session):
        pass

    registerAdapter(Thing, Session, interface)
    mine = Mine(None, None)
    assert interface(mine) is mine


def test_other_things_can_be_adapted_and_nothing_is_kept() -> None:
    class Base:
        pass

    class Derived(Base):
        pass

    registerAdapter(Thing, Base, IOther)
    derived = Derived()
    assert IOther(derived).holder is derived
    assert IOther(derived) is not IOther(derived)
    assert IOther(object(), None) is None
    registerAdapter(partial(Thing), object, IOther)
    assert IOther(3).holder == 3


def test_an_interface_can_be_adapted_from() -> None:
    source, wanted = new_interface("ISource"), new_interface("IWanted")

    @implementer(source)
    class Provider:
        pass

    @implementer(source)
    class Mine(Session):
        pass

    registerAdapter(Thing, source, wanted)
    assert isinstance(wanted(Provider()), Thing)
    mine = Mine(None, None)
    assert wanted(mine) is wanted(mine)
    assert wanted(Session(None, None), None) is None


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ((Thing, Session), "the interface is missing"),
        ((Thing, IThing, Session), "is not an interface"),
        ((Thing, Session(None, None), IThing), "is not a class"),
        (("Thing", Session, IThing), "cannot be called"),
        ((Thing, Session, IThing, None), "is not an interface"),
    ],
)
def test_wrong_arguments_are_told_with_the_right_ones(
    arguments: tuple[Any, ...], complaint: str
) -> None:
    with pytest.raises(
        TypeError, match=rf"registerAdapter\(Counter, Session, ICounter\) takes .*{complaint}"
    ):
        registerAdapter(*arguments)


# Components by hand


def test_components_can_be_set_and_unset() -> None:
    session, interface = Session(None, None), new_interface()
    session.setComponent(interface, "one")
    assert interface(session) == "one" == session.getComponent(interface)
    session.setComponent(interface, "two")
    assert interface(session) == "two"
    session.unsetComponent(interface)
    session.unsetComponent(interface)
    assert interface(session, None) is None
    registerAdapter(Thing, Session, interface)
    first = interface(session)
    session.unsetComponent(interface)
    assert interface(session) is not first


def test_a_plain_class_is_a_key_too() -> None:
    registry = Registry()
    assert registry.getComponent(Thing) is None
    assert registry.getComponent(Thing, 7) == 7
    thing = Thing(registry)
    registry.setComponent(Thing, thing)
    assert registry.getComponent(Thing) is thing
    registry.unsetComponent(Thing)
    assert registry.getComponent(Thing) is None


def test_a_text_is_no_key_of_a_component() -> None:
    with pytest.raises(TypeError, match=r"use registry\[name\] = value"):
        Registry().setComponent("notes", 1)


# Across executions


def test_a_cached_counter_goes_on_in_the_next_execution() -> None:
    session = Session(None, None)
    one, two = execute("cache()\n" + COUNTER), execute("cache()\n" + COUNTER)
    assert one["ICounter"] == two["ICounter"] and one["ICounter"] is not two["ICounter"]
    assert [one["visit"](session), one["visit"](session), two["visit"](session)] == [1, 2, 3]
    assert one["ICounter"](session) is two["ICounter"](session)
    assert execute("cache()\n" + COUNTER)["visit"](Session(None, None)) == 1


def test_an_uncached_counter_never_gets_past_one() -> None:
    session = Session(None, None)
    assert [execute(COUNTER)["visit"](session) for _ in range(3)] == [1, 1, 1]


def test_within_one_uncached_execution_it_is_the_same_object() -> None:
    session, script = Session(None, None), execute(COUNTER)
    assert script["ICounter"](session) is script["ICounter"](session)
    assert script["ICounter"](session) is not script["ICounter"](Session(None, None))


def test_two_interfaces_of_one_name_in_one_cached_script_are_two_keys() -> None:
    source = "cache()\n" + COUNTER + "FIRST = ICounter\n" + COUNTER
    session = Session(None, None)
    one, two = execute(source), execute(source)
    assert one["FIRST"](session) is not one["ICounter"](session)
    assert two["FIRST"](session) is one["FIRST"](session)
    assert two["ICounter"](session) is one["ICounter"](session)


def test_two_scripts_may_define_the_same_name() -> None:
    session = Session(None, None)
    a, b = (execute("cache()\n" + COUNTER, path=path) for path in ("a.rpy", "b.rpy"))
    assert [a["visit"](session), a["visit"](session), b["visit"](session)] == [1, 2, 1]


def test_the_old_execution_still_finds_what_the_new_one_uses() -> None:
    # An expiry callback that the old execution registered, for one.
    session = Session(None, None)
    old = execute("cache()\n" + COUNTER)
    interface = old["ICounter"]
    old["visit"](session)
    old.clear()
    del old
    gc.collect()
    new = execute("cache()\n" + COUNTER)
    assert new["visit"](session) == 2
    assert interface(session) is new["ICounter"](session)


def test_a_named_component_does_not_keep_an_old_script_alive() -> None:
    session = Session(None, None)
    for _ in range(2):
        script = execute("cache()\n" + COUNTER)
        if "ICounter" not in session:
            session.setComponent(script["ICounter"], "plain")
            session["ICounter"] = "set"
        gone = weakref.ref(script["execution"])
        assert script["ICounter"](session) == "plain"
        del script
        gc.collect()
        assert gone() is None


USES_REGISTRY = (
    COUNTER
    + "registerAdapter(Counter, Registry, ICounter)\nnotes = ICounter(registry)\nnotes.value += 1\n"
)


def test_a_component_made_before_cache_is_called_is_kept_from_then_on() -> None:
    registry = Registry()
    names = {"registry": registry, "Registry": Registry}
    one = execute(USES_REGISTRY + "cache()", **names)
    assert one["notes"] is one["ICounter"](registry)
    two = execute(USES_REGISTRY + "cache()", **names)
    assert two["notes"] is one["notes"] and two["notes"].value == 2


def test_without_cache_it_goes_with_the_execution() -> None:
    registry = Registry()
    one = execute(USES_REGISTRY, registry=registry, Registry=Registry)
    assert one["notes"] is one["ICounter"](registry)
    assert execute(USES_REGISTRY, registry=registry, Registry=Registry)["notes"].value == 1


def test_a_lasting_interface_with_a_passing_factory_keeps_nothing() -> None:
    interface = new_interface()
    source = COUNTER.replace("class ICounter(Interface):", "class IUnused(Interface):")
    session = Session(None, None)
    gone = []
    for _ in range(3):
        script = execute(source, ICounter=interface)
        assert script["visit"](session) == 1
        assert script["visit"](session) == 2, "within one execution it is the same object"
        gone.append(weakref.ref(script["execution"]))
        del script
    registerAdapter(Thing, Session, interface)
    gc.collect()
    assert [ref() for ref in gone] == [None] * 3
    assert isinstance(interface(session), Thing)


def test_a_lasting_interface_with_a_factory_from_before_cache_is_kept() -> None:
    interface = new_interface()
    source = (
        COUNTER.replace("class ICounter(Interface):", "class IUnused(Interface):")
        + "n = visit(session)\ncache()"
    )
    session = Session(None, None)
    assert [execute(source, ICounter=interface, session=session)["n"] for _ in range(2)] == [1, 2]


def test_a_passing_object_is_refused_under_a_lasting_key() -> None:
    registry, script = Registry(), execute(COUNTER)
    for key in (IThing, Thing):
        with pytest.raises(
            TypeError, match=r"registry\.setComponent\(I?Thing, \.\.\.\) cannot keep"
        ):
            registry.setComponent(key, script["Counter"](None))
    registry.setComponent(script["Counter"], script["Counter"](None))
    assert isinstance(registry.getComponent(script["Counter"]), script["Counter"])


def test_a_class_of_a_cached_script_as_key_is_found_by_the_next_execution() -> None:
    registry = Registry()
    one, two = execute("cache()\nclass Store: pass"), execute("cache()\nclass Store: pass")
    store = one["Store"]()
    registry.setComponent(one["Store"], store)
    assert registry.getComponent(two["Store"]) is store
    assert registry.getComponent(execute("class Store: pass", path="b.rpy")["Store"]) is None


def test_an_unset_component_of_a_script_is_forgotten() -> None:
    for cache in ("cache()\n", ""):
        session, script = Session(None, None), execute(cache + COUNTER)
        script["visit"](session)
        session.unsetComponent(script["ICounter"])
        assert script["visit"](session) == 1


def test_what_an_uncached_script_set_or_made_can_be_unset() -> None:
    session, script, interface = Session(None, None), execute(COUNTER), new_interface()
    script["registerAdapter"](script["Counter"], Session, interface)
    first = interface(session)
    assert interface(session) is first
    session.unsetComponent(interface)
    assert interface(session) is not first
    bare = execute("from zope.interface import Interface\nclass IBare(Interface): pass")["IBare"]
    session.setComponent(bare, 1)
    assert bare(session) == 1
    session.unsetComponent(bare)
    assert bare(session, None) is None


def test_a_passing_object_is_refused_under_the_interface_of_a_cached_script() -> None:
    lasting, passing = execute("cache()\n" + COUNTER), execute(COUNTER, path="other.rpy")
    with pytest.raises(TypeError, match="cannot keep"):
        Session(None, None).setComponent(lasting["ICounter"], passing["Counter"](None))
    Session(None, None).setComponent(lasting["ICounter"], lasting["Counter"](None))


UNCACHED = compile(
    COUNTER
    + """
class Mine(Session): pass
registerAdapter(Counter, Mine, ICounter)
assert visit(session) == 1 and visit(session) == 2
assert visit(Mine(None, None)) == 1
assert not isinstance(object(), Mine) and isinstance(session, Session)
""",
    "counter.rpy",
    "exec",
    dont_inherit=True,
)


def test_twenty_thousand_uncached_executions_leave_memory_where_it_was() -> None:
    session = Session(None, None)

    def count_after(executions: int) -> int:
        for _ in range(executions):
            execute(UNCACHED, session=session)
        gc.collect()
        return len(gc.get_objects())

    count_after(100)
    before = count_after(100)
    after = count_after(20_000)
    assert after - before < 50
    assert not session._components
