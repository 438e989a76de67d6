"""A module's source, statement by statement: what each defines, needs and says. Nothing is run."""

from __future__ import annotations

import ast
import copy
import symtable
import sys
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from functools import cache

PACKAGE = "nirvana"
Function = ast.FunctionDef | ast.AsyncFunctionDef
_MARKS = {"ClassVar", "InitVar"}  # annotations that dataclasses look up
_PLAIN_DECORATORS = {"dataclass", "lru_cache", "cache"}


@dataclass
class Statement:
    """One statement of a module, other than an import.

    Attributes:
        module: its name. position: the statement's number in it.
        names: what it defines.
        local_imports: what its functions import from the package: name -> (module, name).
        acts: it does something when its module is imported, beside defining names.
        registered: what that is done to, where it is a decorator: `@register_model(Lanes)`.
        kept: after `parts`: what of it stays, the whole of it but for the members of a class.
    """

    module: str
    position: int
    node: ast.stmt
    lines: list[str]
    names: frozenset[str]
    local_imports: dict[str, tuple[str, str]]
    acts: bool
    registered: frozenset[str]
    kept: list[ast.AST] = field(default_factory=list)
    dropped: list[ast.stmt] = field(default_factory=list)

    def parts(self, attributes: Collection[str], forbidden: Collection[str]) -> list[ast.AST]:
        """What of it stays: of a class, all but methods that nobody calls or that use what is forbidden.

        Args:
            attributes: every name after a dot that is used.
        """
        if not isinstance(self.node, ast.ClassDef):
            self.kept = [self.node]
            return self.kept
        self.dropped = [
            member
            for member in self.node.body
            if isinstance(member, Function)
            and (
                (member.name not in attributes and not member.name.startswith("__"))
                or bool(free_names(member)[0] & set(forbidden))
            )
        ]
        stays = [member for member in self.node.body if member not in self.dropped]
        self.kept = [*self.node.bases, *self.node.keywords, *self.node.decorator_list, *stays]
        return self.kept

    def text(self, renamed: dict[str, str]) -> str:
        """Its source without what is dropped and without imports from the package, names changed."""
        first = _first_line(self.node)
        while first > 1 and self.lines[first - 2].startswith("#"):
            first -= 1
        gone = set[int]()
        for node in (*self.dropped, *_local_imports(self.node)):
            start, end = _first_line(node), node.end_lineno or 0
            while end < len(self.lines) and not self.lines[end].strip():
                end += 1
            gone |= set(range(start, end + 1))
        lines = dict(enumerate(self.lines[first - 1 : self.node.end_lineno], first))
        for line, column, old, new in sorted(_uses(self, renamed), reverse=True):
            whole = lines[line].encode()
            assert whole[column : column + len(old)] == old.encode(), (self.module, line, old)
            lines[line] = (whole[:column] + new.encode() + whole[column + len(old) :]).decode()
        return "\n".join(text for number, text in lines.items() if number not in gone).rstrip()


@dataclass
class Module:
    """A parsed module.

    Attributes:
        definitions: name -> the statements that define or change it.
        imports: name -> (module, name), of what it imports from the package.
        others: name -> import statement, of what it imports from elsewhere.
        registrations: statements that act.
    """

    name: str
    definitions: dict[str, list[Statement]] = field(default_factory=dict)
    imports: dict[str, tuple[str, str]] = field(default_factory=dict)
    others: dict[str, str] = field(default_factory=dict)
    registrations: list[Statement] = field(default_factory=list)

    def outside(self, allowed: Collection[str]) -> frozenset[str]:
        """Names of packages that are neither the standard library's nor allowed."""
        known = {*sys.stdlib_module_names, *allowed}
        return frozenset(
            name for name, line in self.others.items() if line.split()[1].partition(".")[0] not in known
        )


def parse(name: str, source: str) -> Module:
    """A module from its source."""
    module, lines = Module(name), source.splitlines()
    for position, node in enumerate(ast.parse(source).body):
        if isinstance(node, ast.Import | ast.ImportFrom):
            _read_import(node, module.imports, module.others)
        elif not _is_skipped(node):
            statement = _read_statement(name, position, node, lines)
            for defined in statement.names:
                module.definitions.setdefault(defined, []).append(statement)
            if statement.acts:
                module.registrations.append(statement)
    return module


@cache
def free_names(node: ast.AST) -> tuple[frozenset[str], frozenset[str]]:
    """Names that a node reads and its own functions do not bind, and names after a dot.

    Annotations are not read, for they never run (but for _MARKS); what a function imports from the package
    is, for its import goes.
    """
    if isinstance(node, ast.keyword):
        node = node.value
    attributes = frozenset(part.attr for part in ast.walk(node) if isinstance(part, ast.Attribute))
    bare = _WithoutImports().visit(copy.deepcopy(node))
    source = f"from __future__ import annotations\n{ast.unparse(ast.fix_missing_locations(bare))}"
    read = set(_read_globally(symtable.symtable(source, "one statement", "exec")))
    marks = {part.id for part in ast.walk(node) if isinstance(part, ast.Name)} & _MARKS
    return frozenset(read | marks), attributes


class _WithoutImports(ast.NodeTransformer):
    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.AST | None:
        return ast.Pass() if (node.module or "").partition(".")[0] == PACKAGE else node


def _read_globally(table: symtable.SymbolTable) -> Iterator[str]:
    """Names that a scope or one inside it reads of the module's."""
    for symbol in table.get_symbols():
        if symbol.is_referenced() and (symbol.is_global() or table.get_type() == "module"):
            yield symbol.get_name()
    for child in table.get_children():
        yield from _read_globally(child)


def _is_skipped(node: ast.stmt) -> bool:
    """A docstring, `__all__`, or what only a type checker reads."""
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Constant)
    if isinstance(node, ast.If):
        return isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
    return isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"


def _read_import(
    node: ast.Import | ast.ImportFrom, imports: dict[str, tuple[str, str]], others: dict[str, str]
) -> None:
    for alias in node.names:
        bound = alias.asname or alias.name.partition(".")[0]
        renamed = f" as {alias.asname}" if alias.asname else ""
        if isinstance(node, ast.Import):
            others[bound] = f"import {alias.name}{renamed}"
        elif node.module == "__future__":
            continue
        elif (node.module or "").partition(".")[0] == PACKAGE:
            imports[bound] = (node.module or "", alias.name)
        else:
            others[bound] = f"from {node.module} import {alias.name}{renamed}"


def _read_statement(module: str, position: int, node: ast.stmt, lines: list[str]) -> Statement:
    imports: dict[str, tuple[str, str]] = {}
    for found in _local_imports(node):
        _read_import(found, imports, {})
    names, calls = _defined(node), _registering_calls(node)
    registered = frozenset(n for call in calls for argument in call.args for n in free_names(argument)[0])
    acts = bool(calls) or not names
    return Statement(module, position, node, lines, names, imports, acts, registered)


def _registering_calls(node: ast.stmt) -> list[ast.Call]:
    """Calls that decorate a definition and may do more than change it."""
    called = [d for d in getattr(node, "decorator_list", []) if isinstance(d, ast.Call)]
    return [call for call in called if ast.unparse(call.func).rpartition(".")[2] not in _PLAIN_DECORATORS]


def _defined(node: ast.stmt) -> frozenset[str]:
    """Names that a statement defines or changes at the top of its module."""
    if isinstance(node, Function | ast.ClassDef):
        return frozenset([node.name])
    inner = (part for part in ast.walk(node) if isinstance(part, Function | ast.ClassDef))
    stored = (p.id for p in ast.walk(node) if isinstance(p, ast.Name) and isinstance(p.ctx, ast.Store))
    return frozenset([*stored, *(part.name for part in inner)])


def _local_imports(node: ast.AST) -> list[ast.ImportFrom]:
    """Imports from the package inside a statement."""
    return [
        part
        for part in ast.walk(node)
        if isinstance(part, ast.ImportFrom) and (part.module or "").partition(".")[0] == PACKAGE
    ]


def _first_line(node: ast.stmt) -> int:
    decorators: list[ast.expr] = getattr(node, "decorator_list", [])
    return min([node.lineno, *(part.lineno for part in decorators)])


def _uses(statement: Statement, renamed: dict[str, str]) -> Iterator[tuple[int, int, str, str]]:
    """Where names stand that are called otherwise in the file: line, column in bytes, old, new."""
    node = statement.node
    if isinstance(node, Function | ast.ClassDef) and node.name in renamed:
        text = statement.lines[node.lineno - 1].encode()
        yield node.lineno, text.index(node.name.encode(), node.col_offset), node.name, renamed[node.name]
    yield from _uses_below(node, renamed)


def _uses_below(node: ast.AST, renamed: dict[str, str]) -> Iterator[tuple[int, int, str, str]]:
    """The same of names alone; a function's arguments hide names of the module."""
    if isinstance(node, ast.Name) and node.id in renamed:
        yield node.lineno, node.col_offset, node.id, renamed[node.id]
    if isinstance(node, Function | ast.Lambda):
        own = {part.arg for part in ast.walk(node.args) if isinstance(part, ast.arg)}
        yield from _uses_below(node.args, renamed)
        for part in getattr(node, "decorator_list", []):
            yield from _uses_below(part, renamed)
        body = [node.body] if isinstance(node, ast.Lambda) else [*node.body, *filter(None, [node.returns])]
        renamed = {old: new for old, new in renamed.items() if old not in own}
        for part in body:
            yield from _uses_below(part, renamed)
        return
    for child in ast.iter_child_nodes(node):
        yield from _uses_below(child, renamed)
