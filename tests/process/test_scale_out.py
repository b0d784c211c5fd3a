"""The example of several workers, played: started, visited, killed and restarted; and its files."""

from __future__ import annotations

import argparse
import http.client
import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
import pytest

from rpyserve.cli import main

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(os.name == "nt", reason="Unix sockets"),
]

ROOT = Path(__file__).parent.parent.parent
EXAMPLE = ROOT / "examples" / "scale-out"
PATH = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"


def needs(program: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(program, path=PATH) is None, reason=program)


def play(*options: str) -> str:
    """What the script prints; it must say that nothing was lost."""
    pytest.importorskip("hiredis")
    pytest.importorskip("prometheus_client")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PATH": PATH}
    done = subprocess.run(
        [sys.executable, EXAMPLE / "run.py", "--pause", "0.5", "--visitors", "10", *options],
        capture_output=True,
        text=True,
        env=environment,
        timeout=400,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Nothing was lost" in done.stdout
    assert re.search(r"It took \d+\.\d seconds", done.stdout)
    return done.stdout


def statuses(printed: str) -> dict[str, int]:
    """How many answers had which status, in the last summary."""
    summary = re.findall(r"s  ([^;\n]* x [^;\n]*); \d+ processes", printed)[-1]
    return {kind: int(n) for n, kind in re.findall(r"(\d+) x ([^,]+)", summary)}


@needs("haproxy")
@needs("redis-server")
def test_restarts_behind_haproxy_are_seen_by_nobody() -> None:
    found = statuses(play("--kills", "0", "--rolls", "2"))
    assert found.keys() == {"200"} and found["200"] > 500


@needs("haproxy")
@needs("redis-server")
def test_a_killed_worker_loses_nothing() -> None:
    found = statuses(play("--kills", "2", "--rolls", "0"))
    assert found["200"] > 100
    assert found.keys() <= {"200", "502", "503", "without an answer"}


@needs("nginx")
@needs("redis-server")
def test_behind_nginx() -> None:
    assert statuses(play("--proxy", "nginx"))["200"] > 100


@needs("redis-server")
@pytest.mark.parametrize("proxy", ["haproxy", "nginx"])
def test_what_visitors_say_of_themselves_does_not_reach_the_workers(
    proxy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("hiredis")
    pytest.importorskip("prometheus_client")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("PATH", PATH)
    if shutil.which(proxy, path=PATH) is None:
        pytest.skip(proxy)
    (tmp_path / "who.rpy").write_text(
        "def resource(request):\n"
        "    names = [n.decode() for n, _ in request.raw_headers if b'forwarded' in n]\n"
        "    return {'client': request.client[0], 'url': request.url, 'id': request.id, 'names': names}\n"
    )
    spec = importlib.util.spec_from_file_location("scale_out", EXAMPLE / "run.py")
    assert spec is not None and spec.loader is not None
    run: Any = importlib.util.module_from_spec(spec)
    sys.modules["scale_out"] = run
    spec.loader.exec_module(run)
    arguments = argparse.Namespace(proxy=proxy, site=tmp_path)
    with TemporaryDirectory(prefix="rpy") as name, ExitStack() as closing:
        cluster = run.Cluster(Path(name), arguments, closing)
        cluster.start()
        connection = http.client.HTTPConnection("127.0.0.1", cluster.port, timeout=10)
        said = {
            "Host": "example.com", "X-Forwarded-For": "192.0.2.9", "Forwarded": "for=192.0.2.9;host=evil",
            "X-Forwarded-Host": "evil.example", "X-Forwarded-Proto": "https", "X-Forwarded-Prefix": "/evil",
            "x-forwarded-port": "1", "X-Request-ID": "mine",
        }  # fmt: skip
        connection.request("GET", "/who", headers=said)
        found = json.loads(connection.getresponse().read())
        connection.close()
    assert (found["client"], found["url"]) == ("127.0.0.1", "http://example.com/who")
    assert sorted(found["names"]) == ["x-forwarded-for", "x-forwarded-proto"]
    assert found["id"] != "mine"


# The files


@needs("haproxy")
@pytest.mark.parametrize("variables", [{}, {"RUN": "/tmp", "LISTEN": "127.0.0.1:1"}])
def test_haproxy_takes_its_configuration(variables: dict[str, str]) -> None:
    done = subprocess.run(
        ["haproxy", "-c", "-f", EXAMPLE / "haproxy.cfg"],
        capture_output=True,
        text=True,
        env={**os.environ, "PATH": PATH, **variables},
    )
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr


@needs("systemd-analyze")
def test_systemd_takes_the_units(tmp_path: Path) -> None:
    command = tmp_path / "rpyserve"
    command.write_text("#!/bin/sh\n")
    command.chmod(0o755)
    unit = (EXAMPLE / "rpyserve@.service").read_text()
    unit = unit.replace("/opt/rpyserve/bin/rpyserve", str(command))
    (tmp_path / "rpyserve@.service").write_text(unit)
    (tmp_path / "rpyserve@1.service").write_text(unit)
    shutil.copy(EXAMPLE / "rpyserve.target", tmp_path)
    done = subprocess.run(
        [
            "systemd-analyze",
            "verify",
            tmp_path / "rpyserve@1.service",
            tmp_path / "rpyserve.target",
        ],
        capture_output=True,
        text=True,
        env={**os.environ, "SYSTEMD_UNIT_PATH": f"{tmp_path}:"},
    )
    ours = [line for line in done.stderr.splitlines() if "rpyserve" in line]
    assert not ours, done.stderr


def test_the_command_of_the_unit_is_one_of_ours() -> None:
    unit = (EXAMPLE / "rpyserve@.service").read_text().replace("\\\n", " ").replace("%i", "1")
    found = re.search(r"^ExecStart=\S+ (.*)$", unit, re.MULTILINE)
    assert found is not None
    options = shlex.split(found[1])
    parsed = main.make_context("rpyserve", options).params
    assert parsed["production"] and "127.0.0.1" in repr(parsed["session_store"])
    assert [str(bind) for bind in parsed["bind"]] == ["unix:/run/rpyserve/1.sock"]


def test_the_variables_of_the_compose_file_are_ours() -> None:
    yaml = pytest.importorskip("yaml")
    services = yaml.safe_load((EXAMPLE / "compose.yaml").read_text())["services"]
    known = {f"RPYSERVE_{param.name or ''}".upper() for param in main.params}
    known |= {param.envvar for param in main.params if isinstance(param.envvar, str)}
    workers = {name: each for name, each in services.items() if name.startswith("worker")}
    assert len(workers) == 4
    for name, each in workers.items():
        assert set(each["environment"]) <= known | {"RPYSERVE_SECRET_FILE"}, name
        context = main.make_context("rpyserve", shlex.split(each["command"])[1:])
        assert isinstance(context, click.Context)
        assert str(context.params["bind"][0]).endswith(f"/{name[-1]}.sock")
    mounted = (EXAMPLE / "haproxy.cfg").read_text()
    assert all(f"/{number}.sock" in mounted for number in range(1, 5))
