"""The sample site, copied for ``--example``: it lies in the package, or, in a checkout, beside it."""

from __future__ import annotations

import shutil
from pathlib import Path

__all__ = ["copy_example"]


def copy_example(target: Path) -> None:
    """Copy the sample site to the directory *target*, which must be empty or not there yet.

    Raises:
        OSError: it cannot be written.
        ValueError: something is there already, or this installation has no sample site; the text is made to be shown.
    """
    package = Path(__file__).resolve().parent
    source = next((path for path in (package / "sample_site", package.parent / "sample_site") if path.is_dir()), None)
    if source is None:
        raise ValueError("This installation has no sample site.")
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ValueError(f"{str(target)!r} is there already, and not an empty directory: choose another DIR.")
    shutil.copytree(source, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
