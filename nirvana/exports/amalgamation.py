"""Sources of this package as one file: the definitions that some names need, and no others.

Imports between the package's modules are followed from those names, statement by statement, and then gone;
what is left imports the standard library and the packages that are allowed. A class keeps the methods that
what is left may call. Two definitions of one name get two names. Nothing is imported or run to find this out.
"""

from __future__ import annotations

import ast
import builtins
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import resources

from nirvana.exports.sources import Function, Module, Statement, free_names, parse

Place = tuple[str, str]  # module, name


class Unfit(Exception):
    """The sources cannot be one file; the message names the module and what is in the way."""


def amalgamate(
    roots: Collection[Place],
    allowed: Collection[str],
    taken: Collection[str] = (),
    constants: Mapping[Place, str] | None = None,
) -> str:
    """Python source that defines the roots and all that they need.

    Args:
        roots: (module, name) pairs, such as ("nirvana.sparse.engine", "train").
        allowed: packages beside the standard library that may be imported. A function or method that uses
            another one is left out.
        taken: names that the rest of the file defines.
        constants: definitions that are text instead of what they are in the sources.

    Raises:
        Unfit: something that is needed is not there, or imports name different things alike.
    """
    wanted = _Wanted(frozenset(allowed), dict(constants or {}))
    for place in roots:
        wanted.need(*place)
    wanted.settle()
    chosen = wanted.statements()
    names = _final_names(wanted, chosen, roots, taken)
    source = "\n".join([*_imports(wanted, chosen), *_texts(wanted, chosen, names)]) + "\n"
    _check(source, {names[place] for place in roots})
    free_names.cache_clear()
    return source


def read_module(name: str) -> Module:
    """A module of the package, parsed. Raises: Unfit: there is none."""
    folder, last = resources.files("nirvana"), name.rpartition(".")[2]
    for part in name.split(".")[1:-1]:
        folder = folder / part
    for file in (folder / f"{last}.py", folder / last / "__init__.py"):
        if name.startswith("nirvana.") and file.is_file():
            return parse(name, file.read_text(encoding="utf-8"))
    raise Unfit(f"there is no module {name}")


@dataclass
class _Wanted:
    """What is needed, as far as that is known.

    Attributes:
        allowed: packages that may be imported.
        modules: those that were read, by name.
        found: statements by module and position.
        attributes: names after a dot, in what is needed: methods of these names stay.
    """

    allowed: frozenset[str]
    constants: dict[Place, str]
    modules: dict[str, Module] = field(default_factory=dict)
    found: dict[tuple[str, int], Statement] = field(default_factory=dict)
    attributes: set[str] = field(default_factory=set)

    def module(self, name: str) -> Module:
        """A module, read once. Raises: Unfit: there is none."""
        if name not in self.modules:
            self.modules[name] = read_module(name)
        return self.modules[name]

    def need(self, module: str, name: str) -> None:
        """Take in the definition of a name, and what it needs."""
        home, name = self.home(module, name)
        statements = self.module(home).definitions.get(name)
        if statements is None:
            raise Unfit(f"{home} does not define {name}")
        for statement in statements:
            self._take(statement)

    def home(self, module: str, name: str) -> Place:
        """Where a name that a module knows is defined. Raises: Unfit: nowhere."""
        source = self.module(module)
        seen = {(module, name)}
        while name not in source.definitions:
            if name not in source.imports:
                raise Unfit(f"{source.name} does not define {name}")
            module, name = source.imports[name]
            if (module, name) in seen:
                raise Unfit(f"{module} imports {name} from itself")
            seen.add((module, name))
            source = self.module(module)
        return source.name, name

    def _take(self, statement: Statement) -> None:
        key = (statement.module, statement.position)
        if key in self.found:
            return
        self.found[key] = statement
        if self.constant(statement) is not None:
            statement.kept = []
            return
        self._follow(statement, statement.parts(self.attributes, self.forbidden(statement)))

    def _follow(self, statement: Statement, nodes: Iterable[ast.AST]) -> None:
        module = self.module(statement.module)
        for node in nodes:
            names, attributes = free_names(node)
            self.attributes |= attributes
            for name in names:
                self._follow_name(module, statement, name)

    def _follow_name(self, module: Module, statement: Statement, name: str) -> None:
        local = statement.local_imports.get(name)
        if local is not None:
            self.need(*local)
        elif name in module.definitions or name in module.imports:
            self.need(module.name, name)

    def settle(self) -> None:
        """Take in methods and registrations until nothing new is needed."""
        before = None
        while before != (len(self.found), len(self.attributes)):
            before = (len(self.found), len(self.attributes))
            for statement in list(self.found.values()):
                if self.constant(statement) is not None:
                    continue
                self._follow(statement, statement.parts(self.attributes, self.forbidden(statement)))
            for name in {statement.module for statement in self.found.values()}:
                module = self.module(name)
                for statement in module.registrations:
                    own = statement.registered & module.definitions.keys()
                    if not own or own & self._names_of(name):
                        self._take(statement)

    def forbidden(self, statement: Statement) -> frozenset[str]:
        """Names that the statement's module has of packages that are not allowed."""
        return self.module(statement.module).outside(self.allowed)

    def _names_of(self, module: str) -> set[str]:
        return {
            name
            for statement in self.found.values()
            if statement.module == module
            for name in statement.names
        }

    def statements(self) -> list[Statement]:
        """What is needed, in an order in which it can run: modules after those that they import."""
        order = list[str]()
        for module in sorted({statement.module for statement in self.found.values()}):
            self._visit(module, order, frozenset())
        places = {name: place for place, name in enumerate(order)}
        return sorted(self.found.values(), key=lambda s: (places[s.module], s.position))

    def constant(self, statement: Statement) -> str | None:
        """What a statement is replaced by."""
        for name in statement.names:
            if (statement.module, name) in self.constants:
                return f"{name} = {self.constants[statement.module, name]!r}"
        return None

    def edits(self, statement: Statement, names: dict[Place, str]) -> dict[str, str]:
        """What each name of the package is called in the file, where that differs."""
        module = self.module(statement.module)
        found: dict[str, str] = {}
        for name in {*module.definitions, *module.imports, *statement.local_imports}:
            try:
                place = self.home(*statement.local_imports.get(name, (module.name, name)))
            except Unfit:
                continue
            if place in names and names[place] != name:
                found[name] = names[place]
        return found

    def outside_imports(self, statement: Statement) -> Iterator[tuple[str, str]]:
        """Names that a statement uses of other packages, each with its import."""
        module = self.module(statement.module)
        for node in statement.kept:
            for name in free_names(node)[0]:
                if name in module.others and name not in module.definitions:
                    yield name, module.others[name]

    def _visit(self, module: str, order: list[str], above: frozenset[str]) -> None:
        if module in order or module in above:
            return
        for needed in sorted({home for home, _ in self.module(module).imports.values()}):
            self._visit(needed, order, above | {module})
        order.append(module)


def _texts(wanted: _Wanted, chosen: list[Statement], names: dict[Place, str]) -> Iterator[str]:
    """The statements' sources with the blank lines between them, and a line where a module begins."""
    module, was_short = "", False
    for statement in chosen:
        text = wanted.constant(statement) or statement.text(wanted.edits(statement, names))
        is_short = not isinstance(statement.node, Function | ast.ClassDef)
        if statement.module != module:
            module, was_short = statement.module, True
            yield f"\n\n# {module}\n"
        yield text if is_short and was_short else f"\n\n{text}"
        was_short = is_short


def _final_names(
    wanted: _Wanted, chosen: list[Statement], roots: Collection[Place], taken: Collection[str]
) -> dict[Place, str]:
    """A name for each definition: its own, or with its module's where that is somebody else's."""
    names: dict[Place, str] = {}
    used = {*taken, *dir(builtins)}
    bound = {name for statement in chosen for name, _ in wanted.outside_imports(statement)}
    places = dict.fromkeys((s.module, name) for s in chosen for name in s.names)
    for place in sorted(places, key=lambda place: place not in roots):
        module, name = place
        tail = module.rpartition(".")[2]
        free = (n for n in (name, f"{name}_of_{tail}") if n not in used and n not in bound)
        names[place] = next(free, "")
        if not names[place] or (place in roots and names[place] != name):
            raise Unfit(f"{module}: the name {name} is taken by another definition")
        used.add(names[place])
    return names


def _imports(wanted: _Wanted, chosen: list[Statement]) -> list[str]:
    """The import statements that are needed. Raises: Unfit: one name for two things, or not allowed."""
    lines: dict[str, str] = {}
    for statement in chosen:
        for name, line in wanted.outside_imports(statement):
            if name in wanted.forbidden(statement):
                raise Unfit(f"{statement.module} needs {name} ({line}), which is not allowed")
            if lines.setdefault(name, line) != line:
                raise Unfit(f"{name} is both {lines[name]!r} and {line!r}")
    plain = sorted(line for line in set(lines.values()) if line.startswith("import"))
    members: dict[str, list[str]] = {}
    for line in set(lines.values()) - set(plain):
        source, _, name = line.partition(" import ")
        members.setdefault(source, []).append(name)
    return [
        *plain,
        *(f"{source} import {', '.join(sorted(names))}" for source, names in sorted(members.items())),
    ]


def _check(source: str, defined: Collection[str]) -> None:
    """Raises: Unfit: a name that is used has no definition."""
    tree = ast.parse(source)
    known = set(dir(builtins)) | {"__name__", "__file__", "__doc__"}
    module = parse("whole", source)
    known |= module.definitions.keys() | module.others.keys()
    for statement in tree.body:
        for name in sorted(free_names(statement)[0]):
            if name not in known:
                raise Unfit(f"{name} is used and not defined (line {statement.lineno})")
    if missing := sorted(set(defined) - known):
        raise Unfit(f"{missing[0]} was lost")
