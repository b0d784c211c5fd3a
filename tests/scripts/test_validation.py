"""What is said of a script that leaves no resource, or one that cannot answer."""

from __future__ import annotations

import pytest

from rpyserve.resources.resource import Resource
from tests.support.script_site import ScriptSite

RESOURCE = "from rpyserve import *\n"
PAGE = RESOURCE + "class Hello(Resource):\n    {}\nresource = Hello()\n"

NOTHING = "There is no `resource` in this script, so there is nothing to serve."
FUNCTION = 'def resource(request):\n    return "<h1>Hello</h1>"'

LEFT = {
    "empty": ("\n\n", "This script is empty.", FUNCTION),
    "nothing of use": ("x = 1\n", NOTHING, FUNCTION),
    "only print": ("print('Hello')\n", NOTHING, "print() writes to the server's console. What the visitor is to see"),
    "one class": (RESOURCE + "class Hello(Resource):\n    def render_GET(self, request): return ''\n", NOTHING, "\nresource = Hello()"),
    "one class that takes something": (
        RESOURCE + "class Hello(Resource):\n    def __init__(self, name, n=1): pass\n", NOTHING, "\nresource = Hello(name)",
    ),
    "two classes": (RESOURCE + "class A(Resource): pass\nclass B(Resource): pass\n", NOTHING, "one of your classes, as the last line:\nresource = B()"),
    "another name": (RESOURCE + "class A(Resource): pass\npage = A()\n", NOTHING, "\nresource = page"),
    "a misspelt name": ("def resourse(request): return 'x'\n", NOTHING, "Did you mean this?\ndef resource(request):"),
    "a misspelt name, async": ("async def Resource(request): return 'x'\n", NOTHING, "\nasync def resource(request):"),
    "a function of the request": ("def hello(request): return 'x'\ndef other(): pass\n", NOTHING, "\nresource = hello"),
    "a class without base": ("class Hello:\n    def render_GET(self, request): return 'x'\n", NOTHING, "\nclass Hello(Resource):\n"),
    "a method without class": ("def render_GET(self, request): return 'x'\n", NOTHING, "Put the method into a class:\nclass Hello(Resource):"),
    "the class": (RESOURCE + "class Hello(Resource):\n    def render_GET(self, request): return ''\nresource = Hello\n",
                  "resource is the class Hello, not an instance of it.", "Add parentheses:\nresource = Hello()"),
    "a class that is no Resource": ("class resource:\n    def render_GET(self, request): return ''\n",
                                    "resource is the class resource, which is not a Resource.", "class resource(Resource):"),
    "some class": ("class resource: pass\n", "resource is the class resource, which is not a Resource.", FUNCTION),
    "None": ("resource = None\n", "resource is None.", FUNCTION),
    "None of a function": ("def make(): pass\nresource = make()\n", "resource is None.", "make() returned nothing. End it with a `return`"),
    "text": ("resource = 'Hello'\n", "resource is a text.", "def resource(request):\n    return 'Hello'"),
    "bytes": ("resource = b'Hello'\n", "resource is a text.", "def resource(request):\n    return b'Hello'"),
    "a dict": ("resource = {}\n", "resource is a dict.", "sent as JSON"),
    "a Response": (RESOURCE + "resource = Response('x')\n", "resource is a Response.", "def resource(request):\n    return Response("),
    "a module": ("import json as resource\n", "resource is the module json.", FUNCTION),
    "a coroutine": ("async def main(): pass\nresource = main()\n", "resource is a coroutine.", "Leave out the parentheses:\nresource = main"),
    "an object": ("class Hello:\n    def render_GET(self, request): return ''\nresource = Hello()\n",
                  "resource is an object of the class Hello, which is not a Resource.", "class Hello(Resource):"),
    "a callable object": ("import functools\nresource = functools.partial(print)\n",
                          "resource is an object of the class partial, which is not a Resource.", "return handler(request)"),
    "a number": ("resource = 42\n", "resource is an object of the class int, which is not a Resource.", FUNCTION),
    "no parameter": ("def resource(): return ''\n", "The function resource takes no parameter, but it is called with the request.",
                     "\ndef resource(request):"),
    "no parameter, async": ("async def resource(): return ''\n", "takes no parameter", "\nasync def resource(request):"),
    "two parameters": ("def resource(a, b): return ''\n", "is called with the request only, but takes 2 parameters.", "\ndef resource(request):"),
    "a function with self": ("def resource(self, request): return ''\n", "is called with the request only", "A method belongs in a class."),
    "WSGI": ("def resource(environ, start_response): pass\n", "resource is a WSGI application, which is not a resource",
             "Mount it:\nfrom rpyserve import WSGIResource\nresource = WSGIResource(resource)"),
    "ASGI": ("async def app(scope, receive, send): pass\n", "app is an ASGI app, which rpyserve cannot serve.", "ReverseProxyResource("),
    "no method": (PAGE.format("x = 1"), "Hello has no render_ method, so it cannot answer anything.", "    def render_GET(self, request):"),
    "plain Resource": (RESOURCE + "resource = Resource()\n", "A plain Resource cannot answer anything.", "class Hello(Resource):"),
    "no self": (PAGE.format("def render_GET(request): return ''"), "Hello.render_GET does not take self.", "\ndef render_GET(self, request):"),
    "no request": (PAGE.format("def render_GET(self): return ''"), "Hello.render_GET does not take request.", "\ndef render_GET(self, request):"),
    "neither": (PAGE.format("def render_GET(): return ''"), "Hello.render_GET takes neither self nor request.", "\ndef render_GET(self, request):"),
    "no request, async": (PAGE.format("async def render_GET(self): return ''"), "does not take request.", "\nasync def render_GET(self, request):"),
    "too many": (PAGE.format("def render_POST(self, request, name): return ''"),
                 "Hello.render_POST takes 3 parameters, but is given 2.", "\ndef render_POST(self, request):"),
    "getChild without name": (PAGE.format("def getChild(self, request): return self"),
                              "Hello.getChild does not take request.", "\ndef getChild(self, name, request):"),
}  # fmt: skip


@pytest.mark.parametrize("case", LEFT)
def test_what_a_script_left(site: ScriptSite, case: str) -> None:
    text, message, hint = LEFT[case]
    error = site.error(text)
    assert message in error.message
    assert hint in error.hint


@pytest.mark.parametrize(
    "name", ["render_get", "Render_GET", "renderGET", "render_Get", "do_GET", "get", "rendr_GET"]
)
def test_a_misspelt_method(site: ScriptSite, name: str) -> None:
    error = site.error(PAGE.format(f"def {name}(self, request): return ''"))
    assert error.message == f"Hello has a method {name}, which is never called."
    assert error.hint == "Write:\ndef render_GET(self, request):"


def test_another_misspelt_method(site: ScriptSite) -> None:
    assert (
        "def render_POST("
        in site.error(PAGE.format("def render_post(self, request): return ''")).hint
    )


@pytest.mark.parametrize("framework", ["flask", "fastapi", "starlette", "quart", "bottle"])
@pytest.mark.parametrize("name", ["resource", "app"])
def test_an_app_of_another_framework(site: ScriptSite, framework: str, name: str) -> None:
    # A stand-in: it is recognized by the module of its class.
    site.write(f"{framework}x.py", "")
    error = site.error(
        f"class App:\n    def __call__(self, *args): pass\nApp.__module__ = '{framework}.app'\n{name} = App()\n"
    )
    if framework in {"flask", "bottle"}:
        assert (
            error.message.lower()
            == f"{name} is a {framework} app, which is not a resource by itself."
        )
        assert (
            error.hint
            == f"Mount it:\nfrom rpyserve import WSGIResource\nresource = WSGIResource({name})"
        )
    else:
        assert error.message.lower() == f"{name} is a {framework} app, which rpyserve cannot serve."
        assert error.hint.startswith("Run it by itself") and "ReverseProxyResource(" in error.hint


@pytest.mark.parametrize(
    "text",
    [
        PAGE.format("def render_GET(self, request): return ''"),
        PAGE.format("def render(self, request): return ''"),
        PAGE.format("def getChild(self, name, request): return self"),
        PAGE.format("async def render_PUT(self, request, more=1): return ''"),
        PAGE.format("@staticmethod\n    def render_GET(request): return ''"),
        PAGE.format("render_GET = lambda self, request: ''"),
        PAGE.format("def render_GET(self, *args): return ''"),
        PAGE.format(
            "def render_GET(self, request): return ''\n    def render_page(self): return ''"
        ),
        RESOURCE + "resource = Resource()\nresource.putChild('x', lambda request: '')\n",
        "resource = lambda request: ''\n",
        "class A:\n    def f(self, request): return ''\nresource = A().f\n",
        "async def resource(request, *, more=1): return ''\n",
    ],
)
def test_what_is_fine(site: ScriptSite, text: str) -> None:
    site.write("a.rpy", text)
    assert isinstance(site.load(), Resource)
