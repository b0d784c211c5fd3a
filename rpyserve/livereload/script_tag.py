"""The tag of the live reload script, put into what a browser loads as a page, and nothing else.

The tag stands as early in a page as it can without changing what the page is (see `opening`), so
nothing that an author has not finished typing comes before it: a comment, a quote or a
``<textarea>`` that is not closed takes in all that follows. Markup is not searched for anywhere
else, because what looks like it may be text.

Which script the tag names, and what it does, is the business of `endpoints` and the client. Nothing
here fails a request: a page that cannot have the tag goes out without.
"""

from __future__ import annotations

import logging
import re
import secrets
import time
import zlib
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from html import escape, unescape
from typing import Final

from rpyserve.files.path_rules import is_script
from rpyserve.http.headers import HeaderFields
from rpyserve.http.request import Request
from rpyserve.http.response import (
    ChunkIterator,
    FileBody,
    Headers,
    Response,
    StartedStream,
    Stream,
    Upgrade,
)

log = logging.getLogger("rpyserve")

# How many bytes of a page are searched for what its head says.
SAMPLE: Final = 64 * 1024

# How many pages are kept until their script has asked for them, and of which size at most.
MAX_SENT: Final = 32
MAX_SENT_SIZE: Final = 256 * 1024

# Headers by which a browser asks whether the copy that it has is still good.
_CONDITIONAL: Final = frozenset({b"if-none-match", b"if-modified-since"})
# Headers that are dropped, or made anew, because the tag makes the page another one.
_OUTDATED: Final = frozenset(
    {b"etag", b"last-modified", b"accept-ranges", b"cache-control", b"vary"}
)
# Headers by which the body must stay as it is.
_BODY_IS_FINAL: Final = frozenset(
    {b"content-encoding", b"content-range", b"content-digest", b"repr-digest"}
)
_POLICY: Final = b"content-security-policy"
_UTF_16: Final = (b"\xff\xfe", b"\xfe\xff")  # byte order marks, which overrule any header

# What must stay before the tag, as a browser reads it (HTML Standard, section 13.2.5): complete
# comments, the doctype (without one, layout is another), the tags whose attributes count only if
# no script came before, and ``<meta>``, which may name the encoding.
_OPENING: Final = re.compile(
    rb"""(?:\xef\xbb\xbf)?(?>
        [\t\n\f\r ]++
        | <!--(?:-?>|.*?--!?>)
        | <(?:\?|!(?!--))[^>]*+>
        | <(?:html|head|meta)(?=[\t\n\f\r />])(?>
            [\t\n\f\r /]++
            | [^\t\n\f\r />][^\t\n\f\r />=]*+(?>
                [\t\n\f\r ]*+=[\t\n\f\r ]*+
                (?:"[^"]*"|'[^']*'|[^\t\n\f\r "'>][^\t\n\f\r >]*+|(?=>))
                | (?![\t\n\f\r ]*=)
            )
        )*+>
    )*+""",
    re.IGNORECASE | re.DOTALL | re.VERBOSE,
)
# What comes after it where the rest of a comment, or of such a tag, may be still to come.
_UNFINISHED: Final = re.compile(
    rb"<(?:[!?]|(?:html|head|meta)[\t\n\f\r /]|[a-z]{0,4}\Z)", re.IGNORECASE
)

# The directives that decide; of each group the first one present counts.
_DECIDING: Final = (
    ("sandbox",),
    ("script-src-elem", "script-src", "default-src"),
    ("connect-src", "default-src"),
)
_ALLOWING: Final = frozenset({"'self'", "*"})
_META: Final = re.compile(r"<meta\s[^>]*content-security-policy[\"'\s/>][^>]*", re.IGNORECASE)
_CONTENT: Final = re.compile(r"""\bcontent\s*=\s*("[^"]*"|'[^']*')""", re.IGNORECASE)


class SentPages:
    """The pages with scripts that were sent last, for the script in each of them.

    It cannot find out by itself what the server had sent: scripts have changed the document by the
    time that it runs. A page can be taken once, by the random name that only its tag has.
    """

    def __init__(self) -> None:
        self._responses: dict[str, Response] = {}

    def keep(self, response: Response, content: bytes | None) -> str:
        """Return the name of a page that will be wanted; empty for any other.

        Args:
            response: its headers.
            content: its content, where it is known.
        """
        if content is None or len(content) > MAX_SENT_SIZE or b"<script" not in content:
            return ""
        if len(self._responses) >= MAX_SENT:
            del self._responses[next(iter(self._responses))]
        headers = [pair for pair in response.headers if pair[0].lower() == b"content-type"]
        headers.append((b"Cache-Control", b"no-store"))
        name = secrets.token_urlsafe(12)
        self._responses[name] = Response.trusted(content, 200, tuple(headers))
        return name

    def take(self, name: str) -> Response | None:
        """Return the page of that name, and forget it."""
        return self._responses.pop(name, None)


@dataclass(frozen=True, slots=True)
class ScriptTag:
    """Makes the tags of a site's pages.

    Args:
        cursor: gives the number of the last change, as the stream of changes understands it.
        url_of: gives the URL path of a file or directory, or ``"*"``.
        on_blocked: called with a page's path and the directive of its policy that is in the way.
        sent: keeps the pages with scripts.
        errors_version: gives which version of ``errors.js`` a page is to have.
        browser_log: whether pages tell the server also what they log.
    """

    cursor: Callable[[], str]
    url_of: Callable[[str], str]
    on_blocked: Callable[[str, str], object]
    sent: SentPages = field(default_factory=SentPages)
    errors_version: Callable[[], str] = str
    browser_log: bool = False

    def prepare(self, request: Request) -> PageLoad:
        """Make *request* ask for a whole page. Call it before the site answers."""
        request._follows = True
        # A copy that the browser kept from before may have another tag, or none.
        headers = request.raw_headers
        request.raw_headers = HeaderFields(pair for pair in headers if pair[0] not in _CONDITIONAL)
        return PageLoad(self, request, self.cursor(), time.time())


@dataclass(frozen=True, slots=True)
class PageLoad:
    """One page that a browser loads.

    Args:
        tags: makes the tags.
        request: asks for the page.
        cursor: the last change when the page was asked for.
        asked: when that was, in seconds since the epoch.
    """

    tags: ScriptTag
    request: Request
    cursor: str
    asked: float

    def with_tag(self, response: Response) -> Response:
        """Return *response* with a tag; as it is where it cannot have one."""
        body = response.body
        if isinstance(body, Stream):
            tagged = _TaggedStream(body, self)
            return Response.trusted(tagged, response.status, response.headers)
        if isinstance(body, Upgrade) or not _is_whole_page(response):
            return response
        if isinstance(body, FileBody):
            sample = _beginning(body)
            whole = sample if len(sample) == body.length else None
            tag = self.make_tag(response, sample, whole)
            longer: bytes | FileBody = _file_with_tag(body, opening(sample), tag)
        else:
            tag = self.make_tag(response, body[:SAMPLE], body)
            place = opening(body)
            longer = b"".join((body[:place], tag, body[place:]))
        if not tag:
            return response
        return Response.trusted(longer, response.status, _headers_with_tag(response.headers))

    def make_tag(self, response: Response, sample: bytes, content: bytes | None = None) -> bytes:
        """Return the tag; empty if the page cannot have one.

        Args:
            response: the page's status and headers.
            sample: the beginning of its content.
            content: all of its content, where it is known.
        """
        try:
            return self._make_tag(response, sample, content)
        except Exception as exc:
            log.debug("%s is sent without live reload: %s", self.request.path, exc)
            return b""

    def _make_tag(self, response: Response, sample: bytes, content: bytes | None) -> bytes:
        if sample.startswith(_UTF_16):
            return b""
        policy = [value.decode("latin-1") for value in _values(response.headers, _POLICY)]
        in_page = policies_in(sample.decode("utf-8", "replace"))
        if blocking := blocking_directive([*policy, *in_page]):
            self.tags.on_blocked(self.request.path, blocking)
            return b""
        sources = self.request._sources
        is_file = bool(sources) and not any(map(is_script, sources))
        data = {
            "rpyserve": self.cursor,
            "sources": " ".join(dict.fromkeys(map(self.tags.url_of, sources))),
            "made": "file" if is_file else "script",
            "method": self.request.method,
            "status": str(response.status),
            "digest": "" if content is None else _digest(content),
            "policy": _digest(" ".join(policy).encode()) if policy else "",
            "sent": self.tags.sent.keep(response, content),
            "asked": str(round(self.asked * 1000)),
        }
        attributes = " ".join(f'data-{name}="{escape(value)}"' for name, value in data.items())
        src = f"{self._way_up()}-/follow.js"
        follow = f'<script async src="{src}" {attributes}></script>'
        return f"{self._errors_tag()}{follow}".encode()

    def _errors_tag(self) -> str:
        """Its script is waited for, so that no error of the page's own scripts comes before it."""
        src = f"{self._way_up()}-/errors.js?{self.tags.errors_version()}"
        console = " data-console" if self.tags.browser_log else ""
        return f'<script src="{src}" data-rpyserve-errors{console}></script>'

    def _way_up(self) -> str:
        """The relative URL of the server's root, since a proxy may have it below a prefix."""
        return "../" * (self.request.raw_path.count("/") - 1) or "./"


def opening(page: bytes) -> int:
    """Return how many bytes of *page* must come before the tag.

    All that they hold is complete, and after them a browser expects markup, whatever follows.
    """
    found = _OPENING.match(page)
    return found.end() if found else 0


def _has_opened(page: bytes) -> bool:
    """Whether more of *page* could not change where its tag is put."""
    place = opening(page)
    return place < len(page) and _UNFINISHED.match(page, place) is None


def _is_whole_page(response: Response) -> bool:
    """Whether a tag may be put into *response*.

    Not into one that asks for a password: the script would have the browser ask once more. See RFC
    9110, sections 8.3, 8.4, 15.3.5, 15.3.7 and 15.4.5.
    """
    headers = {name.lower(): value.lower() for name, value in response.headers}
    content_type, _, parameters = headers.get(b"content-type", b"").partition(b";")
    if content_type.strip() != b"text/html" or response.status in (204, 206, 304, 401):
        return False
    if re.search(rb"utf-(16|32)", parameters):
        return False
    if headers.get(b"content-disposition", b"").startswith(b"attachment"):
        return False
    return _BODY_IS_FINAL.isdisjoint(headers)


def _headers_with_tag(headers: Headers) -> Headers:
    """Return the headers of a page with a tag: it is no longer what its validators stand for."""
    kept = tuple(pair for pair in headers if pair[0].lower() not in _OUTDATED)
    cache_control = b",".join(_values(headers, b"cache-control")).lower()
    storing = b"no-store" if b"no-store" in cache_control else b"no-cache"
    vary = [*_values(headers, b"vary"), b"Sec-Fetch-Dest, Sec-Fetch-Mode"]
    return (*kept, (b"Cache-Control", storing), (b"Vary", b", ".join(vary)))


def _values(headers: Headers, wanted: bytes) -> list[bytes]:
    return [value for name, value in headers if name.lower() == wanted]


def _digest(content: bytes) -> str:
    """What tells one content from another, where nobody means harm."""
    return f"{zlib.crc32(content):x}"


def _beginning(body: FileBody) -> bytes:
    first = body.parts[0] if body.parts else b""
    if isinstance(first, bytes):
        return first[:SAMPLE]
    body.file.seek(first.start)
    return body.file.read(min(SAMPLE, len(first)))


def _file_with_tag(body: FileBody, place: int, tag: bytes) -> FileBody:
    first, *others = body.parts or (b"",)
    parts = (first[:place], tag, first[place:], *others)
    return FileBody(body.file, tuple(filter(len, parts)))


# Content Security Policies: only ``'self'`` and ``*`` count as allowing, all else as blocking


def blocking_directive(policies: Iterable[str]) -> str:
    """Return the directive that blocks a script of this server, or its stream; empty if none does.

    Args:
        policies: values of ``Content-Security-Policy``, each perhaps several policies joined by
            commas.
    """
    for policy in ",".join(policies).split(","):
        directives = [*filter(None, map(str.split, policy.lower().split(";")))]
        by_name = {directive[0]: directive for directive in reversed(directives)}
        for names in _DECIDING:
            directive = next(filter(None, map(by_name.get, names)), ["*"])
            if _blocks(directive):
                return " ".join(directive)
    return ""


def _blocks(directive: list[str]) -> bool:
    return _ALLOWING.isdisjoint(directive) or "'strict-dynamic'" in directive


def policies_in(text: str) -> list[str]:
    """Return the policies in an HTML document's own ``<meta http-equiv>`` elements."""
    contents = _CONTENT.findall(" ".join(_META.findall(text)))
    return [unescape(content[1:-1]) for content in contents]


# Streams


class _TaggedStream(Stream):
    """A stream with a tag, in the same place as in a page that is not streamed."""

    def __init__(self, stream: Stream, page: PageLoad) -> None:
        self._stream = stream
        self._page = page

    @asynccontextmanager
    async def start(self, response: Response) -> AsyncIterator[StartedStream]:
        async with self._stream.start(response) as started:
            yield self._with_tag(started)

    def _with_tag(self, started: StartedStream) -> StartedStream:
        head = started.response
        if isinstance(head.body, bytes):
            return StartedStream(self._page.with_tag(head), started.chunks)
        if not _is_whole_page(head):
            return started
        tagged = Response.trusted(self, head.status, _headers_with_tag(head.headers))
        chunks = _TaggedChunks(started.chunks, partial(self._page.make_tag, head))
        return StartedStream(tagged, ChunkIterator(chunks.next_chunk))


class _TaggedChunks:
    """*chunks* with a tag.

    What the stream begins with is held back until it is known where the tag belongs: at most an
    opening and an unfinished tag or comment, of which a browser would show nothing yet.

    Not a generator: it may be left half-way without being closed.
    """

    def __init__(self, chunks: AsyncIterator[bytes], make_tag: Callable[[bytes], bytes]) -> None:
        self._chunks = chunks
        self._make_tag = make_tag
        self._has_begun = False

    async def next_chunk(self) -> bytes:
        """Return the next chunk; empty at the end."""
        if self._has_begun:
            return await anext(self._chunks, b"")
        beginning = await self._read_beginning()
        self._has_begun = True
        place = opening(beginning)
        tag = self._make_tag(beginning[:SAMPLE])
        return b"".join((beginning[:place], tag, beginning[place:]))

    async def _read_beginning(self) -> bytes:
        beginning = b""
        while chunk := await anext(self._chunks, b""):
            beginning += chunk
            if len(beginning) >= SAMPLE or _has_opened(beginning):
                break
        return beginning
