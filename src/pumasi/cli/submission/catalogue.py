"""What names of pools, sites and GPU types mean in the fleet at hand."""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any, NamedTuple

from pumasi.cli.submission.draft import ARCHITECTURES
from pumasi.cli.submission.options import OptionProblem


class Catalogue(NamedTuple):
    """Pools with the site and the GPU model of each."""

    pools: Mapping[str, tuple[str, str]]

    @classmethod
    def of(cls, rows: Iterable[Mapping[str, Any]]) -> "Catalogue":
        """From pools as the API lists them."""
        return cls({str(row["id"]): (str(row["site"]), str(row["model"])) for row in rows})

    @property
    def sites(self) -> set[str]:
        """The sites that have pools."""
        return {site for site, _ in self.pools.values()}

    @property
    def models(self) -> list[str]:
        """The GPU models there are."""
        return sorted({model for _, model in self.pools.values()})

    def places(self, names: Iterable[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Pools and sites among `names`; a name of both is the pool.

        :raises OptionProblem: for a name that is neither.
        """
        pools, sites = [], []
        for name in names:
            if name in self.pools:
                pools.append(name)
            elif name in self.sites:
                sites.append(name)
            else:
                raise OptionProblem(f"there is no pool or site {name}{_suggest(name, [*self.pools, *self.sites])}")
        return tuple(pools), tuple(sites)

    def models_of(self, kind: str) -> set[str]:
        """The models a GPU type stands for: the model itself, or any that has the type as a part between hyphens.

        :raises OptionProblem: if there is none.
        """
        wanted = kind.lower().replace("_", "-")
        found = {model for model in self.models if f"-{wanted}-" in f"-{model.lower()}-"}
        if not found:
            raise OptionProblem(f"no pool has a GPU {kind!r}; there are {', '.join(self.models) or 'none'}")
        return found

    def constraint(self, text: str) -> tuple[set[str], str]:
        """GPU models (empty: any) and CPU architecture ("": any) that `--constraint` asks for.

        `&` joins requirements, `|` alternatives; a requirement is a choice of GPU types or of architectures.

        :raises OptionProblem: for anything else.
        """
        models: set[str] | None = None
        architectures: set[str] = set()
        for group in _groups(text):
            if group <= ARCHITECTURES.keys():
                chosen = {ARCHITECTURES[name] for name in group}
                architectures = architectures & chosen if architectures else chosen
            else:
                found = set().union(*(self.models_of(name) for name in group))
                models = found if models is None else models & found
        if models is not None and not models:
            raise OptionProblem(f"no GPU model meets all of {text!r}")
        return models or set(), architectures.pop() if len(architectures) == 1 else ""


def _groups(text: str) -> list[set[str]]:
    groups = [set(part.strip(" ()[]").split("|")) for part in text.split("&")]
    if any(not name or not name.replace("-", "").replace("_", "").isalnum() for group in groups for name in group):
        raise OptionProblem(f"{text!r} is not understood; write for example b200|b300, or h200&x86_64")
    return groups


def _suggest(name: str, known: list[str]) -> str:
    close = get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]}?" if close else ""
