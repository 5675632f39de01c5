"""On what each figure of a plan rests: sources with a confidence, or an assumption that says so.

`basis:` stands at the plan, at an owner, site, pool, GPU model or queue. It is the name of an entry of `bases:`, one
written out, or a mapping from a part (`nodes`, `stages.ordered`; `all` for the rest) to one of these. The longest part
that covers a figure wins; what an item leaves open falls to the queue above it, then to the plan.
"""

from collections.abc import Iterator
from enum import StrEnum

from msgspec import Struct

from pumasi.plans.problems import Problems, printable, quoted, suggestion
from pumasi.plans.section import Section
from pumasi.plans.yaml_tree import Mapping, Node, Scalar, Sequence

ALL = "all"
_ITEMS = ("gpu_models", "owners", "sites", "pools", "placement_rules")
_NO_FIGURES = frozenset({"title", "basis", "kind", "industry", "children"})  # names and words of ours, not facts found


class Confidence(StrEnum):
    """How far a source may be trusted."""

    HIGH = "H"  # official, or two or more independent outlets agree
    MEDIUM = "M"  # one credible outlet, or several that repeat one origin
    LOW = "L"  # aggregators, mirrors, arithmetic of ours


class Basis(Struct, frozen=True, kw_only=True):
    """Sources (tags of `sources:`) with a confidence, or an assumption; an assumption may name sources it leans on."""

    sources: tuple[str, ...] = ()
    confidence: Confidence | None = None
    assumption: str = ""

    def __str__(self) -> str:
        """`B1 B2 (H)`, or `assumption: ...`."""
        if self.assumption:
            return f"assumption: {self.assumption}"
        return f"{' '.join(self.sources)} ({self.confidence})"


_WRITTEN_OUT = frozenset(Basis.__struct_fields__)
_FORM = "sources and confidence (H, M or L), or an assumption"


class Figure(Struct, frozen=True, kw_only=True):
    """A value of the plan file with what it rests on."""

    path: str
    value: str
    line: int
    basis: Basis


class Provenance(Struct, frozen=True, kw_only=True):
    """All figures of a plan file, and the address or description of each source tag."""

    figures: tuple[Figure, ...]
    sources: dict[str, str]


def read_provenance(root: Section) -> Provenance:
    """Read `sources`, `bases` and every `basis`; a figure without one is a mistake."""
    bases = _Bases(root)
    default = bases.table(root.node, "").get(ALL)
    figures: list[Figure] = []
    for path, node in _items(root.node):
        figures.extend(_Scope(bases, node, path, default).figures())
    queues = root.node.entries.get("queues")
    for name, node in _mappings(queues):
        figures.extend(_queue_figures(bases, node, f"queues.{name}", default))
    return Provenance(figures=tuple(figures), sources=bases.sources)


def _items(root: Mapping) -> Iterator[tuple[str, Mapping]]:
    for section in _ITEMS:
        for name, node in _mappings(root.entries.get(section)):
            yield f"{section}.{name}", node


def _mappings(node: Node | None) -> Iterator[tuple[str, Mapping]]:
    if isinstance(node, Mapping):
        yield from ((name, child) for name, child in node.entries.items() if isinstance(child, Mapping))


def _queue_figures(bases: "_Bases", node: Mapping, path: str, inherited: Basis | None) -> Iterator[Figure]:
    scope = _Scope(bases, node, path, inherited)
    yield from scope.figures()
    for name, child in _mappings(node.entries.get("children")):
        yield from _queue_figures(bases, child, f"{path}.children.{name}", scope.rest)


class _Bases:
    """The named bases and source tags of a file."""

    def __init__(self, root: Section) -> None:
        self.problems: Problems = root.problems
        listed = root.section("sources")
        self.sources = {tag: listed.text(tag, None, "the address of the source") for tag in listed.node.entries}
        named = root.section("bases")
        self._named = {name: self.read(named.section(name)) for name in named.node.entries}

    def read(self, section: Section) -> Basis:
        """A basis written out; after a mistake what there is of it, so that what it covers counts as covered."""
        basis = Basis(
            sources=section.words("sources"),
            confidence=section.choice("confidence", Confidence) if section.has("confidence") else None,
            assumption=section.text("assumption", ""),
        )
        for tag in basis.sources:
            if tag not in self.sources:
                message = f"{quoted(tag)} is not among the plan's sources{suggestion(tag, self.sources)}"
                section.complain("sources", message)
        self._check_form(section, basis)
        section.finish()
        return basis

    def _check_form(self, section: Section, basis: Basis) -> None:
        if not section.clean():
            return
        if basis.assumption and basis.confidence is not None:
            section.complain("confidence", "an assumption has no confidence; leave one of the two out")
        if not basis.assumption and not (basis.sources and basis.confidence):
            section.complain("", f"needs {_FORM}")

    def table(self, item: Mapping, path: str) -> dict[str, Basis]:
        """The `basis` of an item, by the part it covers."""
        node = item.entries.get("basis")
        if node is None:
            return {}
        owner = Section(item, path, self.problems)
        if isinstance(node, Mapping) and not _WRITTEN_OUT & node.entries.keys():
            parts = owner.section("basis")
            return {part: self._entry(parts, part) for part in node.entries}
        return {ALL: self._entry(owner, "basis")}

    def _entry(self, section: Section, key: str) -> Basis:
        if isinstance(section.take(key), Mapping):
            return self.read(section.section(key))
        name = section.text(key, None, f"the name of one of the plan's bases, or {_FORM}")
        if name and name not in self._named:
            section.complain(key, f"{quoted(name)} is not among the plan's bases{suggestion(name, self._named)}")
        return self._named.get(name, Basis())


class _Scope:
    """One item and the bases that cover its figures."""

    def __init__(self, bases: _Bases, node: Mapping, path: str, inherited: Basis | None) -> None:
        self._node = node
        self._path = path
        self._problems = bases.problems
        self._table = bases.table(node, path)
        self._used = {ALL}
        self._silent = not self._table and inherited is None
        self.rest = self._table.get(ALL, inherited)

    def figures(self) -> list[Figure]:
        """The item's figures; those without a basis, and bases without a figure, are mistakes."""
        leaves = list(_leaves(self._node, ""))
        if self._silent and leaves and "basis" not in self._node.entries:
            parts = ", ".join(part for part, _ in leaves)
            self._complain(self._node, "", f"nothing says where its figures come from ({parts}); add a basis: {_FORM}")
            return []
        found = [figure for part, node in leaves if (figure := self._figure(part, node))]
        for part in self._table:
            if part not in self._used:
                message = f"covers no figure of this item; '{ALL}' covers what the other parts leave open"
                self._complain(self._node, f"basis.{part}", message)
        return found

    def _figure(self, part: str, node: Scalar | Sequence) -> Figure | None:
        key = self._covering(part)
        basis = self.rest if key is None else self._table[key]
        if basis is None:
            self._complain(node, part, f"nothing says where this figure comes from; add a basis: {_FORM}")
            return None
        return Figure(path=f"{self._path}.{part}", value=_shown(node), line=node.line, basis=basis)

    def _covering(self, part: str) -> str | None:
        """The longest key of the table that is `part` or a part around it."""
        while part:
            if part in self._table and part != ALL:
                self._used.add(part)
                return part
            part = part.rpartition(".")[0]
        return None

    def _complain(self, node: Node, part: str, message: str) -> None:
        self._problems.add(node.line, node.column, printable(f"{self._path}.{part}".rstrip(".")), message)


def _leaves(node: Mapping, prefix: str) -> Iterator[tuple[str, Scalar | Sequence]]:
    for key, child in node.entries.items():
        if not prefix and key in _NO_FIGURES:
            continue
        if isinstance(child, Mapping):
            yield from _leaves(child, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", child


def _shown(node: Scalar | Sequence) -> str:
    if isinstance(node, Scalar):
        return printable(node.text)
    return ", ".join(printable(item.text) for item in node.items if isinstance(item, Scalar))
