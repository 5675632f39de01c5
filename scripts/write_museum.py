"""Write the page of the complaints museum from the scripts in `tests/museum`: which thread, what is said, what happens.

`python -m scripts.write_museum` writes `docs/museum.md`; a test compares the page with the scripts.
"""

from pathlib import Path

from msgspec import Struct

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = ROOT / "tests/museum"
PAGE = ROOT / "docs/museum.md"

HEAD = """# The complaints museum

<!-- Written by scripts/write_museum.py from tests/museum/*.txt. Change a script, then run `make docs`. -->

What users of other schedulers report, reproduced as a small fleet with its jobs and failures, and what Pumasi does in
the same place. Each exhibit is a script with its transcript, replayed by the tests; every plan in it is judged and
every state checked. How the decisions come about: [How Pumasi decides](concepts/scheduling.md). The transcripts show
decisions, not speed.
"""

REPOSITORIES = {
    "KAI-Scheduler": "NVIDIA/KAI-Scheduler",
    "armada": "armadaproject/armada",
    "kubernetes": "kubernetes/kubernetes",
    "kueue": "kubernetes-sigs/kueue",
    "skypilot": "skypilot-org/skypilot",
    "volcano": "volcano-sh/volcano",
    "yunikorn-site": "apache/yunikorn-site",
}


class Exhibit(Struct, frozen=True):
    """A script: the threads it is about, what is said there and what happens here, and its text."""

    path: Path
    threads: tuple[str, ...]
    topic: str
    there: str
    here: str
    text: str

    @property
    def name(self) -> str:
        """Its file's name without the ending."""
        return self.path.stem


def exhibits() -> list[Exhibit]:
    """All of them, by topic and name.

    :raises KeyError: if a script lacks one of the lines that say what it is.
    """
    found = [_exhibit(path) for path in SCRIPTS.glob("*.txt")]
    return sorted(found, key=lambda exhibit: (exhibit.topic, exhibit.name))


def _exhibit(path: Path) -> Exhibit:
    text = path.read_text(encoding="utf-8")
    said = dict(line[2:].split(": ", 1) for line in text.splitlines()[:4])
    return Exhibit(path, tuple(said["thread"].split(", ")), said["topic"], said["there"], said["here"], text)


def page(found: list[Exhibit]) -> str:
    """The page: a table for each topic."""
    lines = [HEAD]
    for topic in dict.fromkeys(exhibit.topic for exhibit in found):
        lines += [f"## {topic.capitalize()}", "", "| thread | there | here | transcript |", "|---|---|---|---|"]
        lines += [_row(exhibit) for exhibit in found if exhibit.topic == topic]
        lines.append("")
    return "\n".join(lines)


def _row(exhibit: Exhibit) -> str:
    threads = ", ".join(_link(thread) for thread in exhibit.threads)
    there, here = (_sentence(text) for text in (exhibit.there, exhibit.here))
    return f"| {threads} | {there} | {here} | [{exhibit.name}](../tests/museum/{exhibit.path.name}) |"


def _link(thread: str) -> str:
    repository, number = thread.split("#")
    return f"[{thread}](https://github.com/{REPOSITORIES.get(repository, repository)}/issues/{number})"


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


if __name__ == "__main__":
    PAGE.write_text(page(exhibits()), encoding="utf-8")
    print(f"docs: museum.md written from {len(exhibits())} scripts")
