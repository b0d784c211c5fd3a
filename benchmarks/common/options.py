"""The options that several benchmarks have."""

from __future__ import annotations

from argparse import ArgumentParser, RawDescriptionHelpFormatter
from pathlib import Path


def option_parser(doc: str | None) -> ArgumentParser:
    """Return a parser whose help begins with *doc*, the module's docstring."""
    return ArgumentParser(description=doc, formatter_class=RawDescriptionHelpFormatter)


def add_environment(parser: ArgumentParser) -> None:
    """Add ``--environment``; without it, a temporary one is to be used."""
    parser.add_argument(
        "--environment",
        type=Path,
        help="where other servers are, or will be, installed (a temporary directory)",
    )


def add_write(parser: ArgumentParser, document: Path) -> None:
    """Add ``--write``, with *document* as its default."""
    parser.add_argument(
        "--write",
        type=Path,
        default=document,
        metavar="FILE",
        help=f"the document to write ({document.name})",
    )
