"""What is wrong with a script's resource and methods, said without executing it."""

from __future__ import annotations

import ast

import pytest

from rpyserve.check.bindings import ModuleBindings
from rpyserve.check.findings import Finding, Rule
from rpyserve.check.resources import check_requests, check_resource, check_results
from rpyserve.scripts.validation import validate_namespace

IMPORT = "from rpyserve import Resource\n"


def found(text: str) -> list[Finding]:
    tree = ast.parse(text)
    return list(check_resource(tree, ModuleBindings(tree)))


def page(method: str, *, more: str = "resource = Page()") -> str:
    return f"{IMPORT}class Page(Resource):\n    {method}\n        return ''\n{more}\n"


GOOD = [
    "def resource(request):\n    return ''",
    "async def resource(request):\n    yield ''",
    "def resource(request, n=1, *more, **others):\n    return ''",
    "def resource(*everything):\n    return ''",
    "resource = lambda request: ''",
    "@decorated\ndef resource():\n    return ''",
    page("def render_GET(self, request):"),
    page("async def render_PROPFIND(self, request):"),
    page("def render(self, request):"),
    page("def getChild(self, name, request):"),
    page("def render_GET(self, request, extra=None):"),
    page("@wrapped\n    def render_GET(self):"),
    page("def render_GET(self, request):", more="resource = decorate(Page)"),
    page("def render_GET(self, request):\n        return self.render_head()\n    def "
         "render_head(self):"),
    page("def render_GET(self, request):\n        return ''\n    def get(self, key):"),
    "from tour import resource",
    "from tour import Page\nclass Other(Page):\n    pass\nresource = Other()",
    "from tour import Page\nclass Other(Page):\n    def show(self):\n        pass\n"
    "resource = Other()",
    IMPORT + "class Root(Resource):\n    pass\nresource = Root()\nresource.putChild('a', "
             "Resource())",
    "import tour\nresource = tour.page",
    "from tour import *",
    "try:\n    import resource\nexcept ImportError:\n    resource = None",
    "if a:\n    resource = f\nelse:\n    resource = g",
    "resource = None\nfor each in pages:\n    resource = each",
    "resource = None\ndef make():\n    global resource\n    resource = f\nmake()",
    "class Counter:\n    def render(self):\n        return ''\n    def get(self):\n        pass\n"
    "resource = f",
]  # fmt: skip


@pytest.mark.parametrize("text", GOOD)
def test_nothing_is_wrong(text: str) -> None:
    assert found(text) == []


NO_RESOURCE = {
    "": "This script is empty",
    "# only a comment": "This script is empty",
    IMPORT
    + "class Hello(Resource):\n    def render_GET(self, request):\n        pass": "resource = Hello()",
    IMPORT
    + "class Hello(Resource):\n    def __init__(self, a, b=1):\n        pass": "resource = Hello(a)",
    IMPORT + "class Hello(Resource):\n    pass\npage = Hello()": "resource = page",
    "class Hello:\n    def render_GET(self, request):\n        pass": "class Hello(Resource):",
    "def resourse(request):\n    pass": "def resource(request):",
    "def page(req):\n    pass": "resource = page",
    "print('hello')": "print() writes to the server's console",
    "x = 1": "def resource(request):",
    "if __name__ == '__main__':\n    def page(): pass": "def resource(request):",
}


@pytest.mark.parametrize(("text", "words"), NO_RESOURCE.items())
def test_no_resource(text: str, words: str) -> None:
    (finding,) = found(text)
    assert finding.rule is Rule.NO_RESOURCE
    assert words in f"{finding.message}\n{finding.hint}"


WRONG = {
    page("def render_GET(self, request):", more="resource = Page"): "not an instance of it",
    "class resource:\n    pass": "which is not a Resource",
    IMPORT + "class resource(Resource):\n    pass": "\nresource = resource()",
    "class Page:\n    def render_GET(self, request):\n        pass\nresource = Page": "which is not a Resource",
    "class Page:\n    def render_GET(self, request):\n        pass\nresource = Page()": "class Page(Resource):",
    "def resource():\n    pass": "takes no parameter",
    "async def resource(a, b):\n    pass": "async def resource(request):",
    "def resource(self, request):\n    pass": "A method belongs in a class",
    "def resource(*, request):\n    pass": "takes 1 parameter",
    "def page():\n    pass\nresource = page": "def page(request):",
    "resource = lambda: ''": "The function resource takes no parameter",
    "async def page(request):\n    pass\nresource = page(1)": "the class coroutine",
    "resource = None": "resource is None",
    "resource = '<h1>Hello</h1>'": "resource is a text",
    "resource = f'{x}'": "resource is a text",
    "resource = {'a': 1}": "sent as JSON",
    "resource = 42": "which is not a Resource",
    "import resource": "the module resource",
    "import tour.pages as resource": "the module tour.pages",
    "import tour\nresource = tour": "the module tour",
    "from twisted.web import resource": "the module twisted.web.resource",
    IMPORT
    + "class Page(Resource):\n    '''Nothing.'''\nresource = Page()": "has no render_ method",
}


@pytest.mark.parametrize(("text", "words"), WRONG.items())
def test_wrong_resource(text: str, words: str) -> None:
    (finding,) = found(text)
    assert finding.rule is Rule.WRONG_RESOURCE
    assert words in f"{finding.message}\n{finding.hint}"


def test_the_last_resource_is_looked_at() -> None:
    assert found("resource = None\ndef resource(request):\n    pass") == []
    (finding,) = found("def resource(request):\n    pass\n\nresource = 'x'")
    assert finding.line == 4


@pytest.mark.parametrize(
    ("method", "instead"),
    [
        ("def render_get(self, request):", "def render_GET(self, request):"),
        ("async def render_Post(self, request):", "async def render_POST(self, request):"),
        ("def renderGET(self, request):", "def render_GET(self, request):"),
        ("def render_PSOT(self, request):", "def render_POST(self, request):"),
        ("def get(self, request):", "def render_GET(self, request):"),
        ("def do_POST(self, request):", "def render_POST(self, request):"),
    ],
)
def test_a_misspelt_method(method: str, instead: str) -> None:
    findings = found(page(method))
    assert [(finding.rule, finding.line) for finding in findings] == [(Rule.MISSPELLED_METHOD, 3)]
    assert instead in findings[0].hint


def test_a_misspelt_method_beside_a_good_one() -> None:
    (finding,) = found(
        page(
            "def render_GET(self, request):\n        return ''\n    def render_post(self, request):"
        )
    )
    assert finding.message == "Page has a method render_post, which is never called."


@pytest.mark.parametrize(
    ("method", "what"),
    [
        ("def render_GET():", "takes neither self nor request"),
        ("def render_GET(request):", "does not take self"),
        ("async def render_GET(self):", "does not take request"),
        ("def render_POST(self, request, more):", "takes 3 parameters, but is given 2"),
        ("def render(self):", "does not take request"),
        ("def getChild(self, name):", "does not take request"),
        ("def getChild(self):", "does not take name"),
    ],
)
def test_parameters(method: str, what: str) -> None:
    (finding,) = found(page(method))
    assert finding.rule is Rule.WRONG_PARAMETERS
    assert what in finding.message
    assert "(self, " in finding.hint


def test_methods_of_every_resource_are_looked_at() -> None:
    child = "class Child(Page):\n    def render_POST(self):\n        pass\n"
    (finding,) = found(page("def render_GET(self, request):", more=child + "resource = Page()"))
    assert finding.message.startswith("Child.render_POST")


# Only an execution tells a comment from a script with code, and the names of what was called.
NOT_ALIKE = ("# only a comment", "resource = page(1)", "resource = f'{x}'", "tour", "twisted")


@pytest.mark.parametrize(
    "text",
    [text for text in [*NO_RESOURCE, *WRONG] if not any(part in text for part in NOT_ALIKE)],
)
def test_an_execution_says_the_same(text: str) -> None:
    namespace: dict[str, object] = {"__name__": "script"}
    exec(text, namespace)
    problem = validate_namespace(namespace, text)
    assert [(finding.message, finding.hint) for finding in found(text)] == [problem]


# What render functions return, and what they ask of the request


def told(text: str) -> list[tuple[int, Rule]]:
    bindings = ModuleBindings(ast.parse(text))
    return [
        (each.line, each.rule) for each in (*check_results(bindings), *check_requests(bindings))
    ]


def method(body: str) -> str:
    return f"{IMPORT}class Page(Resource):\n    def render_GET(self, request):\n        {body}\n"


RESULTS = [
    ("def resource(request):\n    print('hi')", 2),
    ("async def resource(request):\n    await f()", 1),
    ("def resource(request):\n    del notes[request.path]", 1),
    ("def resource(request):\n    if a:\n        return\n    return None", 1),
    ("def resource(request):\n    def inner():\n        return 1\n    inner()", 1),
    ("def resource(request):\n    return 42", 2),
    ("def resource(request):\n    return True", 2),
    ("def resource(request):\n    if a:\n        return 4.5\n    return 'x'", 3),
    (method("f'<p>{request.path}</p>'"), 4),
]


@pytest.mark.parametrize(
    ("body", "hint"),
    [
        ("print('hi')", "Write instead:\nreturn 'hi'"),
        ("for n in a:\n        print(n)", "To send each of them, write:\nyield str(n)"),
        ("f'<p>{a}</p>'", "Write:\nreturn f'<p>{a}</p>'"),
        ("'Hi.'\n    a()", 'Return the text of the page:\nreturn "..."'),
    ],
)
def test_the_text_that_is_not_returned_is_named(body: str, hint: str) -> None:
    bindings = ModuleBindings(ast.parse(f"def resource(request):\n    {body}\n"))
    (finding,) = check_results(bindings)
    assert finding.hint.endswith(hint)


@pytest.mark.parametrize(("text", "line"), RESULTS)
def test_what_is_no_page(text: str, line: int) -> None:
    assert told(text) == [(line, Rule.WRONG_RESULT)]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("def resource(request):\n    return request.getsession()", 2),
        ("def resource(req):\n    return req.form['a']", 2),
        (method("return request.cookie"), 4),
        ("def resource(request):\n    return request.args[b'x'][0]", 2),
    ],
)
def test_what_a_request_does_not_have(text: str, line: int) -> None:
    assert [rule for _, rule in told(text)] == [Rule.UNKNOWN_ATTRIBUTE]


@pytest.mark.parametrize(
    "text",
    [
        "def resource(request):\n    yield 'x'",
        "def resource(request):\n    raise HTTPError(404)",
        "def resource(request):\n    request.write('x')\n    request.finish()",
        "def resource(request):\n    request.setResponseCode(204)",
        "def resource(request):\n    while True:\n        work()",
        "def resource(request):\n    if a:\n        return 'x'",
        "def resource(request):\n    return None if a else 'x'",
        "def resource(request):\n    answer(request)",
        "@websocket\ndef resource(request):\n    print('x')",
        "def resource(request):\n    pass\ndef resource(request):\n    return 'x'",
        method("return 'x'\n    def show(self):\n        print('x')"),
        "class Game:\n    def render_GET(self, request):\n        print('x')",
        "def helper(request):\n    return request.anything",
        "def resource(request):\n    request.user_id = 1\n    return str(request.user_id)",
        "def resource(request):\n    request = wrap(request)\n    return request.form",
        "def resource(request):\n    return f'{request.args} {request.site} {request.method}'",
        "from twisted.web.resource import Resource\nclass Page(Resource):\n"
        "    def render_GET(self, request):\n        return request.args[b'x'][0] + request.channel",
    ],
)
def test_what_may_be_right_is_not_told(text: str) -> None:
    assert told(text) == []


def test_a_function_that_is_called_for_its_own_name() -> None:
    [finding] = found("def resource(request):\n    return ''\nresource = resource()")
    assert (finding.line, finding.rule) == (3, Rule.WRONG_RESOURCE)
    assert "Remove this line" in finding.hint
    assert found("@made\ndef resource(request):\n    return ''\nresource = resource()") == []


def test_a_helper_without_self() -> None:
    text = method("return self.helper() + self.other() + self.third(1)") + (
        "    def helper():\n        return ''\n    @staticmethod\n    def other():\n        return ''\n"
        "    def third(*all):\n        return ''\nresource = Page()\n"
    )
    [finding] = found(text)
    assert (finding.line, finding.rule) == (5, Rule.WRONG_PARAMETERS)
    assert finding.hint == "Write:\ndef helper(self):"
