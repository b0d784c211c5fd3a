"""The programs and scripts of "Web in 60 seconds", answered by Twisted itself and by rpyserve.

They are taken from Twisted's own source distribution, the version of which must be that of the
Twisted that is installed here. A program becomes a script: what it makes its ``Site`` of is the
``resource``. Both servers serve the same directory, and get the same requests. What counts is what
Twisted answers well: status, header fields and body must be the same then, but for the differences
in `EXPECTED`, each with its reason.

    python -m benchmarks.conformance.twisted [twisted-26.10.0.tar.gz]
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import http.client
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import textwrap
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from benchmarks.common.server_process import free_port, is_listening

FORM: Final = {"Content-Type": "application/x-www-form-urlencoded"}
BODY: Final = b"the-field=caf%C3%A9+%3Cb%3E&name=World&date=2020-01-01"
MULTIPART: Final = (
    b'--B\r\nContent-Disposition: form-data; name="the-field"\r\n\r\nvalue\r\n--B--\r\n'
)

REQUESTS: Final[tuple[tuple[str, str, bytes | None, dict[str, str]], ...]] = (
    ("GET", "", None, {}),
    ("GET", "", None, {}),
    ("HEAD", "", None, {}),
    ("POST", "", BODY, FORM),
    ("POST", "", MULTIPART, {"Content-Type": "multipart/form-data; boundary=B"}),
    ("POST", "", b'{"a": 1}', {"Content-Type": "application/json"}),
    ("PUT", "", b"x", {}),
    ("DELETE", "", None, {}),
    ("GET", "/", None, {}),
    ("GET", "/2024", None, {}),
    ("HEAD", "/2024", None, {}),
    ("GET", "/fred", None, {}),
    ("GET", "/bob", None, {}),
    ("GET", "/nobody/here", None, {}),
    ("GET", "?name=a&name=b&empty=", None, {}),
    ("GET", "", None, {"Authorization": "Basic dXNlcjpwYXNz"}),
    ("GET", "", None, {"If-Modified-Since": "Fri, 01 Jan 2100 00:00:00 GMT"}),
    ("GET", "", None, {"Range": "bytes=0-3"}),
)

# Fields that say nothing of what a resource answers.
_OF_THE_CONNECTION: Final = frozenset(
    ["date", "server", "connection", "transfer-encoding", "content-length"]
)

EXPECTED: Final = {
    "set-cookie": "The cookie of a session has a name of rpyserve's, HttpOnly and SameSite.",
}


@dataclass
class Answer:
    status: int
    headers: list[tuple[str, str]]
    body: bytes
    cookies: list[str] = field(default_factory=list)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("distribution", nargs="?", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        distribution = options.distribution or download(root)
        scripts = take_scripts(distribution, root / "site")
        print(f"{len(scripts)} programs and scripts of {distribution.name}")
        commands = twisted_command(root / "site"), rpyserve_command(root / "site")
        with serving(commands[0]) as theirs, serving(commands[1]) as ours:
            failed = compare(scripts, theirs, ours)
    sys.exit(failed)


def download(directory: Path) -> Path:
    """Fetch the source distribution of the Twisted that is installed."""
    from importlib.metadata import version

    wanted = f"twisted=={version('twisted')}"
    options = ["--quiet", "--no-deps", "--no-binary", "twisted", "--dest", str(directory)]
    subprocess.run([sys.executable, "-m", "pip", "download", *options, wanted], check=True)
    return next(directory.glob("[tT]wisted-*.tar.gz"))


# Scripts


def take_scripts(distribution: Path, site: Path) -> list[str]:
    """Write the programs and scripts of the tutorial into *site*; return their names."""
    site.mkdir()
    with tarfile.open(distribution) as archive:
        for member in archive.getmembers():
            folder, _, name = member.name.rpartition("/")
            if folder.endswith("howto/web-in-60") and name.endswith(".rst"):
                file = archive.extractfile(member)
                assert file is not None
                for number, code in enumerate(complete_code(file.read().decode())):
                    path = site / f"{name.removesuffix('.rst')}-{number}.rpy"
                    path.write_text(code, encoding="utf-8")
    return sorted(path.name for path in site.glob("*.rpy"))


def complete_code(text: str) -> Iterator[str]:
    """Yield each block of code of a lesson that can be served by itself."""
    for block in re.findall(r"^(?:\.\. code-block:: python|::)\n((?:\n|[ ]+.*\n?)+)", text, re.M):
        code = textwrap.dedent(block).strip() + "\n"
        if "import" not in code:
            continue
        with contextlib.suppress(SyntaxError):
            script = script_of(ast.parse(code))
            if script:
                yield script


def script_of(tree: ast.Module) -> str:
    """Make a script of a program; a script stays as it is. Empty if it is neither."""
    kept: list[ast.stmt] = []
    for statement in tree.body:
        if not _starts_server(statement):
            kept.append(statement)
    for index, statement in enumerate(kept):
        root = _root_of_site(statement)
        if root is not None:
            kept[index] = ast.Assign([ast.Name("resource", ast.Store())], root, lineno=0)
    script = ast.unparse(ast.Module(kept, []))
    return script + "\n" if re.search(r"^resource = ", script, re.M) else ""


def _starts_server(statement: ast.stmt) -> bool:
    text = ast.unparse(statement)
    return bool(re.match(r"(endpoint\b|endpoint\.|reactor\.(run|listenTCP)|factory\.)", text))


def _root_of_site(statement: ast.stmt) -> ast.expr | None:
    match statement:
        case ast.Assign([ast.Name()], ast.Call(ast.Name("Site"), [root, *_])):
            return root
        case ast.Assign([ast.Name()], ast.Call(ast.Attribute(attr="Site"), [root, *_])):
            return root
    return None


# Servers


def twisted_command(site: Path) -> list[str]:
    program = "import sys; from twisted.application.twist._twist import Twist; Twist.main(sys.argv)"
    listen = "tcp:{port}:interface=127.0.0.1"
    return [sys.executable, "-c", program, "web", "--path", str(site), "--listen", listen]


def rpyserve_command(site: Path) -> list[str]:
    return [sys.executable, "-m", "rpyserve", str(site), "--port", "{port}", "--no-reload"]


@contextlib.contextmanager
def serving(command: list[str]) -> Iterator[int]:
    """Run a server while inside; gives its port."""
    port = free_port()
    arguments = [part.replace("{port}", str(port)) for part in command]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(arguments, stdout=log, stderr=log, env=dict(os.environ))
        try:
            if not is_listening(port, 30):
                raise SystemExit(f"the server did not start: {arguments}")
            yield port
        finally:
            process.terminate()
            process.wait(20)


# Comparison


@dataclass
class Comparison:
    """How the answers of one script compare.

    Args:
        well: how many Twisted answers well.
        same: how many of them are the same here, but for what is `EXPECTED`.
        reasons: what was expected to differ, and how often it did.
        differences: what was not.
    """

    well: int = 0
    same: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    differences: list[str] = field(default_factory=list)


def compare(scripts: list[str], theirs: int, ours: int) -> bool:
    """Ask both, print what differs, and return whether too much does."""
    for port in (theirs, ours):  # the first answer of a server takes longer
        ask(port, ("GET", f"/{scripts[0]}", None, {}), {port: []})
    with ThreadPoolExecutor() as pool:  # some answers take their time
        found = list(pool.map(lambda script: compare_script(script, theirs, ours), scripts))
    well, same = sum(each.well for each in found), sum(each.same for each in found)
    for each in found:
        print(*each.differences, sep="\n", end="\n" if each.differences else "")
    print(f"{same} of {well} that Twisted answers well ({same / well:.1%})")
    for reason, count in sum((each.reasons for each in found), Counter[str]()).items():
        print(f"  {count} with another {reason}: {EXPECTED[reason]}")
    return bool(same < 0.99 * well)


def compare_script(script: str, theirs: int, ours: int) -> Comparison:
    """Ask both all that is asked of *script*."""
    found = Comparison()
    cookies: dict[int, list[str]] = {theirs: [], ours: []}
    for method, below, body, headers in REQUESTS:
        asked = (method, f"/{script}{below}", body, headers)
        for _ in range(3):  # a clock may strike between the two
            expected, got = ask(theirs, asked, cookies), ask(ours, asked, cookies)
            differences = set(differing(expected, got))
            if differences <= EXPECTED.keys():
                break
        if expected.status in range(1, 500):
            found.well += 1
            found.same += differences <= EXPECTED.keys()
            found.reasons.update(differences & EXPECTED.keys())
            found.differences += [
                f"{method} {asked[1]}: {each}: {_shown(expected, got, each)}"
                for each in sorted(differences - EXPECTED.keys())
            ]
    return found


def ask(
    port: int,
    asked: tuple[str, str, bytes | None, dict[str, str]],
    cookies: dict[int, list[str]],
) -> Answer:
    """Send one request, with the cookies that came before."""
    method, target, body, headers = asked
    sent = headers | ({"Cookie": "; ".join(cookies[port])} if cookies[port] else {})
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=8)
    try:
        connection.request(method, target, body, sent)
        reply = connection.getresponse()
        answer = Answer(reply.status, reply.getheaders(), reply.read())
    except (OSError, http.client.HTTPException):
        return Answer(0, [], b"")
    finally:
        connection.close()
    made = [value.partition(";")[0] for name, value in answer.headers if name == "Set-Cookie"]
    cookies[port] += made
    answer.cookies = [value.partition("=")[2] for value in cookies[port]]
    return answer


def differing(theirs: Answer, ours: Answer) -> Iterator[str]:
    """Yield what is not the same: the status, the body, or the name of a field."""
    if theirs.status != ours.status:
        yield "status"
    if _body(theirs) != _body(ours):
        yield "body"
    fields = _fields(theirs), _fields(ours)
    for name in sorted({*fields[0], *fields[1]}):
        if fields[0].get(name) != fields[1].get(name):
            yield name


def _body(answer: Answer) -> bytes:
    body = answer.body
    for cookie in answer.cookies:
        body = body.replace(cookie.encode(), b"<session>")
    return body


def _fields(answer: Answer) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, value in answer.headers:
        if name.lower() not in _OF_THE_CONNECTION:
            value = re.sub(r'(nonce|opaque)="[^"]*"', r'\1="..."', value)
            found.setdefault(name.lower(), []).append(value)
    return found


def _shown(theirs: Answer, ours: Answer, what: str) -> str:
    if what == "status":
        return f"{theirs.status}, here {ours.status}"
    if what == "body":
        return f"{_body(theirs)[:200]!r}, here {_body(ours)[:200]!r}"
    return f"{_fields(theirs).get(what)}, here {_fields(ours).get(what)}"


if __name__ == "__main__":
    main()
