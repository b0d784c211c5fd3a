"""The store of sessions: a mapping that grows a little at a time, and who has been idle longest."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from rpyserve.sessions.store import MANY, LeastRecentlyUsed, ShardedDict


@given(st.lists(st.tuples(st.sampled_from(["put", "pop", "get"]), st.integers(0, 9))))
def test_against_a_dict(steps: list[tuple[str, int]]) -> None:
    shelves: ShardedDict[int] = ShardedDict()
    model: dict[str, int] = {}
    for number, (what, which) in enumerate(steps):
        name = str(which)
        if what == "put" and name not in model:
            shelves.put(name, number)
            model[name] = number
        elif what == "pop":
            assert shelves.pop(name) == model.pop(name, None)
        else:
            assert shelves.get(name) == model.get(name)
        assert len(shelves) == len(model) and (name in shelves) == (name in model)
    assert sorted(shelves.values()) == sorted(model.values())
    assert sorted(thing for part in shelves.parts() for thing in part) == sorted(model.values())
    assert all(shelves[name] == thing for name, thing in model.items())


def test_no_dict_holds_more_than_its_share() -> None:
    shelves: ShardedDict[int] = ShardedDict()
    for number in range(100 * MANY):
        shelves.put(str(number), number)
    assert max(len(part) for part in shelves.parts()) < 200


def test_things_may_go_between_two_parts() -> None:
    shelves: ShardedDict[str] = ShardedDict()
    for number in range(1000):
        shelves.put(str(number), str(number))
    seen = []
    for part in shelves.parts():
        seen += part
        for name in [name for name in map(str, range(1000)) if name in shelves]:
            shelves.pop(name)
    assert 0 < len(seen) < 1000 and not len(shelves)


@dataclass
class Thing:
    uid: str
    _used: float


def test_nobody_is_idle_where_there_is_nobody() -> None:
    assert LeastRecentlyUsed({}).find() is None


@given(st.lists(st.tuples(st.sampled_from(["make", "use", "use", "use", "end", "find", "find"]), st.integers(0, 50))))
def test_against_a_model(steps: list[tuple[str, int]]) -> None:
    living: dict[str, Thing] = {}
    idlest = LeastRecentlyUsed(living)
    for now, (what, which) in enumerate(steps):
        uids = list(living)
        if what == "make":
            living[str(now)] = Thing(str(now), now)
        elif what == "find":
            expected = min(living.values(), key=lambda thing: thing._used, default=None)
            assert idlest.find() is expected
            if expected is not None:
                del living[expected.uid]
        elif uids:
            uid = uids[which % len(uids)]
            if what == "use":
                living[uid]._used = now
            else:
                del living[uid]


def test_of_those_that_are_idle_alike_the_first_made_goes_first() -> None:
    living = {uid: Thing(uid, 1.0) for uid in "abc"}
    idlest = LeastRecentlyUsed(living)
    assert [idlest.find().uid for _ in "abc"] == ["a", "b", "c"]


def test_finding_all_of_many_looks_at_each_a_few_times_only() -> None:
    looks = 0

    class Counted(dict[str, Thing]):
        def values(self):  # type: ignore[no-untyped-def]
            nonlocal looks
            looks += len(self)
            return super().values()

    living = Counted((str(n), Thing(str(n), n)) for n in range(10_000))
    idlest = LeastRecentlyUsed(living)
    for n in range(10_000):
        assert idlest.find().uid == str(n)
        del living[str(n)]
        living[str(n + 10_000)] = Thing(str(n + 10_000), n + 10_000)
    assert looks <= 20 * 10_000
