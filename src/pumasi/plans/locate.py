"""Where plan files are: the shipped ones in the wheel or in a checkout, others where the user says."""

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent
_PLACES = (_PACKAGE / "data", _PACKAGE.parents[2] / "plans")  # installed wheel; checkout


def find_data_file(name: str) -> Path:
    """The path of a file that ships with Pumasi.

    :raises FileNotFoundError: if the installation lacks it.
    """
    for place in _PLACES:
        if (place / name).is_file():
            return place / name
    raise FileNotFoundError(f"{name} is missing from this installation of pumasi; install it again")


def shipped_plans() -> tuple[str, ...]:
    """The names of the plans that ship with Pumasi, such as `korea`."""
    files = {path for place in _PLACES if place.is_dir() for path in place.glob("*.yaml")}
    return tuple(sorted({path.stem for path in files} - {"gpu_models"}))


def find_plan(name: str) -> Path:
    """The plan file a user means by `name`: a path, or the name of a shipped plan such as `korea`.

    :raises FileNotFoundError: if there is neither.
    """
    if _exists(Path(name)):
        return Path(name)
    if name in shipped_plans():
        return find_data_file(f"{name}.yaml")
    shipped = ", ".join(shipped_plans())
    raise FileNotFoundError(
        f"there is no plan file {name!r}, nor does a plan of that name ship with Pumasi ({shipped})"
    )


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a name too long, or a folder that may not be looked into
        return False
