"""What the report makes of samples, and the load generator that takes the place of wrk."""

from __future__ import annotations

import math
import re
from xml.etree import ElementTree

import pytest
import trio

from benchmarks.performance.load_generator import NUMBER, Request, numbered, send_in_turn
from benchmarks.performance.report import (
    TARGETS,
    Results,
    Sample,
    chart,
    closing,
    document,
    ratio,
    targets_table,
    unmet,
)
from benchmarks.performance.run import CHART, DOCUMENT
from benchmarks.performance.workload import BASELINE, CONTESTANTS, OWN, OWN_WITH_MODULES, ROWS
from rpyserve.serving.listeners import open_listeners, serve_listeners
from tests.support.http_client import hello


def results(own: float = 950.0) -> Results:
    found: Results = {}
    for row in ROWS:
        for contestant in CONTESTANTS:
            if row.key in contestant.rows:
                rates = {OWN: own, BASELINE: 1000.0, OWN_WITH_MODULES: own}
                rate = rates.get(contestant.name, 100.0)
                found[row.key, contestant.name] = [
                    Sample(rate * drift, 1 / rate) for drift in (1.0, 0.5, 2.0)
                ]
    return found


def test_a_machine_that_drifts_changes_no_ratio() -> None:
    value = ratio(results(), ("hello", OWN), ("hello", BASELINE))
    assert value is not None
    assert [
        round(each, 6) for each in (value.median, value.lowest, value.highest, value.cpu_time)
    ] == [0.95] * 4
    assert str(value) == "0.95 (0.95 to 0.95)"
    assert ratio(results(), ("hello", "not there"), ("hello", BASELINE)) is None


def test_what_is_not_reached_is_named() -> None:
    assert unmet(results(1000.0)) == []
    beside_the_loop = [target.title for target in TARGETS if target.below[1] == BASELINE]
    assert unmet(results(500.0)) == beside_the_loop
    behind_all = [target.title for target in TARGETS if target.below[1] != OWN]
    assert unmet(results(90.0)) == behind_all


def test_each_target_is_of_rows_and_servers_that_there_are() -> None:
    known = results()
    for target in TARGETS:
        assert target.above in known and target.below in known, target.title


def test_the_document_has_every_figure_and_says_who_was_not_there() -> None:
    text = document(results(500.0), ["nginx"])
    assert targets_table(results(500.0)) in text
    assert all(f"| {row.title} | {OWN} |" in text for row in ROWS)
    assert "Not there when this was written: nginx." in text
    assert f"Not reached in this run: {TARGETS[0].title}" in text


def test_the_chart_is_well_formed_and_nothing_is_outside() -> None:
    tree = ElementTree.fromstring(chart(results(5000.0)))
    height = int(tree.attrib["height"])
    for element in tree.iter():
        for name, most in (
            ("x", 760),
            ("y", height),
            ("x1", 760),
            ("x2", 760),
            ("y1", height),
            ("y2", height),
        ):
            assert 0 <= float(element.get(name, 0)) <= most
        assert float(element.get("x", 0)) + float(element.get("width", 0)) <= 760


def test_the_document_in_the_tree_is_written_by_this_code() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    titles = re.findall(r"^\| ([^|]*) \| [0-9.]+ \| ", text, re.M)
    assert titles == [target.title for target in TARGETS]
    assert text.endswith(closing())
    ElementTree.fromstring(CHART.read_text(encoding="utf-8"))


@pytest.mark.parametrize("closes", [False, True])
async def test_the_generator_counts_whole_answers(nursery: trio.Nursery, closes: bool) -> None:
    stop = trio.Event()
    listeners = await open_listeners("127.0.0.1", 0)
    answered: list[int] = []

    async def serve(task_status: trio.TaskStatus[object]) -> None:
        await serve_listeners(
            hello,
            listeners,
            stop=stop,
            on_record=lambda record: answered.append(record.sent),
            task_status=task_status,
        )

    await nursery.start(serve)
    port = listeners[0].socket.getsockname()[1]
    request = Request(f"/a?{NUMBER}", {"Connection": "close"} if closes else {}, b"a=b")
    texts = [request.encode(port).decode()]
    done = await trio.to_thread.run_sync(send_in_turn, port, texts, 3, 0.05)
    stop.set()
    assert 0 < done.requests <= len(answered) and done.bad == 0
    assert math.isclose(done.bytes / done.requests, len(b"hello /a") + 150, abs_tol=60)


def test_no_two_numbered_requests_are_the_same() -> None:
    sent = numbered([f"/a?{NUMBER}", f"/b?{NUMBER}"])
    assert [next(sent) for _ in range(4)] == [b"/a?1", b"/b?2", b"/a?3", b"/b?4"]
