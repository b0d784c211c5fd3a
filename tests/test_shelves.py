"""A mapping that grows a little at a time."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rpyserve.sessions.store import MANY, Shelves


@given(st.lists(st.tuples(st.sampled_from(["put", "pop", "get"]), st.integers(0, 9))))
def test_against_a_dict(steps: list[tuple[str, int]]) -> None:
    shelves: Shelves[int] = Shelves()
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
    shelves: Shelves[int] = Shelves()
    for number in range(100 * MANY):
        shelves.put(str(number), number)
    assert max(len(part) for part in shelves.parts()) < 200


def test_things_may_go_between_two_parts() -> None:
    shelves: Shelves[str] = Shelves()
    for number in range(1000):
        shelves.put(str(number), str(number))
    seen = []
    for part in shelves.parts():
        seen += part
        for name in [name for name in map(str, range(1000)) if name in shelves]:
            shelves.pop(name)
    assert 0 < len(seen) < 1000 and not len(shelves)
