"""The store of sessions: a mapping that grows a little at a time, and who has been idle longest."""

from __future__ import annotations

from dataclasses import dataclass
from operator import attrgetter

from hypothesis import given
from hypothesis import strategies as st

from rpyserve.sessions.store import SHARDS, LeastRecentlyUsed, ShardedDict


@given(st.lists(st.tuples(st.sampled_from(["put", "pop", "get"]), st.integers(0, 9))))
def test_against_a_dict(steps: list[tuple[str, int]]) -> None:
    sharded: ShardedDict[int] = ShardedDict()
    model: dict[str, int] = {}
    for number, (what, which) in enumerate(steps):
        name = str(which)
        if what == "put" and name not in model:
            sharded.put(name, number)
            model[name] = number
        elif what == "pop":
            assert sharded.pop(name) == model.pop(name, None)
        else:
            assert sharded.get(name) == model.get(name)
        assert len(sharded) == len(model) and (name in sharded) == (name in model)
    assert sorted(sharded.values()) == sorted(model.values())
    assert sorted(thing for shard in sharded.shards() for thing in shard) == sorted(model.values())
    assert all(sharded[name] == thing for name, thing in model.items())


def test_no_dict_holds_more_than_its_share() -> None:
    sharded: ShardedDict[int] = ShardedDict()
    for number in range(100 * SHARDS):
        sharded.put(str(number), number)
    assert max(len(shard) for shard in sharded.shards()) < 200


def test_things_may_go_between_two_shards() -> None:
    sharded: ShardedDict[str] = ShardedDict()
    for number in range(1000):
        sharded.put(str(number), str(number))
    seen = []
    for shard in sharded.shards():
        seen += shard
        for name in [name for name in map(str, range(1000)) if name in sharded]:
            sharded.pop(name)
    assert 0 < len(seen) < 1000 and not len(sharded)


@dataclass
class Thing:
    uid: str
    used: float


last_access = attrgetter("used")


def test_nobody_is_idle_where_there_is_nobody() -> None:
    assert LeastRecentlyUsed({}, last_access).find() is None


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["make", "use", "use", "use", "end", "find", "find"]),
            st.integers(0, 50),
        )
    )
)
def test_against_a_model(steps: list[tuple[str, int]]) -> None:
    items: dict[str, Thing] = {}
    least_recently_used = LeastRecentlyUsed(items, last_access)
    for now, (what, which) in enumerate(steps):
        uids = list(items)
        if what == "make":
            items[str(now)] = Thing(str(now), now)
        elif what == "find":
            expected = min(items.values(), key=lambda thing: thing.used, default=None)
            assert least_recently_used.find() is expected
            if expected is not None:
                del items[expected.uid]
        elif uids:
            uid = uids[which % len(uids)]
            if what == "use":
                items[uid].used = now
            else:
                del items[uid]


def test_of_those_that_are_idle_alike_the_first_made_goes_first() -> None:
    items = {uid: Thing(uid, 1.0) for uid in "abc"}
    least_recently_used = LeastRecentlyUsed(items, last_access)
    assert [least_recently_used.find().uid for _ in "abc"] == ["a", "b", "c"]


def test_finding_all_of_many_looks_at_each_a_few_times_only() -> None:
    looks = 0

    class Counted(dict[str, Thing]):
        def values(self):  # type: ignore[no-untyped-def]
            nonlocal looks
            looks += len(self)
            return super().values()

    items = Counted((str(n), Thing(str(n), n)) for n in range(10_000))
    least_recently_used = LeastRecentlyUsed(items, last_access)
    for n in range(10_000):
        assert least_recently_used.find().uid == str(n)
        del items[str(n)]
        items[str(n + 10_000)] = Thing(str(n + 10_000), n + 10_000)
    assert looks <= 20 * 10_000
