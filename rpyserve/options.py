"""What the values of command-line options may be, and how ``--tls`` takes none, or two.

Each is made of a text by a function whose ValueError is written to be shown. Nothing here knows what the values
are for, nor imports what would keep ``--help`` waiting.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from rpyserve.util import durations

__all__ = ["COUNT", "DURATION", "EDITOR", "NETWORK", "PORT", "SIZE", "TLS", "Command"]


class Text(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.4 only
    """A value that a function makes of a text, or refuses with a ValueError made to be shown."""

    def __init__(self, name: str, parse: Any) -> None:
        self.name = name
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
        raise ValueError(f"{exc}: write an address or a network, such as 172.17.0.0/16") from None


def _port(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and int(text) <= 65535):
        raise ValueError(f"{text!r} is no port: write a number from 0 to 65535")
    return int(text)


def _count(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 12 and int(text) > 0):
        raise ValueError(f"{text!r} is no number of sessions: write 1 or more, such as 100000")
    return int(text)


def _editor(text: str) -> Any:
    from rpyserve.diagnostics import editor

    return editor.parse_editor(text)


PORT = Text("port", _port)
COUNT = Text("number", _count)
DURATION = Text("duration", durations.parse_duration)
SIZE = Text("size", durations.parse_size)
NETWORK = Text("network", _network)
EDITOR = Text("editor", _editor)


def _tls(text: str) -> tuple[Path, Path] | bool:
    """What ``--tls`` says: whether to make a certificate, or the files of one and of its key."""
    if text.lower() in ("1", "yes", "true", "on"):
        return True
    if text.lower() in ("", "0", "no", "false", "off"):
        return False
    files = text.split(os.pathsep) if os.pathsep in text else text.split()
    if len(files) != 2:
        raise ValueError(f"{text!r} is not two files: write --tls CERT KEY, or --tls alone")
    return Path(files[0]).resolve(), Path(files[1]).resolve()


class Command(click.Command):
    """One whose option ``--tls`` may be followed by two files, or by none."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Write the files after ``--tls`` as its value."""
        if "--tls" in args:
            index = args.index("--tls")
            files = [arg for arg in args[index + 1 : index + 3] if _is_certificate(arg)]
            value = os.pathsep.join(files) or "yes"
            args = [*args[:index], f"--tls={value}", *args[index + 1 + len(files) :]]
        return super().parse_args(ctx, args)


def _is_certificate(arg: str) -> bool:
    return os.path.isfile(arg) or arg.lower().endswith((".pem", ".crt", ".cer", ".key"))


TLS = Text("tls", _tls)
