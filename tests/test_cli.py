"""The command line: what it takes, what it refuses, and what it costs to ask for help."""

from __future__ import annotations

import errno
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from rpyserve import __version__, cli


def invoke(*arguments: str, **environment: str) -> Result:
    return CliRunner(env=environment).invoke(cli.main, arguments, prog_name="rpyserve")


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Any]:
    """What would be served, and how, instead of serving it."""
    found: dict[str, Any] = {}

    def build(directory: Path, options: dict[str, Any]) -> None:
        found.update(options, directory=directory)

    def serve(site: None, directory: Path, port: int | None, options: dict[str, Any]) -> None:
        found["port"] = port

    monkeypatch.setattr(cli, "_build", build)
    monkeypatch.setattr(cli, "_serve", serve)
    monkeypatch.chdir(tmp_path)
    return found


def test_the_defaults(parsed: dict[str, Any], tmp_path: Path) -> None:
    assert invoke().exit_code == 0
    assert parsed == {
        "directory": tmp_path.resolve(), "port": None, "host": "127.0.0.1", "allowed_host": (), "trust": (),
        "session_timeout": 900, "max_sessions": 100_000, "max_body": 2 * 2**30, "open_browser": False, "editor": None,
        "follow_symlinks": False, "quiet": False, "verbose": False, "access_log": "short", "reload": True,
        "poll": False, "inspector": True, "browser_log": False, "phone": False, "tls": False, "production": False, "session_store": None, "drain": 2, "behind_proxy": (), "root_path": "",
        "cookie_name": None, "bind": (), "script_timeout": math.inf, "format": "text", "method": "", "data": None, "header": (), "cookie_jar": None, "log_file": None, "send_file": None, "metrics": None, "metrics_from": (),
    }  # fmt: skip


def test_all_options(parsed: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    result = invoke(
        "site", "-p", "0", "--host", "0.0.0.0", "--allowed-host", "a.example", "--allowed-host", "b.example", "--trust",
        "172.17.0.0/16", "--trust", "10.0.0.1", "--session-timeout", "0.5", "--max-sessions", "7", "--max-body", "500M",
        "--open", "--follow-symlinks", "--no-reload", "--poll", "--browser-log", "-q", "-v", "--editor", "pycharm",
        "--script-timeout", "30s",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert parsed["directory"] == (tmp_path / "site").resolve()
    assert parsed["port"] == 0
    assert parsed["allowed_host"] == ("a.example", "b.example")
    assert [str(network) for network in parsed["trust"]] == ["172.17.0.0/16", "10.0.0.1/32"]
    assert parsed["session_timeout"] == 0.5
    assert parsed["max_sessions"] == 7
    assert parsed["script_timeout"] == 30
    assert parsed["max_body"] == 500 * 2**20
    assert parsed["editor"].link("/a.rpy", 3) == "pycharm://open?file=/a.rpy&line=3&column=1"
    for flag in ("open_browser", "follow_symlinks", "quiet", "verbose", "poll", "browser_log"):
        assert parsed[flag]
    assert not parsed["reload"]


def test_the_options_of_production(parsed: dict[str, Any], tmp_path: Path) -> None:
    result = invoke(
        "--production", "--no-reload", "--drain", "0", "--behind-proxy", "10.0.0.0/8", "--behind-proxy", "unix",
        "--root-path", "/app/", "--cookie-name", "visit", "--bind", "unix:a.sock,mode=660", "--bind", "[::1]:80",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert parsed["drain"] == 0
    assert [str(each) for each in parsed["behind_proxy"]] == ["10.0.0.0/8", "None"]
    assert parsed["root_path"] == "/app"
    assert [str(each) for each in parsed["bind"]] == [f"unix:{tmp_path}/a.sock", "[::1]:80"]
    assert parsed["bind"][0].mode == 0o660


def test_the_environment_comes_after_the_options(parsed: dict[str, Any]) -> None:
    variables = {
        "RPYSERVE_PORT": "9000", "RPYSERVE_SESSION_TIMEOUT": "never", "RPYSERVE_ALLOWED_HOST": "a b",
        "RPYSERVE_QUIET": "1",
    }  # fmt: skip
    assert invoke("--session-timeout", "5", **variables).exit_code == 0
    assert (parsed["port"], parsed["session_timeout"], parsed["allowed_host"]) == (
        9000,
        5,
        ("a", "b"),
    )
    assert parsed["quiet"]


def test_the_command_changes_into_the_site(parsed: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    invoke("site")
    assert Path.cwd() == (tmp_path / "site").resolve()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--port", "65536"], "0<=x<=65535"),
        (["--port", "-1"], "0<=x<=65535"),
        (["--port", "http"], "'http' is not a valid integer"),
        (["--session-timeout", "5x"], "15m"),
        (["--session-timeout", "0"], "longer than 0"),
        (["--max-sessions", "0"], "x>=1"),
        (["--max-sessions", "many"], "'many' is not a valid integer"),
        (["--max-body", "much"], "500M"),
        (["--trust", "10.0.0.1/8"], "has host bits set"),
        (["--trust", "docker"], "172.17.0.0/16"),
        (["--editor", "notepad"], "vscode, "),
        (["--editor", "javascript:{path}"], "does not open an editor"),
        (["--production", "--trust", "10.0.0.0/8"], "--trust is for a site's author"),
        (["--production", "--reload"], "--reload is for a site's author"),
        (["--production", "--poll"], "--poll is for a site's author"),
        (["--production", "--open"], "--open is for a site's author"),
        (["--production", "--browser-log"], "--browser-log is for a site's author"),
        (["--production", "--editor", "vscode"], "--editor is for a site's author"),
        (["--production", "--phone"], "--phone is for a site's author"),
        (["--phone", "--host", "::1"], "leave out --host and --bind"),
        (["--phone", "--bind", "fd:3"], "leave out --host and --bind"),
        (["--production", "--tls"], "--tls CERT KEY"),
        (["--drain", "1s"], "--drain is for --production"),
        (["--production", "--drain", "never"], "is too long"),
        (["--production", "--drain", "soon"], "is not a duration"),
        (["--behind-proxy", "haproxy"], "172.17.0.0/16"),
        (["--behind-proxy", "10.0.0.1/8"], "has host bits set"),
        (["--root-path", "app"], "does not begin with a slash"),
        (["--root-path", "/a/../b"], "is not a path such as /app"),
        (["--root-path", "/%2e%2e/b"], "is not a path such as /app"),
        (["--root-path", "//example.com"], "is not a path such as /app"),
        (["--root-path", "/a;b"], "is not a path such as /app"),
        (["--cookie-name", "a b"], "is not a name for a cookie"),
        (["--cookie-name", "__Host-s", "--root-path", "/app"], "for a whole host only"),
        (["--send-file", "nginx:/internal/"], "--send-file needs --behind-proxy"),
        (["--send-file", "nginx:internal", "--behind-proxy", "unix"], "use nginx:/internal/"),
        (["--send-file", "nginx://a/", "--behind-proxy", "unix"], "use nginx:/internal/"),
        (["--send-file", "apache", "--behind-proxy", "unix"], "or x-sendfile"),
        (["--metrics", "/a b"], "is not a path such as /metrics"),
        (["--metrics", "70000"], "70000 is not a port"),
        (["--metrics", "here"], "use unix:PATH"),
        (["--metrics-from", "10.0.0.0/8"], "--metrics-from needs --metrics"),
        (["--access-log", "xml"], "'short', 'combined', 'json'"),
        (["--bind", "nowhere"], "use unix:PATH"),
        (["--bind", "127.0.0.1:65536"], "65536 is not a port"),
        (["--bind", "fd:x"], "use unix:PATH"),
        (["--bind", "unix:" + "a" * 200], "bytes; the path of a socket may have"),
        (["--bind", "fd:3", "--port", "80"], "leave out --host and --port"),
        (["--bind", "fd:3", "--host", "::"], "leave out --host and --port"),
        (["-X", "DELETE"], "-X is for --get."),
        (["--data", ""], "-d is for --get."),
        (["-H", "Accept: */*"], "-H is for --get."),
        (["--cookie-jar", "jar"], "--cookie-jar is for --get."),
        (["--check", "-d", "a=1"], "-d is for --get."),
        (["--format", "json"], "--format is for --check."),
        (["--format", "text"], "--format is for --check."),
        (["--get", "/", "--format", "json"], "--format is for --check."),
        (["--get", "/", "--check"], "--get and --check cannot be done at once."),
        (["--check", "--forget"], "--check and --forget cannot be done at once."),
        (["--example", "tour", "--get", "/"], "--get and --example cannot be done at once."),
        (["--example", "tour", "--format", "json"], "--format is for --check."),
        (["--prot", "1"], "--port"),
        (["one", "two"], "unexpected extra argument"),
    ],
)
def test_bad_usage(parsed: dict[str, Any], arguments: list[str], words: str) -> None:
    result = invoke(*arguments)
    assert result.exit_code == 2
    assert words in result.stderr
    assert result.stdout == ""
    assert parsed == {}


def test_a_variable_for_an_action_that_is_not_asked_for(parsed: dict[str, Any]) -> None:
    assert invoke(RPYSERVE_FORMAT="json", RPYSERVE_COOKIE_JAR="jar").exit_code == 0
    assert parsed["format"] == "json"


def test_a_variable_may_ask_for_the_action(parsed: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "a.rpy").write_text("resource = 1")
    result = invoke("--format", "json", RPYSERVE_CHECK="1")
    assert (result.exit_code, result.stdout[:1]) == (1, "{")


def test_a_bad_variable_is_named_with_its_option(parsed: dict[str, Any]) -> None:
    result = invoke(RPYSERVE_SESSION_TIMEOUT="soon")
    assert result.exit_code == 2
    assert "--session-timeout" in result.stderr
    assert "soon" in result.stderr


def test_a_missing_site(parsed: dict[str, Any]) -> None:
    result = invoke("nowhere")
    assert result.exit_code == 1
    assert (
        result.stderr
        == "Error: There is no directory 'nowhere'. SITE is the directory that holds your .rpy "
        "files.\n"
    )


def test_a_site_that_is_a_file(parsed: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "hello.rpy").write_text("")
    result = invoke("hello.rpy")
    assert result.exit_code == 1
    assert "is a file" in result.stderr
    assert "'.'" in result.stderr


def test_an_unreadable_site(
    parsed: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "locked").mkdir()

    def listdir(path: object) -> list[str]:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(os, "listdir", listdir)  # and no chmod: root reads everything
    result = invoke("locked")
    assert result.exit_code == 1
    assert "cannot be read: Permission denied" in result.stderr


def test_a_site_in_a_loop_of_links(parsed: dict[str, Any], tmp_path: Path) -> None:
    try:
        (tmp_path / "loop").symlink_to("loop")
    except OSError:
        pytest.skip("no symbolic links here")
    result = invoke("loop")
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1


def test_version() -> None:
    for flag in ("-V", "--version"):
        assert invoke(flag, RPYSERVE_VERSION="7").output == f"rpyserve {__version__}\n"


def test_a_variable_that_others_set_is_no_wish_for_the_version(parsed: dict[str, Any]) -> None:
    assert invoke(RPYSERVE_VERSION="1", RPYSERVE_HELP="1").output == ""
    assert parsed["port"] is None


def test_help_names_every_option() -> None:
    output = invoke("-h").output
    assert output == invoke("--help").output
    for option in cli.main.params:
        if isinstance(option, click.Option):
            assert all(name in output for name in option.opts)
            assert option.help
    assert "RPYSERVE_" in output


@pytest.mark.parametrize("flag", ["--help", "-V"])
def test_help_costs_next_to_nothing(flag: str) -> None:
    code = (
        "import sys\nfrom rpyserve.cli import main\ntry:\n    main([sys.argv[1]])\nfinally:\n"
        "    print(*{name.partition('.')[0] for name in sys.modules}, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, flag], capture_output=True, text=True, check=True
    )
    assert done.stdout
    assert not {"trio", "h11", "watchfiles", "zope", "markupsafe", "asyncio"} & set(
        done.stderr.split()
    )


def test_the_example_is_copied(tmp_path: Path) -> None:
    target = tmp_path / "new" / "site"
    result = invoke("--example", str(target))
    assert result.exit_code == 0, result.output
    assert (target / "index.rpy").is_file()
    assert not list(target.rglob("__pycache__"))
    assert f"rpyserve {target}" in result.stderr
    assert result.stdout == ""


def test_the_example_goes_into_an_empty_directory(tmp_path: Path) -> None:
    assert invoke("--example", str(tmp_path)).exit_code == 0
    assert (tmp_path / "index.rpy").is_file()


def test_the_example_overwrites_nothing(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    for target in (tmp_path, tmp_path / "mine.txt"):
        result = invoke("--example", str(target))
        assert result.exit_code == 1
        assert "not an empty directory" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    assert (tmp_path / "mine.txt").read_text() == "mine"


def test_the_example_where_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = invoke("--example", str(tmp_path / "file" / "site"))
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1


# --env-file


def test_an_env_file_sets_variables_and_options(
    tmp_path: Path, parsed: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".env").write_text(
        "# settings\nexport MAIL_KEY='a b'\nMAIL_HOST=mine\nRPYSERVE_PORT=9000\n"
    )
    monkeypatch.setattr(os, "environ", {**os.environ, "MAIL_HOST": "theirs"})
    assert invoke("--env-file", ".env").output == ""
    assert (os.environ["MAIL_KEY"], os.environ["MAIL_HOST"]) == ("a b", "theirs")
    assert parsed["port"] == 9000


def test_an_env_file_that_is_none(tmp_path: Path, parsed: dict[str, Any]) -> None:
    result = invoke("--env-file", "none.env")
    assert result.exit_code == 2 and "'none.env' does not exist" in result.output
    (tmp_path / "binary").write_bytes(b"A=\xff\xfe")
    result = invoke("--env-file", "binary")
    assert result.exit_code == 2 and "cannot be read" in result.output


def test_an_env_file_without_the_library(
    tmp_path: Path, parsed: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".env").write_text("A=1\n")
    monkeypatch.setitem(sys.modules, "dotenv", None)
    result = invoke("--env-file", ".env")
    assert result.exit_code == 1 and "needs python-dotenv: " in result.output
