"""Which exception counts, and which must go on."""

from __future__ import annotations

import pytest
import trio

from rpyserve.util.exceptions import (
    Interrupted,
    containing_keyboard_interrupts,
    reporting_errors,
    split_control_flow,
    unwrap_group,
)


def test_the_only_one_in_a_group_counts() -> None:
    inner = ValueError()
    assert unwrap_group(ExceptionGroup("", [ExceptionGroup("", [inner])])) is inner
    two = ExceptionGroup("", [inner, TypeError()])
    assert unwrap_group(two) is two
    assert unwrap_group(inner) is inner


def test_cancellations_in_a_group_do_not_count() -> None:
    inner = ValueError()

    async def main() -> BaseException:
        with trio.CancelScope() as scope:
            scope.cancel()
            try:
                await trio.lowlevel.checkpoint()
            except trio.Cancelled as cancelled:
                return unwrap_group(BaseExceptionGroup("", [cancelled, inner]))
        raise AssertionError

    assert trio.run(main) is inner


@pytest.mark.parametrize("failure", [ValueError(), SystemExit(), GeneratorExit()])
def test_whatever_a_script_raises_is_a_failure(failure: BaseException) -> None:
    assert split_control_flow(failure) == (failure, None)
    reported: list[BaseException] = []
    with reporting_errors(reported.append):
        raise failure
    assert reported == [failure]


@pytest.mark.parametrize("control_flow", [KeyboardInterrupt(), Interrupted()])
def test_interrupts_pass(control_flow: BaseException) -> None:
    assert split_control_flow(control_flow) == (None, control_flow)
    reported: list[BaseException] = []
    with pytest.raises(type(control_flow)), reporting_errors(reported.append):
        raise control_flow
    assert not reported


def test_where_no_ctrl_c_raises_it_a_keyboard_interrupt_is_the_scripts() -> None:
    reported: list[BaseException] = []
    with containing_keyboard_interrupts():
        for exc in (KeyboardInterrupt(), BaseExceptionGroup("", [KeyboardInterrupt()])):
            with reporting_errors(reported.append):
                raise exc
        assert split_control_flow(Interrupted())[0] is None
    assert len(reported) == 2
    assert split_control_flow(KeyboardInterrupt())[0] is None


def test_a_group_of_both_is_split() -> None:
    reported: list[BaseException] = []
    failure = ValueError()
    with pytest.raises(BaseExceptionGroup) as caught, reporting_errors(reported.append):
        raise BaseExceptionGroup("", [KeyboardInterrupt(), failure])
    assert [type(exc) for exc in caught.value.exceptions] == [KeyboardInterrupt]
    assert [group.exceptions for group in reported if isinstance(group, ExceptionGroup)] == [
        (failure,)
    ]
