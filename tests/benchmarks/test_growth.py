"""The curves of growth: their load, their pictures, and what docs/scale.md says of them."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks.performance.load_generator import NUMBER
from benchmarks.scale import followers, growth, report
from benchmarks.scale.growth_chart import HEIGHT, WIDTH, Line, chart


def points(cost: float) -> growth.Points:
    return {size: [growth.Load(1e6 / cost, cost)] * 3 for size in growth.CONNECTIONS}


@pytest.mark.parametrize("paths", [1, 7, 1000])
def test_all_paths_are_asked_for_by_all_visitors(paths: int) -> None:
    requests = growth.requests_for([f"/page{number}" for number in range(paths)])
    assert {each.path for each in requests} == {
        f"/page{number}?number={NUMBER}" for number in range(paths)
    }
    assert len({each.headers["Cookie"] for each in requests}) == growth.VISITORS


def test_a_section_has_every_size_and_server() -> None:
    curve = growth.CURVES[0]
    text = growth.section(curve, {"rpyserve": points(80.0), "baseline loop": points(100.0)})
    assert "Medians of 3 rounds" in text and growth.picture_of(curve.name) in text
    for size in growth.CONNECTIONS:
        assert f"| {size:,} | rpyserve | 12,500 | 80 | 0 |" in text
        assert f"| {size:,} | baseline loop | 10,000 | 100 | 0 |" in text


def test_what_pages_wait_for_is_judged() -> None:
    good = {1: [followers.Figures(10, 5, 4)], 1000: [followers.Figures(900, 49, 4)]}
    assert growth.is_good(good)
    assert "**" not in growth.pages_section(good)
    for bad in (followers.Figures(1001, 5, 4), followers.Figures(10, 51, 4)):
        found = {**good, 1000: [bad]}
        assert not growth.is_good(found)
        assert "**" in growth.pages_section(found)


def test_a_picture_is_well_formed_and_nothing_is_outside() -> None:
    lines = [Line("a & b", [(0, 70.0), (10, 90.0), (1000, 2117.0)]), Line("c", [(10, 0.5)])]
    tree = ElementTree.fromstring(chart(lines, "modules", "µs"))
    for element in tree.iter():
        for names, most in ((("x", "x1", "x2", "cx"), WIDTH), (("y", "y1", "y2", "cy"), HEIGHT)):
            for name in names:
                assert 0 <= float(element.attrib.get(name, 0)) <= most
    texts = [element.text for element in tree.iter("{http://www.w3.org/2000/svg}text")]
    assert {"a & b", "c", "0", "10", "1,000", "4,000", "modules", "µs"} <= set(texts)


def test_a_curve_is_written_beside_the_others(tmp_path: Path) -> None:
    document = tmp_path / "scale.md"
    report.write_section(report.SESSIONS, "sessions", document)
    line = Line("rpyserve", [(1, 2.0)])
    growth.write(report.BY_PAGES, "text", "pages", [line], "pages", "ms", document)
    assert report.read_sections(document) == {report.SESSIONS: "sessions", report.BY_PAGES: "text"}
    assert (tmp_path / growth.picture_of("pages")).read_text(encoding="utf-8").startswith("<svg")
