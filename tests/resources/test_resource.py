"""The tree, the walk along it, and the request on its way."""

from __future__ import annotations

from typing import Any

import pytest

from rpyserve import HTTPError, Request, Resource, Site
from tests.support.in_process import ask


class Hello(Resource):
    def render_GET(self, request: Request) -> str:
        return "Hello"


class Show(Resource):
    """Says where the walk ended."""

    isLeaf = True

    def render_GET(self, request: Request) -> dict[str, list[str]]:
        return {"pre": request.prepath, "post": request.postpath}


async def test_the_root_answers_the_only_url_that_it_has() -> None:
    assert (await ask(Site(Hello()), "/")).body == b"Hello"
    assert (await ask(Site(Hello()), "/?x=1")).body == b"Hello"
    assert (await ask(Site(Hello()), "/x")).status == 404
    assert (await ask(Site(Hello()), "//")).status == 404
    assert (await ask(Site(Resource()), "/")).status == 404


@pytest.mark.parametrize("name", ["logme", b"logme"])
async def test_put_child_takes_text_and_bytes(name: Any) -> None:
    root = Resource()
    root.putChild(name, Hello())
    assert (await ask(Site(root), "/logme")).body == b"Hello"
    assert (await ask(Site(root), "/logme/")).status == 404
    assert (await ask(Site(root), "/LOGME")).status == 404


async def test_children_of_two_resources_are_not_shared() -> None:
    one, two = Resource(), Resource()
    one.putChild("x", Hello())
    assert (await ask(Site(two), "/x")).status == 404


async def test_a_subclass_need_not_call_init() -> None:
    class Lazy(Resource):
        def __init__(self) -> None:
            self.name = "lazy"

    root = Lazy()
    root.putChild("x", Hello())
    assert (await ask(Site(root), "/x")).body == b"Hello"
    assert (await ask(Site(root), "/y/z")).status == 404


@pytest.mark.parametrize(
    ("child", "sentence"),
    [
        (Hello, "this is the class Hello, not an instance of it: write Hello()"),
        ("text", "a resource is a Resource instance or a function of the request, not 'text'"),
        (None, "not None"),
    ],
)
def test_what_is_no_resource_is_refused(child: Any, sentence: str) -> None:
    with pytest.raises(TypeError) as caught:
        Resource().putChild("x", child)
    assert sentence in str(caught.value)


def test_a_slash_in_a_childs_name_is_refused() -> None:
    with pytest.raises(ValueError, match="one path segment"):
        Resource().putChild("a/b", Hello())


async def test_get_child_makes_children_on_demand() -> None:
    class Year(Resource):
        def __init__(self, year: int) -> None:
            self.year = year

        def getChild(self, name: str, request: Request) -> Resource:
            return self if not name else Show()

        def render_GET(self, request: Request) -> str:
            return f"The year {self.year}"

    class Almanac(Resource):
        async def getChild(self, name: str, request: Request) -> Resource:
            if not name.isdigit():
                raise HTTPError(404, "Years are numbers.")
            return Year(int(name))

    site = Site(Almanac())
    assert (await ask(site, "/1999")).body == b"The year 1999"
    assert (await ask(site, "/1999/")).body == b"The year 1999"
    assert (
        await ask(site, "/1999/11/a%20b/")
    ).body == b'{"pre": ["1999", "11"], "post": ["a b", ""]}'
    answer = await ask(site, "/soon")
    assert (answer.status, "Years are numbers." in answer.text) == (404, True)


async def test_get_child_that_returns_no_resource_is_named() -> None:
    class Forgetful(Resource):
        def getChild(self, name: str, request: Request) -> Any:
            Hello()

    answer = await ask(Site(Forgetful()), "/x")
    assert answer.status == 500
    assert (
        "Forgetful.getChild() returned None: return a Resource, or raise HTTPError(404)"
        in answer.text
    )


async def test_segments_are_decoded_once() -> None:
    answer = await ask(Site(Show()), "/%252e/%C3%A9/a+b?c=%252e")
    assert answer.body == '{"pre": [], "post": ["%2e", "é", "a+b"]}'.encode()


@pytest.mark.parametrize("target", ["/%00", "/a%00b", "/%ff", "/a/%c3%28"])
async def test_a_path_that_is_no_text_is_a_404(target: str) -> None:
    assert (await ask(Site(Show()), target)).status == 404


async def test_head_falls_back_to_get() -> None:
    assert (await ask(Site(Hello()), "/", "HEAD")).status == 200


async def test_a_missing_method_is_405_with_allow() -> None:
    class Form(Hello):
        def render_PUT(self, request: Request) -> str:
            return "put"

        def render_Post(self, request: Request) -> str:
            return "misspelt"

    answer = await ask(Site(Form()), "/", "POST")
    assert (answer.status, answer.header("allow")) == (405, "GET, HEAD, OPTIONS, PUT")
    assert "It has a method render_Post: the name must be render_POST." in answer.text
    assert (await ask(Site(Form()), "/", "PUT")).body == b"put"


class Guarded(Hello):
    """Has helpers, and things that are no methods, under names of methods."""

    render_count = 0
    render_PUT = None
    render_PATCH = 7

    def render_secrets(self, request: Request) -> str:
        return "the secrets, past the check in render_GET"

    def render_Mixed(self, request: Request) -> str:
        return "another helper"

    def render_GET_(self, request: Request) -> str:
        return "one more"

    def render_(self, request: Request) -> str:
        return "and another"


@pytest.mark.parametrize(
    "method",
    ["secrets", "count", "Mixed", "get", "Get", "GET_", "", "PUT", "PATCH", "É", "_"],
)
async def test_a_method_that_a_client_invents_calls_no_helper(method: str) -> None:
    answer = await ask(Site(Guarded()), "/", method)
    assert (answer.status, answer.header("allow")) == (405, "GET, HEAD, OPTIONS")
    assert "the name must be" not in answer.text


async def test_what_is_no_method_is_named_to_the_author() -> None:
    assert "Its render_PATCH is no method." in (await ask(Site(Guarded()), "/", "PATCH")).text


async def test_a_branch_with_helpers_alone_is_no_page() -> None:
    class Branch(Resource):
        render_GET = None

        def render_item(self, request: Request) -> str:
            return "never"

    for method in ("GET", "HEAD", "OPTIONS", "item"):
        assert (await ask(Site(Branch()), "/", method)).status == 404


async def test_options_says_what_a_page_supports() -> None:
    class Form(Hello):
        def render_PUT(self, request: Request) -> str:
            return "put"

    for resource, allow in [
        (Form(), "GET, HEAD, OPTIONS, PUT"),
        (lambda request: "page", "GET, HEAD, OPTIONS, POST"),
    ]:
        answer = await ask(Site(resource), "/", "OPTIONS")
        assert (answer.status, answer.header("allow"), answer.body) == (204, allow, b"")


async def test_a_pages_own_options_go_first() -> None:
    class Own(Hello):
        def render_OPTIONS(self, request: Request) -> str:
            return "mine"

    answer = await ask(Site(Own()), "/", "OPTIONS")
    assert (answer.status, answer.header("allow"), answer.body) == (200, None, b"mine")
    assert (await ask(Site(Own()), "/", "PUT")).header("allow") == "GET, HEAD, OPTIONS"


async def test_render_itself_may_be_overridden() -> None:
    class Every(Resource):
        def render(self, request: Request) -> str:
            return request.method

    assert (await ask(Site(Every()), "/", "PURGE")).body == b"PURGE"


async def test_functions_answer_get_head_and_post() -> None:
    async def hello(request: Request) -> str:
        return request.method

    for method in ("GET", "HEAD", "POST"):
        assert (await ask(Site(hello), "/", method)).body == method.encode()
    answer = await ask(Site(hello), "/", "PUT")
    assert (answer.status, answer.header("allow")) == (405, "GET, HEAD, OPTIONS, POST")


async def test_a_page_without_children_says_where_it_is() -> None:
    root = Resource()
    root.putChild("hello", Hello())
    assert "try /hello" in (await ask(Site(root), "/hello/")).text
    assert "try /hello" in (await ask(Site(root), "/hello/x/y")).text
