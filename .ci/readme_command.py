"""Print the command that stands in README.md under a heading: readme_command.py "Run the tests"
[sh|powershell]

It is the one line of the first fenced block of that language below the heading. CI runs what README
tells people to run, and the tests make sure that there is such a line.
"""

import pathlib
import re
import sys

README = pathlib.Path(__file__).resolve().parent.parent / "README.md"


def command(heading, language="sh"):
    """Return the line, or exit with a message that says what is missing."""
    text = README.read_text(encoding="utf-8")
    section = re.search(
        r"^## " + re.escape(heading) + r"\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL
    )
    if section is None:
        sys.exit("README.md has no heading '## " + heading + "'")
    block = re.search(
        r"^```" + re.escape(language) + r"\n([^\n]+)\n```$", section.group(1), re.MULTILINE
    )
    if block is None:
        sys.exit(
            "README.md has no block of one line of " + language + " under '## " + heading + "'"
        )
    return block.group(1)


if __name__ == "__main__":
    print(command(*sys.argv[1:]))
