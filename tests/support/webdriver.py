"""A tab of a browser that Playwright cannot drive, by the names that Playwright gives to things.

So one test runs in every engine. What is here is what the tests use: a `Tab` and its `Locator`s,
and `expect_locator` and `expect_title`, which wait. Each engine says in a subclass how it navigates,
runs a function, and sends keys and clicks. A text is compared as Playwright does it: white space
counts as one space, and open shadow roots are looked into.
"""

from __future__ import annotations

import json
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

SECONDS = 15
"""How long a page has to show an edit before the test gives up: far more than it needs on a busy
machine.
"""
PAUSE = 0.02

_FUNCTION = re.compile(r"\s*(async\s*)?(function\b|\([\w\s,]*\)\s*=>|\w+\s*=>)")
_KEYS = {"Enter": "\ue007", "Tab": "\ue004", "Backspace": "\ue003", "Escape": "\ue00c"}

_PAGE_SIDE = """
const ask = (root, css) => {
  const kind = [Document, DocumentFragment, Element].find((each) => root instanceof each);
  // A page's own names hide nothing from the prototype; a document in a frame has another one.
  return [...(kind?.prototype ?? root).querySelectorAll.call(root, css)];
};
const deep = (root, css) => [
  ...ask(root, css),
  ...ask(root, "*").flatMap((host) => (host.shadowRoot ? deep(host.shadowRoot, css) : [])),
];
const textOf = (node) => {
  if (/^(SCRIPT|STYLE|NOSCRIPT)$/.test(node.nodeName)) return "";
  if (node.nodeType === 3) return node.data;
  const inside = [...node.childNodes, ...(node.shadowRoot?.childNodes ?? [])];
  return inside.map(textOf).join("");
};
const tidy = (text) => text.replace(/\\s+/g, " ").trim();
const ROLES = {
  status: "[role=status]", button: "button, input[type=submit]", link: "a[href]",
  textbox: "textarea, input:not([type]), input[type=text], input[type=email]",
};
const nameOf = (element) => element.getAttribute("aria-label") ?? tidy(textOf(element));
const steps = {
  css: (roots, css) => roots.flatMap((root) => deep(root, css)),
  role: (roots, [role, name]) => steps.css(roots, ROLES[role])
    .filter((element) => name === null || nameOf(element).includes(name)),
  text: (roots, text) => steps.css(roots, "*").filter(
    (element) => textOf(element).includes(text) && ![...element.children].some(
      (child) => textOf(child).includes(text))),
  nth: (roots, number) => roots.slice(number, number + 1),
  frame: (roots, css) => steps.css(roots, css).map((frame) => frame.contentDocument),
};
const find = (way) => way.reduce((roots, [kind, what]) => steps[kind](roots, what), [document]);
const one = (way) => {
  const [element, ...others] = find(way);
  if (others.length) throw new Error(`${others.length + 1} elements for ${JSON.stringify(way)}`);
  return element;
};
"""


class DriverError(Exception):
    """The browser could not do what it was told: a page that is on its way may do so later."""


class PageError(DriverError):
    """JavaScript of the test raised, in the page."""


class NotAnExpressionError(PageError):
    """JavaScript of the test cannot be parsed."""


class Tab(ABC):
    """A tab, or a window of its own. Its names are those of Playwright's ``Page``."""

    engine: str
    errors: list[str]
    base_url = ""

    def goto(self, url: str, wait_until: str = "load") -> None:
        """Load *url*, and wait until all of it is there; or, with "commit", only its beginning."""
        self.navigate(urljoin(self.base_url, url), wait_until)

    # What an engine has

    @abstractmethod
    def navigate(self, url: str, wait_until: str) -> None: ...

    @abstractmethod
    def reload(self) -> None: ...

    @abstractmethod
    def close(self) -> None: ...

    @abstractmethod
    def call(self, function: str, argument: str) -> str:
        """Call an async *function*, JavaScript, in the page: both texts are JSON."""

    @abstractmethod
    def perform(self, actions: list[dict[str, Any]]) -> None:
        """Perform *actions* of the visitor, in the form of WebDriver's "perform actions"."""

    @abstractmethod
    def png(self) -> bytes: ...

    # What follows from it

    def evaluate(self, text: str, arg: Any = None) -> Any:
        """Run *text*: an expression, statements, or a function that is called with *arg*."""
        argument = json.dumps(arg)
        if _FUNCTION.match(text):
            text = f"({text})(arg)"
        try:
            return self._value_of(f"return {{ it: await ({text}\n) }};", argument)
        except NotAnExpressionError:
            return self._value_of(f"{text}\n; return {{}};", argument)

    def ask(self, way: list[tuple[str, Any]], expression: str, arg: Any = None) -> Any:
        """The value of *expression*, in which ``way``, ``find``, ``one`` and ``arg`` are known."""
        body = f"{_PAGE_SIDE} const [way, arg] = both; return {{ it: await ({expression}) }};"
        return self._value_of(body, json.dumps([way, arg]), "both")

    def _value_of(self, body: str, argument: str, name: str = "arg") -> Any:
        function = (
            f"async (json) => {{ const {name} = JSON.parse(json);"
            f" return JSON.stringify(await (async () => {{ {body} }})()); }}"
        )
        return json.loads(self.call(function, argument)).get("it")

    def wait_for_function(self, text: str, arg: Any = None) -> None:
        wait_until(lambda: self.evaluate(text, arg), lambda: f"never true: {text}")

    def wait_for_timeout(self, milliseconds: float) -> None:
        time.sleep(milliseconds / 1000)

    def screenshot(self, path: Path | None = None) -> bytes:
        png = self.png()
        if path is not None:
            path.write_bytes(png)
        return png

    def locator(self, css: str) -> Locator:
        return Locator(self, []).locator(css)

    def get_by_role(self, role: str, name: str | None = None) -> Locator:
        return Locator(self, []).get_by_role(role, name)

    def get_by_text(self, text: str) -> Locator:
        return Locator(self, []).get_by_text(text)

    def frame_locator(self, css: str) -> Locator:
        return Locator(self, []).frame_locator(css)

    def bring_to_front(self) -> None:
        """Each is a window of its own: they do not hide each other."""
        self.wait_for_function("!document.hidden")

    @property
    def url(self) -> str:
        return str(self.evaluate("location.href"))

    def title(self) -> str:
        return str(self.evaluate("document.title"))

    def fill(self, css: str, text: str) -> None:
        self.locator(css).fill(text)

    def click(self, css: str) -> None:
        self.locator(css).click()

    def check(self, css: str) -> None:
        if not self.is_checked(css):
            self.click(css)

    def select_option(self, css: str, label: str) -> None:
        self.locator(css).select_option(label)

    def input_value(self, css: str) -> str:
        return self.locator(css).input_value()

    def text_content(self, css: str) -> str:
        return self.locator(css).text_content()

    def inner_text(self, css: str) -> str:
        return self.locator(css).inner_text()

    def is_checked(self, css: str) -> bool:
        return self.locator(css).is_checked()


@dataclass(frozen=True)
class Locator:
    """How an element is found, each time that it is asked for."""

    tab: Tab
    way: list[tuple[str, Any]]

    def locator(self, css: str) -> Locator:
        """*css* is a selector, and perhaps, as Playwright has it, ``>> nth=1``."""
        css, _, number = css.partition(" >> nth=")
        place: list[tuple[str, Any]] = [("nth", int(number))] if number else []
        return Locator(self.tab, [*self.way, ("css", css), *place])

    def frame_locator(self, css: str) -> Locator:
        return Locator(self.tab, [*self.way, ("frame", css)])

    def get_by_role(self, role: str, name: str | None = None) -> Locator:
        return Locator(self.tab, [*self.way, ("role", (role, name))])

    def get_by_text(self, text: str) -> Locator:
        return Locator(self.tab, [*self.way, ("text", text)])

    def count(self) -> int:
        return int(self.tab.ask(self.way, "find(way).length"))

    def _of_one(self, expression: str, arg: Any = None) -> Any:
        """The value of *expression* about ``it``, once there is such an element."""
        found: list[Any] = []

        def look() -> bool:
            found[:] = self.tab.ask(
                self.way, f"((it) => it ? [({expression})] : [])(one(way))", arg
            )
            return bool(found)

        wait_until(look, lambda: f"no element for {self.way}")
        return found[0]

    def text_content(self) -> str:
        return str(self._of_one("it.textContent"))

    def inner_text(self) -> str:
        return str(self._of_one("it.innerText"))

    def input_value(self) -> str:
        return str(self._of_one("it.value"))

    def is_checked(self) -> bool:
        return bool(self._of_one("it.checked"))

    def fill(self, text: str) -> None:
        """Put *text* in the place of what is in the field, as an edit of the visitor."""
        self._of_one(
            "it.focus(), it.select ? it.select() : getSelection().selectAllChildren(it),"
            " it.ownerDocument.execCommand(arg ? 'insertText' : 'delete', false, arg)",
            text,
        )
        # A browser may scroll to the caret only when it draws the page.
        self.tab.evaluate(
            "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
        )

    def set_input_files(self, file: dict[str, Any]) -> None:
        """Choose a file that the page itself makes: a dictionary as Playwright takes it."""
        self._of_one(
            "((chosen) => (chosen.items.add(new File([arg[2]], arg[0], { type: arg[1] })),"
            " it.files = chosen.files))(new DataTransfer())",
            [file["name"], file["mimeType"], file["buffer"].decode()],
        )

    def select_option(self, label: str) -> None:
        self._of_one(
            "it.value = [...it.options].find((each) => each.label === arg).value,"
            "['input', 'change'].map((name) => it.dispatchEvent(new Event(name, {bubbles: true})))",
            label,
        )

    def press(self, key: str) -> None:
        self._of_one("it.focus()")
        value = _KEYS.get(key, key)
        strokes = [{"type": kind, "value": value} for kind in ("keyDown", "keyUp")]
        self.tab.perform([{"type": "key", "id": "keyboard", "actions": strokes}])

    def click(self) -> None:
        x, y = self._of_one(
            "(it.scrollIntoViewIfNeeded ? it.scrollIntoViewIfNeeded()"
            " : it.scrollIntoView({ block: 'nearest', behavior: 'instant' })),"
            "((box) => [box.x + box.width / 2, box.y + box.height / 2])"
            "(it.getBoundingClientRect())"
        )
        moves = [
            {"type": "pointerMove", "x": int(x), "y": int(y)},
            {"type": "pointerDown", "button": 0},
            {"type": "pointerUp", "button": 0},
        ]
        mouse = {"type": "pointer", "id": "mouse", "actions": moves}
        self.tab.perform([mouse | {"parameters": {"pointerType": "mouse"}}])


class LocatorAssertions:
    """What Playwright's ``expect(locator)`` can say, as far as the tests use it."""

    def __init__(self, locator: Locator) -> None:
        self._locator = locator

    def to_have_text(self, wanted: str | re.Pattern[str]) -> None:
        self._wait_for_text(wanted, lambda text: _is_text(wanted, text))

    def not_to_have_text(self, unwanted: str | re.Pattern[str]) -> None:
        self._wait_for_text(unwanted, lambda text: not _is_text(unwanted, text))

    def to_contain_text(self, wanted: str) -> None:
        self._wait_for_text(wanted, lambda text: _tidy(wanted) in text)

    def to_be_focused(self) -> None:
        locator = self._locator
        is_focused = "find(way)[0]?.ownerDocument.activeElement === find(way)[0]"
        wait_until(
            lambda: locator.tab.ask(locator.way, is_focused),
            lambda: f"{locator.way} is never focused",
        )

    def to_have_value(self, wanted: str) -> None:
        locator = self._locator
        wait_until(
            lambda: locator.input_value() == wanted,
            lambda: f"{locator.way} has {locator.input_value()!r}, not {wanted!r}",
        )

    def to_have_count(self, wanted: int) -> None:
        wait_until(
            lambda: self._locator.count() == wanted,
            lambda: f"{self._locator.count()} elements for {self._locator.way}, not {wanted}",
        )

    def _wait_for_text(self, wanted: Any, is_right: Callable[[str], bool]) -> None:
        locator, seen = self._locator, ["no element"]

        def look() -> bool:
            texts = locator.tab.ask(locator.way, "find(way).map((it) => tidy(textOf(it)))")
            seen[:] = texts or ["no element"]
            return len(texts) == 1 and is_right(texts[0])

        wait_until(look, lambda: f"{locator.way} shows {seen}, not {wanted!r}")


class TabAssertions:
    """What Playwright's ``expect(page)`` can say, as far as the tests use it."""

    def __init__(self, tab: Tab) -> None:
        self._tab = tab

    def to_have_title(self, wanted: str) -> None:
        wait_until(lambda: self._tab.title() == wanted, lambda: f"the title is never {wanted!r}")


def wait_until(is_true: Callable[[], object], complaint: Callable[[], str]) -> None:
    """Wait until *is_true*; what goes wrong meanwhile may be a page on its way."""
    deadline = time.monotonic() + SECONDS
    last: DriverError | None = None
    while time.monotonic() < deadline:
        try:
            if is_true():
                return
            last = None
        except DriverError as error:
            last = error
        time.sleep(PAUSE)
    raise AssertionError(f"{complaint()} ({SECONDS} s)") from last


def _tidy(text: str) -> str:
    return " ".join(text.split())


def _is_text(wanted: str | re.Pattern[str], text: str) -> bool:
    if isinstance(wanted, str):
        return _tidy(wanted) == text
    return wanted.search(text) is not None
