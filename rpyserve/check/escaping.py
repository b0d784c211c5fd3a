"""Markup with values in it that nothing escapes.

``html(f"<p>{name}</p>")`` gets one finished text: a visitor's markup is sent as it is, and a
visitor's ``{`` is taken for a place where a value goes. ``f"<p>{request.path}</p>"`` is markup that
`html` never sees. Reads the syntax tree, and executes nothing. A false alarm is worse than a missed
one: with `html`, constants, imported names and names in capital letters are no such values; without
it, only what comes straight from the request is one.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Sequence
from typing import Final

from rpyserve.check.bindings import Block, ModuleBindings, name_bound_by
from rpyserve.check.findings import Finding, Rule

_HTML_NAMES: Final = frozenset({"html", "rpyserve.html"})
_FINISHED: Final = (
    "This text has its values in it before `html` sees it, so they are not escaped: "
    "a visitor could send markup or a script."
)
_NO_HTML: Final = (
    "This markup has a visitor's text in it, which is not escaped: it could be markup or a script."
)
_GENERAL_HINT: Final = 'Give html the values beside the text:\nhtml("<p>{name}</p>", name=name)'
# From then on an f-string that is to be escaped needs another letter before it, and nothing else.
HAS_T_STRINGS: Final = sys.version_info >= (3, 14)
_PERCENT: Final = re.compile(r"%(?:\(\w+\))?[-#0 +]*[\d*]*(?:\.[\d*]+)?([a-zA-Z%])")
_TAG: Final = re.compile(r"<[A-Za-z/!]")
# What a request has of the visitor's own text.
_FROM_VISITOR: Final = frozenset({
    "args", "cookies", "field", "getCookie", "getHeader", "getUser", "path", "postpath", "prepath",
    "query", "uri",
})  # fmt: skip

_LOGGING: Final = frozenset({"print", "debug", "info", "warning", "error", "exception", "log"})

# How many characters of a line to write are shown; for a longer one there is an example.
LONGEST_LINE: Final = 160

# Constant text, or an expression with its format.
_Piece = str | tuple[ast.expr, str]


def find_unescaped(bindings: ModuleBindings) -> list[Finding]:
    """Return the places where values become markup that nothing escapes."""
    found: list[Finding] = []
    for block in bindings.blocks:
        visitors_names = _visitors_names(block)
        # The parts of a text that has been looked at are no texts by themselves.
        done: set[ast.AST] = set()
        for node in block.nodes:
            match node:
                case ast.Call(function, [template, *others]) if _is_html(function, bindings):
                    done.update(ast.walk(template))
                    if any(_may_vary(value, bindings) for value in _values(template)):
                        hint = _hint(template, has_values=bool(others or node.keywords))
                        found.append(Finding(node.lineno, Rule.UNESCAPED, _FINISHED, hint))
                case ast.Call(ast.Name(name) | ast.Attribute(_, name)) if name in _LOGGING:
                    done.update(ast.walk(node))
                case ast.JoinedStr() | ast.BinOp() | ast.Call() if node not in done:
                    done.update(ast.walk(node) if _pieces(node) else ())
                    values = _values(node)
                    is_markup = _is_markup(node, bindings)
                    if is_markup and any(_is_visitors(each, visitors_names) for each in values):
                        hint = _hint(node, has_values=False)
                        found.append(Finding(node.lineno, Rule.UNESCAPED, _NO_HTML, hint))
    return found


def _is_html(function: ast.expr, bindings: ModuleBindings) -> bool:
    return bindings.dotted_name(function) in _HTML_NAMES


# What a text consists of


def _pieces(text: ast.expr) -> Sequence[_Piece]:
    """The pieces of a text that is put together; none for one that is not."""
    match text:
        case ast.JoinedStr(values):
            return [_piece(value) for value in values]
        case ast.BinOp(left, ast.Add(), right):
            pieces = [*_operand(left), *_operand(right)]
            # Without text of its own it is none that is known: `header() + body`.
            return pieces if any(isinstance(piece, str) for piece in pieces) else []
        case ast.BinOp(ast.Constant(str(template)), ast.Mod(), values):
            return _percent_pieces(template, values)
        case ast.Call(ast.Attribute(ast.Constant(str(template)), "format"), values, keywords):
            given = [*values, *(keyword.value for keyword in keywords)]
            return [template, *((value, "") for value in given)]
    return []


def _values(text: ast.expr) -> list[ast.expr]:
    return [piece[0] for piece in _pieces(text) if not isinstance(piece, str)]


def _piece(value: ast.expr) -> _Piece:
    if isinstance(value, ast.FormattedValue):
        conversion = f"!{chr(value.conversion)}" if value.conversion > 0 else ""
        spec = value.format_spec
        return value.value, conversion + (f":{ast.unparse(spec)[2:-1]}" if spec else "")
    return str(getattr(value, "value", ""))


def _operand(operand: ast.expr) -> Sequence[_Piece]:
    if isinstance(operand, ast.Constant) and isinstance(operand.value, str):
        return [operand.value]
    return _pieces(operand) or [(operand, "")]


def _percent_pieces(template: str, values: ast.expr) -> list[_Piece]:
    given = iter(values.elts if isinstance(values, ast.Tuple) else [values])
    pieces: list[_Piece] = []
    end = 0
    for found in _PERCENT.finditer(template):
        pieces.append(template[end : found.start()])
        pieces.append("%" if found[1] == "%" else (next(given, values), ""))
        end = found.end()
    return [*pieces, template[end:]]


# What is no constant, and what is a visitor's


def _may_vary(value: ast.expr, bindings: ModuleBindings) -> bool:
    match value:
        case ast.Constant():
            return False
        case ast.Name(name):
            is_constant = isinstance(getattr(bindings.only(name), "value", None), ast.Constant)
            return not (name.isupper() or is_constant or name in bindings.origins)
        case ast.Attribute(_, name):
            return not name.isupper()
    return True


def _is_markup(text: ast.expr, bindings: ModuleBindings) -> bool:
    for value in _values(text):
        if isinstance(value, ast.Call) and _is_html(value.func, bindings):
            return False  # it escapes what is added to it
    return any(isinstance(piece, str) and _TAG.search(piece) for piece in _pieces(text))


def _visitors_names(block: Block) -> set[str]:
    """The local names that hold a visitor's text, and nothing else."""
    bound = [name for name in map(name_bound_by, block.nodes) if name]
    assigned = [
        node.targets[0].id
        for node in block.nodes
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Name)
        and _is_visitors(node.value, set())
    ]
    return {name for name in assigned if bound.count(name) == assigned.count(name)}


def _is_visitors(value: ast.expr, names: set[str]) -> bool:
    match value:
        case ast.Name(name):
            return name in names
        case ast.Call(ast.Attribute(ast.Name("request"), name), keywords=keywords):
            is_text = all(keyword.arg != "type" for keyword in keywords)
            return name in _FROM_VISITOR and is_text
        case ast.Attribute(ast.Name("request"), name):
            return name in _FROM_VISITOR
        case ast.Subscript(container):
            return _is_visitors(container, names)
    return False


# What to write


def _hint(text: ast.expr, *, has_values: bool) -> str:
    """Return the line to write, or an example.

    Args:
        has_values: braces in the text are places for values that the call has already.
    """
    line = _line(text)
    is_long = len(line) > LONGEST_LINE or r"\n" in line
    return _GENERAL_HINT if has_values or is_long else f"Write:\n{line}"


def _line(text: ast.expr) -> str:
    if isinstance(text, ast.Call) and isinstance(text.func, ast.Attribute):
        call = ast.Call(ast.Name("html"), [text.func.value, *text.args], text.keywords)
        return ast.unparse(call)
    if HAS_T_STRINGS and isinstance(text, ast.JoinedStr):
        return f"html(t{ast.unparse(text)[1:]})"
    template = ""
    values, named = [], []
    for piece in _pieces(text):
        if isinstance(piece, str):
            template += piece.replace("{", "{{").replace("}", "}}")
            continue
        value, form = piece
        name = value.id if isinstance(value, ast.Name) else ""
        template += f"{{{name}{form}}}"
        if name:
            named.append(f"{name}={name}")
        else:
            values.append(ast.unparse(value))
    return f"html({', '.join([_literal(template), *values, *dict.fromkeys(named)])})"


def _literal(text: str) -> str:
    """*text* as a literal, in double quotes where that needs no escapes."""
    literal = repr(text)
    return literal if '"' in text or "\\" in literal else f'"{text}"'
