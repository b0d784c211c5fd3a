"""Plays the rows with IPython's autoreload, in a shell of its own."""

from common import play_all, save_later
from IPython.core.interactiveshell import InteractiveShell

shell = InteractiveShell.instance()
shell.run_line_magic("load_ext", "autoreload")
shell.run_line_magic("autoreload", "2")


def run(code):
    done = shell.run_cell(code)
    done.raise_error()
    return done.result


def play(directory, number, row):
    path = directory / f"module{number}.py"
    path.write_text(row["before"])
    run(f"import {path.stem}")
    module = shell.user_ns[path.stem]
    kept = eval(row["make"], vars(module))
    save_later(path, row["after"])
    run("None")  # before a cell is run, what has changed is imported again
    return eval(row["check"], {**vars(module), "kept": kept})


play_all(play)
