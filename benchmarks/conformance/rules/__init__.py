"""What RFC 9110 and 9112 say a server must do, as bytes to send and answers that keep the rule.

Data only: `run` sends them to this server and to others, and the tests to this one. Each is
followed by a plain request, which shows whether what comes after it is still trusted, unless the
client closes its side. Answers are written as `probe` writes them: ``200 POST abcde; 200 GET``,
``400; closed``.
"""

from benchmarks.conformance.rules.bodies import chunked, lengths
from benchmarks.conformance.rules.connections import persistence, responses
from benchmarks.conformance.rules.heads import fields, request_lines, targets
from benchmarks.conformance.rules.rule import AWAIT, HOST, Level, Repeat, Rule, raw, readable

__all__ = ["AWAIT", "HOST", "RULES", "Level", "Repeat", "Rule", "raw", "readable"]

RULES: list[Rule] = [
    *request_lines(),
    *targets(),
    *fields(),
    *lengths(),
    *chunked(),
    *persistence(),
    *responses(),
]
