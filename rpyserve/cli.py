"""The command line: parse options, build a site, serve it.

The only module that knows all the others. What costs time to import (trio, h11, zope.interface) is
imported inside the functions that need it, so that ``--help`` appears at once. Options come from
the command line, else from ``RPYSERVE_*`` variables, else from the defaults. Exit status: 0 after
Ctrl-C, 1 if the server cannot run, 2 for bad usage, 3 if the site is served already.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rpyserve._names import __version__
from rpyserve.util.text import parse_duration, parse_size

if TYPE_CHECKING:
    from rpyserve.serving.listen import Settings
    from rpyserve.serving.run_file import Claim
    from rpyserve.site import Site
    from rpyserve.twisted.program import Program


# The exit status if a server of the site is running.
ALREADY_RUNNING = 3

_PATH = re.compile(r"(?:/[A-Za-z0-9._~-]+)+")


class ParsedText(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.4 only
    """A text that *parse* converts, or refuses with a ValueError whose message is shown.

    The one of click, `click.types.FuncParamType`, shows the text instead in some versions.
    """

    def __init__(self, parse: Callable[[str], Any]) -> None:
        self.name = parse.__name__
        self._parse = parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return self._parse(value)
        except ValueError as exc:
            self.fail(str(exc), param, ctx)


def _network(text: str) -> Any:
    from ipaddress import ip_network

    try:
        return ip_network(text)
    except ValueError as exc:
        raise ValueError(f"{exc}: use an address or a network, such as 172.17.0.0/16") from None


def _drain(text: str) -> float:
    """Seconds; 0 for none."""
    if text.strip() in ("0", "0s"):
        return 0.0
    seconds = parse_duration(text)
    if seconds > 3600:
        raise ValueError(f"{text!r} is too long: systemd, for one, kills after 90 seconds")
    return seconds


def _proxy(text: str) -> Any:
    """The network of a proxy, or None for whoever connects to a Unix socket."""
    return None if text == "unix" else _network(text)


def _root_path(text: str) -> str:
    if not text:
        return text
    from rpyserve.production.forwarded import parse_root_path

    return parse_root_path(text)


def _bind(text: str) -> Any:
    from rpyserve.production import sockets

    return sockets.parse_bind(text)


def _send_file(text: str) -> Any:
    from rpyserve.production.send_file import parse_send_file

    return parse_send_file(text)


def _metrics(text: str) -> Any:
    """A path of the site, or a socket."""
    if not text.startswith("/"):
        return _bind(text)
    if not _PATH.fullmatch(text):
        raise ValueError(f"{text[:60]!r} is not a path such as /metrics")
    return text


def _cookie_name(text: str) -> str:
    from rpyserve.http.cookies import format_set_cookie

    format_set_cookie(text, "")  # raises if it is none
    return text


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not (colon and name.strip() and name.isascii()) or "\n" in text or "\r" in text:
        raise ValueError(f"{text!r} is no header line: write it as 'Name: value'")
    return name.strip(), value.strip()


def _editor(text: str) -> Any:
    from rpyserve.diagnostics import editor

    return editor.parse_editor(text)


def _tls(text: str) -> tuple[Path, Path] | bool:
    """The certificate and key that are named, or whether to make a certificate."""
    wanted = click.BOOL.str_to_bool(text)
    if wanted is not None:
        return wanted
    files = text.split(os.pathsep) if os.pathsep in text else text.split()
    if len(files) != 2:
        raise ValueError(f"{text!r} is not two files: use --tls CERT KEY, or --tls alone")
    return Path(files[0]).resolve(), Path(files[1]).resolve()


def _store(text: str) -> Any:
    from rpyserve.stores.opening import parse_store

    return parse_store(text)


class Command(click.Command):
    """One whose option ``--tls`` may be followed by two files, or by none."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Write the files after ``--tls`` as its value."""
        if "--tls" in args:
            index = args.index("--tls")
            files = [*takewhile(_is_certificate, args[index + 1 : index + 3])]
            value = os.pathsep.join(files) or "yes"
            args = [*args[:index], f"--tls={value}", *args[index + 1 + len(files) :]]
        return super().parse_args(ctx, args)


def _hide_from_imports(context: click.Context, param: click.Parameter, site: Path) -> Path:
    """Take the site out of the path of imports: its ``secrets.py`` is not for the server.

    It comes before all other options, as reading those may import something. Scripts find the
    site's modules all the same, after Python's own. What is relative in the path goes on meaning
    what it means now, before the command changes into the site.
    """
    real = os.path.realpath(site)
    entries = [os.path.abspath(path) if os.path.isdir(path or ".") else path for path in sys.path]
    sys.path[:] = [path for path in entries if os.path.realpath(path) != real]
    return site


def _load_environment(context: click.Context, param: click.Parameter, path: Path | None) -> None:
    """Take the variables in the file at *path*, before those of the other options are looked at.

    Variables that are set already stay.
    """
    if path is None:
        return
    try:
        from dotenv import load_dotenv
    except ImportError:
        from rpyserve.util.text import install_command

        raise click.ClickException(
            f"--env-file needs python-dotenv: {install_command('python-dotenv')}"
        ) from None
    try:
        load_dotenv(path)
    except ValueError as exc:  # it is no text
        raise click.BadParameter(f"{str(path)!r} cannot be read: {exc}", context, param) from None


def _is_certificate(arg: str) -> bool:
    return os.path.isfile(arg) or arg.lower().endswith((".pem", ".crt", ".cer", ".key"))


@click.command(
    cls=Command,
    context_settings={
        "auto_envvar_prefix": "RPYSERVE",
        "max_content_width": 100,
    },
    epilog=(
        "Every option can also be set by an environment variable: RPYSERVE_PORT=9000, "
        "RPYSERVE_SESSION_TIMEOUT=2h."
    ),
)
@click.argument(
    "site",
    default=".",
    type=click.Path(path_type=Path),
    is_eager=True,
    callback=_hide_from_imports,
)
@click.option(
    "--env-file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False, readable=True),
    is_eager=True,
    expose_value=False,
    callback=_load_environment,
    metavar="FILE",
    help="Read environment variables from FILE, such as .env; those that are set already stay.",
)
@click.option(
    "-p",
    "--port",
    type=click.IntRange(0, 65535),
    metavar="PORT",
    help=(
        "Port to listen on; 0 takes any free one. Default: 8080, or the next free port, unless "
        "the site is served already."
    ),
)
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    metavar="ADDRESS",
    help="Address to listen on. Use 0.0.0.0 to accept connections from the network.",
)
@click.option(
    "--bind",
    multiple=True,
    type=ParsedText(_bind),
    metavar="SOCKET",
    help=(
        "Listen on unix:PATH, unix:PATH,mode=660, fd:NUMBER, systemd, or ADDRESS:PORT, instead of "
        "--host and --port. Repeatable."
    ),
)
@click.option(
    "--allowed-host",
    multiple=True,
    metavar="NAME",
    help="Also accept requests for this host name. Repeatable.",
)
@click.option(
    "--trust",
    multiple=True,
    type=ParsedText(_network),
    metavar="NETWORK",
    help=(
        "Also show error details to clients of this network, such as a container's host. "
        "Repeatable."
    ),
)
@click.option(
    "--session-timeout",
    type=ParsedText(parse_duration),
    default="15m",
    show_default=True,
    metavar="DURATION",
    help="Idle time after which a session expires: 5, 0.5, 90s, 15m, 2h, never.",
)
@click.option(
    "--max-sessions",
    type=click.IntRange(min=1),
    default=100_000,
    show_default=True,
    metavar="N",
    help="Maximum number of live sessions; beyond it the longest idle one is expired.",
)
@click.option(
    "--script-timeout",
    type=ParsedText(parse_duration),
    default="never",
    show_default=True,
    metavar="DURATION",
    help="Interrupt a script that holds the server for this long, such as 30s.",
)
@click.option(
    "--session-store",
    type=ParsedText(_store),
    metavar="STORE",
    help=(
        "Keep sessions and the registry when the server stops: sqlite, sqlite:PATH, or "
        "redis://HOST. Default: they are kept in memory."
    ),
)
@click.option(
    "--max-body",
    type=ParsedText(parse_size),
    default="2G",
    show_default=True,
    metavar="SIZE",
    help="Maximum size of a request body, such as 500M.",
)
@click.option(
    "--reload/--no-reload",
    default=True,
    show_default=True,
    help="Refresh open pages when a file is saved.",
)
@click.option(
    "--inspector/--no-inspector",
    default=True,
    show_default=True,
    help="Show at /-/, on this machine, what the server is doing.",
)
@click.option(
    "--poll",
    is_flag=True,
    help=(
        "Poll for changes instead of using file system events (network drives, some containers)."
    ),
)
@click.option(
    "--phone",
    is_flag=True,
    help=(
        "Accept connections from the network, and print a QR code for a phone; /-/phone in your "
        "browser hands your session over."
    ),
)
@click.option(
    "--browser-log",
    is_flag=True,
    help="Print also what pages log in the browser (console.log and the like), not only errors.",
)
@click.option(
    "--tls",
    type=ParsedText(_tls),
    default="no",
    metavar="[CERT KEY]",
    help=(
        "Serve over https, with a certificate and key from two PEM files, or a self-signed one "
        "made for this run."
    ),
)
@click.option(
    "--production",
    is_flag=True,
    help="Serve visitors: no reload, no details of errors, /-/health and /-/ready, a drain.",
)
@click.option(
    "--drain",
    type=ParsedText(_drain),
    default="2s",
    show_default=True,
    metavar="DURATION",
    help="How long --production goes on serving after SIGTERM, with /-/ready saying 503.",
)
@click.option(
    "--behind-proxy",
    multiple=True,
    type=ParsedText(_proxy),
    metavar="NETWORK|unix",
    help=(
        "Believe the proxies of this network, or those on a Unix socket, who the client is. "
        "Repeatable."
    ),
)
@click.option(
    "--root-path",
    type=ParsedText(_root_path),
    default="",
    metavar="PATH",
    help="Serve the site below this path of its host, such as /app.",
)
@click.option(
    "--cookie-name",
    type=ParsedText(_cookie_name),
    metavar="NAME",
    help="Name of the session cookie. Default: rpyserve_ and the port.",
)
@click.option(
    "--send-file",
    type=ParsedText(_send_file),
    metavar="nginx:/LOCATION/|x-sendfile",
    help="Have the proxy send large files: by X-Accel-Redirect, or by X-Sendfile.",
)
@click.option(
    "--metrics",
    type=ParsedText(_metrics),
    metavar="PORT|SOCKET|/PATH",
    help="Figures for Prometheus, on a socket of their own (see --bind) or at a path of the site.",
)
@click.option(
    "--metrics-from",
    multiple=True,
    type=ParsedText(_network),
    metavar="NETWORK",
    help="Also show the metrics to clients of this network. Repeatable.",
)
@click.option(
    "--open",
    "open_browser",
    is_flag=True,
    envvar="RPYSERVE_OPEN",
    help="Open the site in the browser.",
)
@click.option(
    "--editor",
    type=ParsedText(_editor),
    metavar="NAME|URL",
    help=(
        "Editor for the links on error pages: vscode, pycharm, ..., none, or a URL with {path} "
        "and {line}."
    ),
)
@click.option(
    "--follow-symlinks", is_flag=True, help="Also serve symbolic links that lead out of the site."
)
@click.option(
    "--get", metavar="PATH", help="Print the response for one path, such as /counter, then exit."
)
@click.option(
    "-X", "--method", metavar="METHOD", default="", help="With --get: the method, such as DELETE."
)
@click.option(
    "-d", "--data", metavar="DATA", help="With --get: send this body, by POST unless -X says else."
)
@click.option(
    "-H",
    "--header",
    multiple=True,
    type=ParsedText(_header),
    metavar="LINE",
    help="With --get: send this header line, such as 'Accept: application/json'. Repeatable.",
)
@click.option(
    "--cookie-jar",
    type=click.Path(path_type=Path, dir_okay=False, resolve_path=True),
    metavar="FILE",
    help="With --get: send the cookies in FILE, and keep in it those that come.",
)
@click.option(
    "--check",
    is_flag=True,
    help="Check all scripts without running them, then exit.",
)
@click.option(
    "--format",
    type=click.Choice(["text", "json", "sarif", "github"]),
    default="text",
    show_default=True,
    help="With --check: how to print what is found; github is for GitHub Actions.",
)
@click.option(
    "--inspect",
    is_flag=False,
    flag_value="",
    metavar="[VIEW]",
    help=(
        "Print what the running server of SITE says of VIEW, such as timeline or edits.json, or "
        "have it do something, then exit."
    ),
)
@click.option(
    "--forget",
    is_flag=True,
    help="Empty what --session-store names, by default sqlite, then exit.",
)
@click.option(
    "--example",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Copy the sample site to DIR, then exit.",
)
@click.option(
    "--access-log",
    type=click.Choice(["short", "combined", "json"]),
    default="short",
    show_default=True,
    help=(
        "Format of the access log; combined is the format of Apache and nginx, json an object a "
        "line."
    ),
)
@click.option(
    "--log-file",
    type=click.Path(path_type=Path, resolve_path=True),
    metavar="FILE",
    help="Append what the console prints to FILE, too, with dates and without colours.",
)
@click.option("-q", "--quiet", is_flag=True, help="Print only the URL, warnings and errors.")
@click.option(
    "-v", "--verbose", is_flag=True, help="Print more; with --get, the status and headers."
)
@click.version_option(
    __version__, "-V", "--version", message="%(prog)s %(version)s", allow_from_autoenv=False
)
@click.help_option("-h", "--help", allow_from_autoenv=False)
def main(
    site: Path,
    port: int | None,
    example: Path | None,
    get: str | None,
    check: bool,
    inspect: str | None,
    forget: bool,
    **options: Any,
) -> None:
    """Serve the directory SITE: each .rpy script is a page, all other files are static.

    Save a Python file and it is a web page; edit it, and open pages refresh while every visitor
    keeps their session. A program for Twisted, SITE.py, is run, and its sites are served.
    """
    _check_combination(click.get_current_context(), options)
    if example is not None:
        _copy_example(example)
        return
    if site.suffix == ".py" and site.is_file():
        _run_program(site, get, options)
        return
    here = _here()
    directory = _enter(site)
    if inspect is not None:
        click.get_current_context().exit(_inspect(directory, inspect, port))
    if check:
        click.get_current_context().exit(_check(directory, here, options))
    if forget:
        _forget(directory, options["session_store"])
        return
    from rpyserve.serving import gc_tuning

    # Before the other imports, which make many objects and no garbage.
    with gc_tuning.tuned_gc():
        built = _build(directory, options)
        if get is not None:
            from rpyserve.serving import signals

            status = _print_one(built, get, options)
            signals.end_process(status)
            click.get_current_context().exit(status)
        _serve(built, directory, port, options)


# Options for the author of a site, by the names of their values.
_FOR_AUTHORS = {
    "trust": "--trust",
    "reload": "--reload",
    "inspector": "--inspector",
    "poll": "--poll",
    "open_browser": "--open",
    "editor": "--editor",
    "browser_log": "--browser-log",
    "phone": "--phone",
}


# What contradicts itself, by the values of options and the names of those that are given, and what
# is said then; the first that applies.
_CONTRADICTIONS: tuple[tuple[Callable[[dict[str, Any], set[str]], object], str], ...] = (
    (
        lambda values, given: values["bind"] and given & {"host", "port"},
        "--bind says where to listen: leave out --host and --port.",
    ),
    (
        lambda values, given: (
            values["root_path"] and (values["cookie_name"] or "").startswith("__Host-")
        ),
        "Browsers accept a cookie named __Host-... for a whole host only, not a root path.",
    ),
    (
        lambda values, given: values["phone"] and (values["bind"] or "host" in given),
        "--phone listens on the whole network: leave out --host and --bind.",
    ),
    (
        lambda values, given: values["send_file"] and not values["behind_proxy"],
        "--send-file needs --behind-proxy: only a known proxy is told to send a file.",
    ),
    (
        lambda values, given: values["metrics_from"] and values["metrics"] is None,
        "--metrics-from needs --metrics: a port, or a path of the site.",
    ),
    (
        lambda values, given: "drain" in given and not values["production"],
        "--drain is for --production: otherwise the server stops at once.",
    ),
    (
        lambda values, given: values["production"] and values["tls"] is True,
        "--production needs a certificate that browsers know: --tls CERT KEY.",
    ),
)

# Each does one thing, and exits.
_ACTIONS = {
    "get": "--get",
    "check": "--check",
    "inspect": "--inspect",
    "forget": "--forget",
    "example": "--example",
}


# Options that mean something with one of these only: the option, by the name of its value, and what
# it belongs to. A variable that says one for all commands is no mistake.
_ONLY_WITH = {
    "method": ("-X", "get"),
    "data": ("-d", "get"),
    "header": ("-H", "get"),
    "cookie_jar": ("--cookie-jar", "get"),
    "format": ("--format", "check"),
}


def _check_actions(context: click.Context) -> None:
    """Refuse two actions at once, and an option of an action that is not asked for.

    Raises:
        click.UsageError: there is such a thing.
    """
    typed = click.core.ParameterSource.COMMANDLINE
    given = {name for name in context.params if context.get_parameter_source(name) is typed}
    actions = [flag for name, flag in _ACTIONS.items() if name in given]
    if len(actions) > 1:
        raise click.UsageError(f"{' and '.join(actions)} cannot be done at once.", context)
    for name, (flag, action) in _ONLY_WITH.items():
        if name in given and not (action in given or context.params[action]):
            raise click.UsageError(f"{flag} is for {_ACTIONS[action]}.", context)


def _check_combination(context: click.Context, options: dict[str, Any]) -> None:
    """Refuse options that contradict each other.

    Raises:
        click.UsageError: they do.
    """
    _check_actions(context)
    default = click.core.ParameterSource.DEFAULT
    given = {name for name in context.params if context.get_parameter_source(name) is not default}
    for applies, why in _CONTRADICTIONS:
        if applies(options, given):
            raise click.UsageError(why, context)
    for name, flag in _FOR_AUTHORS.items() if options["production"] else ():
        if name in given and options[name]:
            raise click.UsageError(
                f"{flag} is for a site's author: leave it out with --production.", context
            )


def _here() -> str:
    try:
        return os.path.realpath(os.getcwd())
    except OSError:  # it has been removed
        return ""


def _enter(site: Path) -> Path:
    """Change into the site's directory: a script's ``open("words.txt")`` means the site's file."""
    try:
        directory = site.resolve(strict=True)
        os.listdir(directory)
        os.chdir(directory)
    except (OSError, RuntimeError) as exc:
        raise click.ClickException(_why_no_site(site, exc)) from None
    return directory


def _why_no_site(site: Path, exc: Exception) -> str:
    if isinstance(exc, FileNotFoundError):
        return (
            f"There is no directory {str(site)!r}. SITE is the directory that holds your .rpy "
            "files."
        )
    if isinstance(exc, NotADirectoryError):
        return f"{str(site)!r} is a file. SITE is the directory that holds it: {str(site.parent)!r}"
    return f"{str(site)!r} cannot be read: {getattr(exc, 'strerror', None) or exc}"


def _build(directory: Path, options: dict[str, Any]) -> Site:
    from rpyserve.files.directory import Directory
    from rpyserve.serving import console

    console.set_up(quiet=options["quiet"], verbose=options["verbose"])
    return _site(Directory(directory, follow_symlinks=options["follow_symlinks"]), options)


def _site(root: Any, options: dict[str, Any]) -> Site:
    """Make a site with *root*; a program may have made it itself."""
    from rpyserve.site import Site

    if isinstance(root, Site):
        return _configured(root, options)
    timeout, most = options["session_timeout"], options["max_sessions"]
    site = Site(root, sessionTimeout=timeout, maxSessions=most)
    return _configured(site, options)


def _configured(site: Site, options: dict[str, Any]) -> Site:
    from rpyserve.http.hosts import TrustedClients

    site.trusts = TrustedClients(options["trust"])
    site.editor = options["editor"]
    site.cookieName = options["cookie_name"] or ""
    if options["production"]:
        site.production = True
        site.trusts = lambda request: False
    return site


def _serve(site: Site, directory: Path, port: int | None, options: dict[str, Any]) -> None:
    from rpyserve.serving import console_writer, signals
    from rpyserve.serving.listen import CannotServe
    from rpyserve.serving.run import run_with

    claim = _claim(directory, any_port=port is None and not _binds(options, port))
    try:
        _open_log(options["log_file"], directory)
        if options["session_store"] is not None:
            _keep_sessions(site, directory, options["session_store"])
        run_with(site, _settings(str(directory), port, options, claim), is_program=False)
    except (CannotServe, click.ClickException) as exc:
        console_writer.log_line(f"Error: {exc}")
        raise click.ClickException(str(exc)) from None
    finally:
        if claim is not None:
            claim.release()
    signals.end_process()


def _claim(directory: Path, *, any_port: bool) -> Claim | None:
    """Take note that the site is served; None if others serve it too, or nobody can know.

    Args:
        any_port: whether nobody has said where to listen. The process then ends if a server of the
            site is running already.
    """
    from rpyserve.serving import run_file

    found = run_file.claim(directory, further=not any_port, tell=_warn)
    if not isinstance(found, run_file.Running):
        return found
    if any_port:
        if found.url:
            click.echo(found.url)
        where = f"at {found.url}" if found.url else "somewhere"
        click.echo(
            f"This site is already running {where}, pid {found.pid}, since {found.since}. "
            "To start another server for it, say --port; 0 takes any free one.",
            err=True,
        )
        click.get_current_context().exit(ALREADY_RUNNING)
    return None


def _warn(line: str) -> None:
    click.echo(line, err=True)


def _inspect(directory: Path, view: str, port: int | None) -> int:
    """Print a view of the running server of *directory*, or have it act; see `inspector.command`.

    Args:
        port: which server, if several serve the site.
    """
    from rpyserve.inspector import command
    from rpyserve.serving import run_file

    try:
        target = command.target_of(view)
    except ValueError as exc:
        raise click.UsageError(f"--inspect: {exc}") from None
    try:
        found = run_file.find(directory)
        server = command.choose(found, port, directory)
        return command.show(server.url, server.token, target)
    except (run_file.Unusable, command.CannotInspect) as exc:
        raise click.ClickException(str(exc)) from None


def _settings(
    title: str, port: int | None, options: dict[str, Any], claim: Claim | None = None
) -> Settings:
    import secrets

    from rpyserve.protocol.server_state import Limits
    from rpyserve.serving.listen import Settings
    from rpyserve.util import file_limits

    if options["metrics"] is not None:
        _require_prometheus()
    file_limits.raise_limit()
    token = secrets.token_urlsafe(24)
    return Settings(
        host="0.0.0.0" if options["phone"] else options["host"],
        phone=options["phone"],
        port=8080 if port is None else port,
        next_free=port is None,
        allowed_hosts=options["allowed_host"],
        limits=Limits(body=options["max_body"]),
        title=title,
        quiet=options["quiet"],
        verbose=options["verbose"],
        access_log=options["access_log"],
        send_file=options["send_file"],
        metrics=options["metrics"],
        metrics_from=options["metrics_from"],
        script_timeout=options["script_timeout"],
        reload=options["reload"] and not options["production"],
        inspector=options["inspector"] and not options["production"],
        production=options["production"],
        drain=options["drain"] if options["production"] else 0,
        proxies=_proxies(options["behind_proxy"]),
        root_path=options["root_path"],
        binds=_binds(options, port),
        poll=options["poll"],
        browser_log=options["browser_log"],
        tls=_certificate(options["tls"]),
        token=token,
        on_ready=partial(_tell, claim, token=token, open_browser=options["open_browser"]),
        for_good=True,
    )


def _open_log(path: Path | None, directory: Path | None = None) -> None:
    """Have the console's lines in the file at *path* too; it must be none of the site's files."""
    if path is None:
        return
    from rpyserve.serving import console_writer

    if directory is not None and _is_of_site(path, directory):
        raise click.ClickException(
            f"The log file {path.name!r} would be a file of the site, which visitors may get: "
            "choose a name that ends in .log, or another directory."
        )
    try:
        console_writer.open_log(str(path))
    except OSError as exc:
        why = exc.strerror or exc
        raise click.ClickException(
            f"The log file {str(path)!r} cannot be written: {why}."
        ) from None


def _is_of_site(path: Path, directory: Path) -> bool:
    from rpyserve.files.path_rules import is_inside
    from rpyserve.livereload.changes import FileKind, Mounts

    if not is_inside(str(directory), str(path)):
        return False
    return Mounts([(str(directory), "/")]).kind_of(str(path)) is not FileKind.IGNORED


# Options for a directory, by the names of their values: a program says such things itself.
_FOR_DIRECTORIES = {
    "port": "--port",
    "bind": "--bind",
    "phone": "--phone",
    "check": "--check",
    "inspect": "--inspect",
    "forget": "--forget",
    "session_store": "--session-store",
    "follow_symlinks": "--follow-symlinks",
}


def _run_program(path: Path, get: str | None, options: dict[str, Any]) -> None:
    """Run the program at *path*, and serve the sites that it listens with."""
    from dataclasses import replace

    from rpyserve.serving import console, signals
    from rpyserve.serving.run import ProgramServer, has_run
    from rpyserve.twisted.program import Program, execute

    context = click.get_current_context()
    for name, flag in _FOR_DIRECTORIES.items():
        if context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE:
            raise click.UsageError(f"{flag} is for a directory: leave it out with a program.")
    console.set_up(quiet=options["quiet"], verbose=options["verbose"])
    if get is None:
        _open_log(options["log_file"])
    settings = replace(_settings(path.name, None, options), for_good=False)
    source = context.get_parameter_source("session_timeout")
    if source is click.core.ParameterSource.DEFAULT:
        options["session_timeout"] = None  # the program's own classes say it
    print_one = None if get is None else partial(_print_one, path=get, options=options)
    server = ProgramServer(settings, partial(_site, options=options), print_one)
    program = Program(path, server)
    try:
        execute(program)
    except click.ClickException:
        raise
    except Exception as exc:
        _report_failure(program, exc)
        server.status = 1
    else:
        if not (program.has_run or has_run()):
            raise click.ClickException(_why_not_served(program))
    signals.end_process(server.status)
    context.exit(server.status)


def _report_failure(program: Program, exc: Exception) -> None:
    why = getattr(exc, "socketError", None)  # of Twisted's CannotListenError
    if isinstance(why, OSError):
        where = getattr(exc, "interface", ""), getattr(exc, "port", 0)
        click.echo(f"Error: {program.server.explain(why, *where)}", err=True)
        return
    from rpyserve.diagnostics.reporter import ConsoleReporter

    ConsoleReporter().report_exception(program.path.name, exc)


def _why_not_served(program: Program) -> str:
    name = program.path.name
    if program.has_listened:
        return f"{name} listens, but has ended without reactor.run(), so nothing was served."
    return (
        f"{name} has ended without listening: a program calls reactor.listenTCP(8080, site), and "
        "reactor.run() at its end. Pages, which end in .rpy, are served by: rpyserve DIRECTORY"
    )


def _keep_sessions(site: Site, directory: Path, address: Any) -> None:
    from rpyserve.stores import opening

    try:
        site.persistence = opening.persistence_of(site, address, directory)
    except opening.StoreError as exc:
        raise click.ClickException(str(exc)) from None


def _forget(directory: Path, address: Any) -> None:
    """Empty the store at *address*, or the usual file of SQLite."""
    import trio

    from rpyserve.stores import opening

    try:
        store = opening.open_store(address or opening.SQLiteAddress(), directory)
        count = trio.run(store.clear)
    except opening.StoreError as exc:
        raise click.ClickException(str(exc)) from None
    many = f"{count:,} session{'' if count == 1 else 's'}"
    click.echo(f"{store.name} is empty now: {many} and the registry are forgotten.", err=True)


def _require_prometheus() -> None:
    from rpyserve.production import metrics

    try:
        metrics.require_prometheus()
    except metrics.NoMetrics as exc:
        raise click.ClickException(str(exc)) from None


def _proxies(networks: tuple[Any, ...]) -> Any:
    if not networks:
        return None
    from rpyserve.production.forwarded import TrustedProxies

    return TrustedProxies(tuple(filter(None, networks)), None in networks)


def _binds(options: dict[str, Any], port: int | None) -> tuple[Any, ...]:
    """Where to listen instead of a host and a port: systemd may have opened sockets for us."""
    given = click.get_current_context().get_parameter_source("host")
    is_open = options["bind"] or port is not None or "LISTEN_FDS" not in os.environ
    if is_open or given is not click.core.ParameterSource.DEFAULT:
        return tuple(options["bind"])
    from rpyserve.production import sockets

    return (sockets.Systemd(),) if sockets.are_passed_to_us() else ()


def _certificate(wanted: tuple[Path, Path] | bool) -> Any:
    """What makes the context for https; None for http."""
    if not wanted:
        return None
    from rpyserve.serving import tls

    try:
        if isinstance(wanted, bool):
            tls.require_trustme()
            click.echo(tls.SELF_SIGNED_NOTICE, err=True)
            return tls.self_signed
        context = tls.from_files(*wanted)
    except tls.NoCertificate as exc:
        raise click.ClickException(str(exc)) from None
    return lambda names: context


def _tell(claim: Claim | None, url: str, *, token: str, open_browser: bool) -> None:
    """Tell others where the site is: servers that would be the second, and the browser.

    Args:
        token: what those must know who want something done there.
    """
    if claim is not None:
        claim.publish(url, token)
    if not open_browser:
        return
    import threading
    import webbrowser

    threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()


def _print_one(site: Site, path: str, options: dict[str, Any]) -> int:
    from rpyserve.serving import one_shot

    asked = one_shot.Options(
        options["method"], options["data"], options["header"], options["cookie_jar"]
    )
    try:
        return one_shot.print_response(site, path, asked, verbose=options["verbose"])
    except one_shot.BadCookieFile as exc:
        raise click.ClickException(str(exc)) from None


def _check(directory: Path, here: str, options: dict[str, Any]) -> int:
    """Print the findings, with paths relative to *here*; return 1 if there are faults, else 0."""
    from rpyserve.check import checker
    from rpyserve.files.safe_open import resolved
    from rpyserve.serving import console

    console.set_up(quiet=options["quiet"], verbose=options["verbose"])
    report = checker.check(resolved(directory), follow_symlinks=options["follow_symlinks"])
    if options["format"] == "text":
        for line in report.lines(here):
            print(line)
    elif told := getattr(report, f"as_{options['format']}")(here):
        print(told)
    if report.findings or not options["quiet"]:
        console.print_line(report.summary())
    return int(report.fault_count > 0)


def _copy_example(target: Path) -> None:
    """Copy the sample site to the directory *target*, which must be empty or not there yet."""
    import shutil

    source = Path(__file__).resolve().parent / "sample_site"
    if not source.is_dir():
        source = source.parent.parent / "sample_site"  # this is not an installation
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise click.ClickException(
            f"{str(target)!r} is there already, and not an empty directory: choose another DIR."
        )
    without = shutil.ignore_patterns("__pycache__", "*.pyc")
    try:
        shutil.copytree(source, target, dirs_exist_ok=True, ignore=without)
    except OSError as exc:
        raise click.ClickException(
            f"{str(target)!r} cannot be written: {exc.strerror or exc}"
        ) from None
    click.echo(f"The sample site is in {target}. Serve it with:  rpyserve {target}", err=True)
