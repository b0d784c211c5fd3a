"""``python -m rpyserve`` is the same as the command ``rpyserve``."""

from rpyserve.cli import main

if __name__ == "__main__":
    main(prog_name="rpyserve")
