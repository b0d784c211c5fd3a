"""Where a signal may not raise; what signals do to a whole process is in tests/process."""

from __future__ import annotations

from typing import Any

from rpyserve.serving import signals


def test_nothing_is_raised_in_what_python_calls_around_a_fork() -> None:
    def frame_of(module: str, name: str) -> Any:
        namespace: dict[str, Any] = {"__name__": module}
        exec(f"import sys\ndef {name}():\n    return sys._getframe()", namespace)
        return namespace[name]()

    assert signals._is_around_fork(frame_of("logging", "_releaseLock"))
    assert not signals._is_around_fork(frame_of("logging", "info"))
    assert not signals._is_around_fork(frame_of("__main__", "_releaseLock"))
    assert not signals._is_around_fork(None)
