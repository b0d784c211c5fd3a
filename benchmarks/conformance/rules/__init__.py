"""What RFC 9110 and 9112 say a server must do, each as bytes to send and answers that will do.

Data only: `conformance` sends them to this server and to others, and the tests to this one. Each is followed by a plain
request, so that it shows whether the bytes after it are still trusted, but where the client closes its side.
An answer is written as `answers.told` writes it: ``200 POST abcde; 200 GET``, ``400; closed``.
"""

from benchmarks.conformance.rules.bodies import chunked, lengths
from benchmarks.conformance.rules.connections import persistence, responses
from benchmarks.conformance.rules.heads import fields, request_lines, targets
from benchmarks.conformance.rules.rule import AWAIT, HOST, Level, Must, Repeat, raw, shown_bytes

__all__ = ["AWAIT", "HOST", "MUSTS", "Level", "Must", "Repeat", "raw", "shown_bytes"]

MUSTS: list[Must] = [
    *request_lines(), *targets(), *fields(), *lengths(), *chunked(), *persistence(), *responses(),
]  # fmt: skip
