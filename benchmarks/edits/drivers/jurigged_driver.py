"""Plays the rows with jurigged, which changes the code of functions in a running program."""

import importlib

import jurigged
from common import play_all, save_later, wait_true


def play(directory, number, row):
    path = directory / f"module{number}.py"
    path.write_text(row["before"])
    jurigged.watch(str(path), logger=lambda event: None)
    module = importlib.import_module(path.stem)
    kept = eval(row["make"], vars(module))
    save_later(path, row["after"])
    return wait_true(lambda: eval(row["check"], {**vars(module), "kept": kept}))


play_all(play)
