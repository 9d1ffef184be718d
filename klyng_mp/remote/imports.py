"""Which modules a piece of Python imports, and how surely, found in its text without running it.

Layer: remote; imports nothing of klyng_mp.

Imports count wherever they stand, also in functions: a function that is called in a rank is what most imports of a
program are for. Those that only a type checker sees do not.
"""

from __future__ import annotations

import ast
from bisect import bisect_left
from typing import NamedTuple

__all__ = ["CERTAIN", "GUARDED", "POSSIBLE", "Import", "find_imports"]

# How surely an import is made, and has to succeed.
GUARDED = 0  # the program can do without: an ImportError is caught
POSSIBLE = 1  # in a function, or under a condition
CERTAIN = 2  # whenever the module is imported

_CATCHERS = {"ImportError", "ModuleNotFoundError", "Exception", "BaseException"}
_FUNCTIONS = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda


class Import(NamedTuple):
    """One import of a program's text.

    Attributes:
        name: the module, absolute; of ``from a import b`` it is ``a``.
        attributes: of ``from a import b, c``: ``("b", "c")``, each of which may be a module as well.
        line: where it stands.
        certainty: GUARDED, POSSIBLE or CERTAIN.
    """

    name: str
    attributes: tuple[str, ...]
    line: int
    certainty: int


def find_imports(source: bytes | str, package: str, *, is_main: bool = False) -> list[Import]:
    """Return what a module's text imports, in the order of its lines.

    Args:
        source: the text.
        package: what relative imports begin from; ``""`` where there is none.
        is_main: it runs as ``__main__``.

    Raises:
        SyntaxError: it is no valid Python.
        ValueError: likewise, of null bytes.
    """
    text = source.encode(errors="replace") if isinstance(source, str) else source
    lines = [number for number, line in enumerate(text.splitlines(), 1) if b"import" in line]
    finder = _Finder(package, lines, is_main=is_main)
    finder.look(ast.parse(source), CERTAIN)
    return finder.found


class _Finder:
    """Walks through one module's tree; what it comes through decides how sure an import is.

    Where no line has the word, it does not look: that is most of a tree, and looking takes longer than parsing.
    """

    def __init__(self, package: str, lines: list[int], *, is_main: bool) -> None:
        self.found: list[Import] = []
        self._lines = lines
        self._package = package
        self._is_main = is_main

    def look(self, node: ast.AST, certainty: int) -> None:
        if isinstance(node, ast.Import):
            self.found += [Import(alias.name, (), node.lineno, certainty) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            name = _resolve(node.module or "", node.level, self._package)
            if name:
                attributes = tuple(alias.name for alias in node.names if alias.name != "*")
                self.found.append(Import(name, attributes, node.lineno, certainty))
        elif isinstance(node, ast.If | ast.IfExp):
            self._look_at_choice(node, min(certainty, POSSIBLE))
        elif isinstance(node, ast.Try | ast.TryStar):
            self._look_at_try(node, certainty)
        elif isinstance(node, ast.With) and any(_is_suppress(item.context_expr) for item in node.items):
            self._look_into(node, GUARDED)
        else:
            if isinstance(node, ast.Call):
                self._look_at_call(node, min(certainty, POSSIBLE))
            once = not isinstance(node, _FUNCTIONS | ast.For | ast.AsyncFor | ast.While | ast.Match)
            self._look_into(node, certainty if once else min(certainty, POSSIBLE))

    def _look_into(self, node: ast.AST, certainty: int) -> None:
        for child in ast.iter_child_nodes(node):
            if not isinstance(child, ast.stmt) or self._may_import(child):
                self.look(child, certainty)

    def _may_import(self, node: ast.stmt) -> bool:
        at = bisect_left(self._lines, node.lineno)
        return at < len(self._lines) and self._lines[at] <= (node.end_lineno or node.lineno)

    def _look_at_choice(self, node: ast.If | ast.IfExp, certainty: int) -> None:
        never = _is_type_checking(node.test) or (not self._is_main and _is_main_guard(node.test))
        self.look(node.test, certainty)
        parts = [node.orelse] if never else [node.body, node.orelse]
        for part in parts:
            for child in part if isinstance(part, list) else [part]:
                self.look(child, certainty)

    def _look_at_try(self, node: ast.Try | ast.TryStar, certainty: int) -> None:
        caught = any(_catches(handler.type) for handler in node.handlers)
        for tried in node.body:
            self.look(tried, GUARDED if caught else min(certainty, POSSIBLE) if node.handlers else certainty)
        for child in (*node.handlers, *node.orelse):  # as what is imported instead
            self.look(child, GUARDED if caught else min(certainty, POSSIBLE))
        for last in node.finalbody:
            self.look(last, certainty)

    def _look_at_call(self, node: ast.Call, certainty: int) -> None:
        called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if called in ("import_module", "__import__") and node.args and isinstance(node.args[0], ast.Constant):
            name = node.args[0].value
            if isinstance(name, str) and all(part.isidentifier() for part in name.split(".")):
                self.found.append(Import(name, (), node.lineno, certainty))


def _resolve(name: str, level: int, package: str) -> str:
    """Return the absolute name; ``""`` where a relative one leads nowhere, as it would when it ran."""
    if not level:
        return name
    parts = package.split(".") if package else []
    if level > len(parts):
        return ""
    base = parts[: len(parts) - level + 1]
    return ".".join([*base, name] if name else base)


def _catches(kind: ast.expr | None) -> bool:
    if isinstance(kind, ast.Tuple):
        return any(_catches(one) for one in kind.elts)
    return kind is None or _last_name(kind) in _CATCHERS


def _is_suppress(node: ast.expr) -> bool:
    return isinstance(node, ast.Call) and _last_name(node.func) == "suppress" and any(map(_catches, node.args))


def _is_type_checking(test: ast.expr) -> bool:
    return _last_name(test) == "TYPE_CHECKING"


def _is_main_guard(test: ast.expr) -> bool:
    return (
        isinstance(test, ast.Compare)
        and _last_name(test.left) == "__name__"
        and isinstance(test.comparators[0], ast.Constant)
        and test.comparators[0].value == "__main__"
        and isinstance(test.ops[0], ast.Eq)
    )


def _last_name(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
