"""The compiled code of a site's scripts, kept while their files stay as they are.

Owns the memory of it, which is bounded: the code that was not needed for longest goes first.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from types import CodeType
from typing import Final

from rpyserve import freshness
from rpyserve.http.errors import HTTPError, ScriptError
from rpyserve.modules import SiteModules
from rpyserve.sources import compile_source

__all__ = ["Codes", "Compiled"]

KEPT: Final = 500


@dataclass(slots=True)
class Compiled:
    """A script's code, and the names that it *imports*, as `sources.Source` has them.

    It is *sound* once an execution of it has been looked over and left a resource of use.
    """

    state: freshness.State
    source: bytes
    code: CodeType
    imports: frozenset[str]
    sound: bool = False
    number: int = field(default_factory=count().__next__)


class Codes:
    """The code of the scripts of one site."""

    def __init__(self, modules: SiteModules) -> None:
        self._modules = modules
        self._kept: OrderedDict[str, Compiled] = OrderedDict()

    def compiled(self, path: str) -> Compiled:
        """Return the code of the script at *path* as it is now.

        Raises:
            ScriptError: it cannot be read, or is no Python.
            HTTPError: 404, there is no such file.
        """
        kept = self._kept.get(path)
        if kept is not None and not kept.state.changed():
            self._kept.move_to_end(path)
            return kept
        self.drop(path)
        kept = self._kept[path] = self._compile(path)
        if len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        return kept

    def drop(self, path: str) -> None:
        """Forget the code of *path*."""
        self._kept.pop(path, None)

    def clear(self) -> None:
        """Forget all."""
        self._kept.clear()

    def _compile(self, path: str) -> Compiled:
        try:
            data, state = freshness.read(path)
            source = compile_source(data, path)
        except FileNotFoundError:
            raise HTTPError(404, private=f"{path} has just been deleted.") from None
        except OSError as exc:
            raise ScriptError(Path(path), f"The script cannot be read: {exc.strerror or exc}.") from exc
        except Exception as exc:  # what is nested too deep is no SyntaxError
            from rpyserve import hints
            from rpyserve.diagnosis import title_of

            raise ScriptError(Path(path), title_of(exc), hints.for_exception(exc)) from exc
        self._modules.warn_of_hidden(source.imports, path)
        self._modules.announced.announce(path, data, source.tree)
        return Compiled(state, data, source.code, source.imports)
