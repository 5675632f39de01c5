"""A job as a YAML file. Duplicate keys, anchors and aliases are refused, and so is every key that means nothing."""

from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

from msgspec import Struct

from pumasi.cli.durations import LONGEST_SECONDS
from pumasi.cli.submission.draft import (
    NUMBER_MAX,
    Draft,
    duration_seconds,
    memory_mib,
    parse_array,
    signal_name,
    slice_name,
)
from pumasi.cli.submission.options import OptionProblem
from pumasi.model.fleet import CpuArch
from pumasi.model.ids import is_queue_path
from pumasi.model.jobs import Level

FILE_BYTES_MAX = 1024 * 1024
DEPTH_MAX = 8


class Node(Struct, frozen=True):
    """A value of the file and the line it stands in. Mappings hold (line of the key, node) by key, lists hold nodes."""

    line: int
    value: Any


def read_job_file(text: str, name: str) -> tuple[Draft, list[str]]:
    """The draft a YAML job describes, and every problem with its line. `name`: the job's, if the file gives none."""
    draft = Draft(name=name)
    try:
        root = _parse(text)
    except OptionProblem as problem:
        return draft, [str(problem)]
    problems = _apply_keys(draft, root, KEYS, "")
    if not draft.script and not problems:
        problems.append("line 1: script: the job has no script (or 'command')")
    return draft, problems


def is_job_file(path: str) -> bool:
    """True if the name says YAML."""
    return Path(path).suffix.lower() in {".yaml", ".yml"}


def _apply_keys(draft: Draft, root: Node, keys: "dict[str, Key]", prefix: str) -> list[str]:
    if not isinstance(root.value, dict):
        return [f"line {root.line}: {prefix.rstrip('.') or 'the file'}: expected keys and values"]
    problems = []
    for name, (line, node) in root.value.items():
        try:
            if name not in keys:
                raise OptionProblem(f"there is no such key{_suggest(name, keys)}")
            problems += keys[name].apply(draft, node) or []
        except OptionProblem as problem:
            problems.append(f"line {line}: {prefix}{name}: {problem}")
    return problems


def _suggest(name: str, keys: "dict[str, Key]") -> str:
    close = get_close_matches(name, keys, n=1)
    return f"; did you mean {close[0]}?" if close else ""


# --- values ----------------------------------------------------------------------------------------------------------


def _text(node: Node) -> str:
    if not isinstance(node.value, str) or not node.value:
        raise OptionProblem("expected text")
    return node.value


def _line(node: Node) -> str:
    if not _text(node).isprintable():
        raise OptionProblem("expected one line of printable characters")
    return _text(node)


def _queue(node: Node) -> str:
    if not is_queue_path(_text(node)):
        raise OptionProblem(f"{node.value!r} is no queue; a queue is a path such as public/academia")
    return _text(node)


def _whole(least: int, most: int = NUMBER_MAX) -> Callable[[Node], int]:
    def convert(node: Node) -> int:
        if not isinstance(node.value, int) or isinstance(node.value, bool) or not least <= node.value <= most:
            raise OptionProblem(f"expected a number from {least:,} to {most:,}")
        return node.value

    return convert


def _slice(node: Node) -> str:
    return slice_name(_text(node))


def _flag(node: Node) -> bool:
    if not isinstance(node.value, bool):
        raise OptionProblem("expected true or false")
    return node.value


def _duration(node: Node) -> int:
    """A bare number is seconds here; text is read as Slurm reads it."""
    if isinstance(node.value, str):
        return duration_seconds(node.value)
    return _whole(1, LONGEST_SECONDS)(node)


def _memory(node: Node) -> int:
    return memory_mib(str(node.value) if isinstance(node.value, int) else _text(node))


def _texts(node: Node) -> tuple[str, ...]:
    if isinstance(node.value, str):
        return (_text(node),)
    if not isinstance(node.value, list):
        raise OptionProblem("expected a list of names")
    return tuple(_text(item) for item in node.value)


def _choice(choices: list[str]) -> Callable[[Node], str]:
    def convert(node: Node) -> str:
        if node.value not in choices:
            raise OptionProblem(f"expected one of {', '.join(choices)}")
        return str(node.value)

    return convert


def _environment(node: Node) -> dict[str, str]:
    if not isinstance(node.value, dict):
        raise OptionProblem("expected names and values")
    found = {}
    for name, (_, item) in node.value.items():
        if not isinstance(item.value, str | int) or isinstance(item.value, bool):
            raise OptionProblem(f"{name}: expected text; put it in quotes")
        found[name] = str(item.value)
    return found


def _array(node: Node) -> tuple[int, ...]:
    return parse_array(str(node.value) if isinstance(node.value, int) else _text(node))


def _signal(node: Node) -> str:
    return signal_name(_text(node))


# --- keys ------------------------------------------------------------------------------------------------------------


class Key(NamedTuple):
    """What a key does to the draft, and a line for the reference. `apply` may return problems of what is below it."""

    apply: Callable[[Draft, Node], list[str] | None]
    help: str


def _attribute(attribute: str, convert: Callable[[Node], object], help_text: str) -> Key:
    def apply(draft: Draft, node: Node) -> None:
        setattr(draft, attribute, convert(node))

    return Key(apply, help_text)


def _field(name: str, convert: Callable[[Node], object], help_text: str) -> Key:
    def apply(draft: Draft, node: Node) -> None:
        draft.fields[name] = convert(node)

    return Key(apply, help_text)


def _apply_command(draft: Draft, node: Node) -> None:
    draft.script = f"#!/bin/sh\n{_text(node)}\n"


def _apply_script(draft: Draft, node: Node) -> None:
    if not _text(node).startswith("#!"):
        raise OptionProblem("its first line must name an interpreter, such as #!/bin/bash; 'command' needs none")
    draft.script = _text(node)


def _apply_notice(draft: Draft, node: Node) -> list[str]:
    return _apply_keys(draft, node, NOTICE_KEYS, "notice.")


def _apply_topology(draft: Draft, node: Node) -> list[str]:
    if isinstance(node.value, str):
        draft.topology = {"level": _choice(list(Level))(node)}
        return []
    below = Draft()
    problems = _apply_keys(below, node, TOPOLOGY_KEYS, "topology.")
    draft.topology = below.fields
    return problems


NOTICE_KEYS = {
    "signal": _field("notice_signal", _signal, "Signal it gets before it is stopped; TERM by default."),
    "seconds": _field("notice_seconds", _whole(0, LONGEST_SECONDS), "How long before; the lending contract decides."),
}

TOPOLOGY_KEYS = {
    "level": _field("level", _choice(list(Level)), "rack, block or pool."),
    "required": _field("required", _flag, "true: nothing wider will do."),
    "spread": _field("spread", _flag, "true: in as many racks of it as can be, so that one fault takes few nodes."),
}

KEYS = {
    "name": _attribute("name", _line, "Name of the job; the file's name by default."),
    "queue": _attribute("queue", _queue, "Queue to charge, as a path: `public/academia`."),
    "script": Key(_apply_script, "The script, its first line naming an interpreter."),
    "command": Key(_apply_command, "Instead of `script`: a shell command."),
    "gpus": _attribute("gpus", _whole(1), "GPUs in all."),
    "nodes": _attribute("nodes", _whole(1), "Number of nodes."),
    "gpus_per_node": _attribute("gpus_per_node", _whole(1), "GPUs on each node."),
    "slice": _field("slice", _slice, "Its GPUs are slices of this MIG profile: `1g.23gb`; or `shard`."),
    "gpu_models": _attribute("gpu_types", _texts, "GPU models, or types such as `b200`, it may run on."),
    "memory_gib_per_gpu": _field("memory_gib_per_gpu", _whole(1), "Least memory of each GPU, in GiB."),
    "cpus_per_gpu": _field("cpus_per_gpu", _whole(1), "CPUs for each GPU."),
    "cpus_per_node": _field("cpus_per_node", _whole(1), "CPUs on each node."),
    "memory_per_gpu": _field("host_memory_mib_per_gpu", _memory, "Memory of the node for each GPU: `128G`."),
    "memory_per_node": _field("host_memory_mib_per_node", _memory, "Memory on each node; a bare number is MiB."),
    "cpu_arch": _field("cpu_arch", _choice(list(CpuArch)), "`x86_64` or `arm64`."),
    "sites": _attribute("sites", _texts, "Sites it may run at."),
    "pools": _attribute("pools", _texts, "Pools it may run in."),
    "prefers": _attribute("prefers", _texts, "Pools or sites to try first, in this order; it may run at others too."),
    "time_limit": _attribute("time_limit_seconds", _duration, "Limit: `2h`, `1-12:00:00`; a bare number is seconds."),
    "data_class": _field("data_class", _line, "Class of the data it reads; `open` by default."),
    "stays_home": _field("stays_home", _flag, "true: never leaves pools its owner is entitled to."),
    "may_borrow": _field("may_borrow", _flag, "false: never runs on what others lend."),
    "priority": _field("priority", _whole(-NUMBER_MAX), "Priority within its queue; higher goes first."),
    "topology": Key(_apply_topology, "`rack`, `block` or `pool`, or keys `level`, `required` and `spread`."),
    "segment_nodes": _field("segment_nodes", _whole(1), "Nodes that must share one NVLink domain."),
    "requeue": _field("requeue", _flag, "false: it ends when its GPUs are reclaimed."),
    "notice": Key(_apply_notice, "Keys `signal` and `seconds`: what it gets before it is stopped."),
    "checkpoint": _field("checkpoint_seconds", _duration, "How often it saves its work: `30m`."),
    "environment": _attribute("environment", _environment, "Variables, name by name."),
    "working_directory": _field("working_directory", _line, "Folder it runs in, at the site."),
    "stdout": _field("stdout", _line, "Where its output goes; %j is its number."),
    "stderr": _field("stderr", _line, "Where its error output goes."),
    "begin": _attribute("begin", _line, "Do not start before: `now+2h`, `2027-01-31T08:00`."),
    "held": _attribute("held", _flag, "true: held until `pumasi release`."),
    "array": _attribute("array", _array, "One job for each index: `0-9`, `1,3,5`, `0-15:4`."),
}  # fmt: skip


# --- YAML ------------------------------------------------------------------------------------------------------------


def _parse(text: str) -> Node:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    if len(text.encode("utf-8", "surrogatepass")) > FILE_BYTES_MAX:
        raise OptionProblem(f"the file is larger than {FILE_BYTES_MAX // 1024} KiB")
    _refuse_references(text)
    reader = YAML(typ="safe", pure=True)
    try:
        graph = reader.compose(text)
    except YAMLError as error:
        raise OptionProblem(_yaml_problem(error)) from error
    if graph is None:
        raise OptionProblem("line 1: the file is empty")
    return _node(graph, reader.constructor, 0)


def _refuse_references(text: str) -> None:
    """Anchors and aliases are refused before anything is expanded; depth is bounded on the same pass."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError
    from ruamel.yaml.events import AliasEvent, CollectionEndEvent, CollectionStartEvent, NodeEvent

    depth = 0
    try:
        for event in YAML(typ="safe", pure=True).parse(text):
            line = event.start_mark.line + 1
            if isinstance(event, AliasEvent) or (isinstance(event, NodeEvent) and event.anchor):
                raise OptionProblem(f"line {line}: anchors and aliases are not allowed")
            depth += isinstance(event, CollectionStartEvent) - isinstance(event, CollectionEndEvent)
            if depth > DEPTH_MAX:
                raise OptionProblem(f"line {line}: nested more than {DEPTH_MAX} deep")
    except YAMLError as error:
        raise OptionProblem(_yaml_problem(error)) from error


def _yaml_problem(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    where = f"line {mark.line + 1}: " if mark else ""
    return f"{where}this is not YAML: {getattr(error, 'problem', None) or error}"


def _node(graph: Any, constructor: Any, depth: int) -> Node:
    from ruamel.yaml.nodes import MappingNode, SequenceNode

    line = graph.start_mark.line + 1
    if isinstance(graph, MappingNode):
        return Node(line, _mapping(graph, constructor, depth))
    if isinstance(graph, SequenceNode):
        return Node(line, [_node(item, constructor, depth + 1) for item in graph.value])
    return Node(line, _scalar(graph, constructor))


def _mapping(graph: Any, constructor: Any, depth: int) -> dict[str, tuple[int, Node]]:
    found: dict[str, tuple[int, Node]] = {}
    for key, value in graph.value:
        line = key.start_mark.line + 1
        name = _scalar(key, constructor) if isinstance(key.value, str) else None
        if not isinstance(name, str):
            raise OptionProblem(f"line {line}: a key must be text")
        if name in found:
            raise OptionProblem(f"line {line}: {name} is given twice; the first is in line {found[name][0]}")
        found[name] = (line, _node(value, constructor, depth + 1))
    return found


def _scalar(graph: Any, constructor: Any) -> Any:
    """The value by YAML 1.2; dates and other types of YAML are left as the text they are."""
    short = graph.tag.rpartition(":")[2]
    convert = {
        "int": constructor.construct_yaml_int,
        "bool": constructor.construct_yaml_bool,
        "float": constructor.construct_yaml_float,
        "null": constructor.construct_yaml_null,
    }.get(short)
    if convert is None:
        return graph.value
    try:
        return convert(graph)
    except ValueError as error:
        raise OptionProblem(f"line {graph.start_mark.line + 1}: {graph.value!r} is no {short}") from error
