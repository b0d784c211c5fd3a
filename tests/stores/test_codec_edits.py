"""Whatever holds of an edit holds of an edit while the server was down: the same tests, with a
restart at each edit.

Where something cannot be the same, it says why.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from types import FunctionType, ModuleType

import pytest

from tests.sessions import (
    test_current_classes,
    test_migration,
    test_missing_attributes,
    test_object_graph,
    test_replacement,
    test_session_migration,
)
from tests.support.restarted_site import Restarting

ONE_RECORD = "what a session and the registry, or two sessions, share is kept for each of them"
RUNS = "what runs ends with the process"
NO_DATA = "a record cannot have it, and says so"
FILLED = "what is stored is stored whole: what an object lacks is not left for its first use"
OTHERWISE = {
    "a_stream_finishes_with_the_functions_it_began_with": RUNS,
    "what_old_code_keeps_deep_down_is_renewed_when_it_has_ended": RUNS,
    "a_component_that_old_code_makes_is_renewed": RUNS,
    "two_threads_ask_at_once": RUNS,
    "an_iterator_is_renewed_or_named": RUNS,
    "the_factory_that_a_script_has_set_is_its_present_one": RUNS,
    "a_factory_function_of_old_code_makes_sessions_of_the_present_class": RUNS,
    "constructors_that_read_one_another": ONE_RECORD,
    "what_it_puts_of_itself_anywhere_is_taken_out_again": ONE_RECORD,
    "the_object_has_the_places_that_it_had": ONE_RECORD,
    "a_registry_that_is_first_used_by_a_constructor": ONE_RECORD,
    "an_object_that_others_have_is_no_new_one": ONE_RECORD,
    "a_constructor_that_fails_after_it_has_put_itself_somewhere": ONE_RECORD,
    "a_class_with_one_object": ONE_RECORD,
    "two_holders_of_one_object_still_hold_one": ONE_RECORD,
    "it_is_exchanged_in_what_holds_it[WeakSet": NO_DATA,
    "it_is_exchanged_in_what_holds_it[Weak": NO_DATA,
    "it_is_exchanged_in_what_holds_it[weakref": NO_DATA,
    "it_is_exchanged_in_what_holds_it[(lambda": NO_DATA,
    "a_class_with_a_finalizer": RUNS,
    "a_pool_of_processes_is_named": RUNS,
    "an_array_of_objects": NO_DATA,
    "edit_upon_edit": FILLED,
    "an_object_that_waits_is_made_again": FILLED,
    "a_holder_that_was_not_used_for_some_edits_gets_the_latest": FILLED,
    "a_class_with_its_own_reduce": "the class itself says what of it is stored",
    "objects_of_sqlalchemy_are_left_whole_and_named": "they become objects of the present class",
    "a_session_class_that_gets_slots": "sessions become ones of the present class",
    "nobody_is_blamed_for_the_time_that_our_calls_take": "the time of loading is not a page's",
}


def reason_for_otherwise(name: str) -> str:
    plain = name.removeprefix("test_").partition("__")[2]
    return next((why for key, why in OTHERWISE.items() if plain.startswith(key)), "")


@pytest.fixture
async def site(
    request: pytest.FixtureRequest, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> AsyncIterator[Restarting]:
    if why := reason_for_otherwise(request.node.name):
        pytest.skip(why)
    caplog.set_level(logging.INFO, logger="rpyserve")
    async with Restarting.at(tmp_path) as restarting:
        yield restarting


def collected_from(module: ModuleType) -> dict[str, FunctionType]:
    """The tests in *module* that edit a site, under names that tell them from others'."""
    prefix = f"{module.__name__.rpartition('.')[2]}__"
    return {
        prefix + name.removeprefix("test_"): function
        for name, function in vars(module).items()
        if name.startswith("test_") and "site" in inspect.signature(function).parameters
    }


for module in (
    test_current_classes,
    test_migration,
    test_missing_attributes,
    test_object_graph,
    test_replacement,
    test_session_migration,
):
    globals().update(collected_from(module))
