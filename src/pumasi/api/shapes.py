"""From a strict JSON document to a value of ours: the shape is checked whole, and everything wrong is said at once."""

from collections.abc import Iterator, Mapping
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Struct

from pumasi.api.bodies import PATTERN_WORDS
from pumasi.control.refusals import FieldProblem

T = TypeVar("T")
PROBLEMS_LIMIT = 100

_hints: dict[type, dict[str, Any]] = {}


class WrongShape(Exception):
    """The document has not the shape asked for; `problems` says where and why."""

    def __init__(self, problems: list[FieldProblem]) -> None:
        super().__init__(problems[0].problem)
        self.problems = problems


def convert(document: object, shape: type[T], *, tolerant: bool = False) -> T:
    """The document as a value of `shape`. A bool is no number, a number no text, and no key may be unknown.

    `tolerant`: a key that a shape does not know is passed over, unless the shape itself forbids it.

    :raises WrongShape: naming up to `PROBLEMS_LIMIT` places.
    """
    try:
        value = msgspec.convert(document, shape)
    except msgspec.ValidationError as error:
        problems = list(_first(_problems(document, shape, "")))
        raise WrongShape(problems or [FieldProblem("", str(error))]) from None
    if not tolerant and not _is_strict(shape):
        unknown = list(_first(_strangers(document, shape, "")))
        if unknown:
            raise WrongShape(unknown)
    return value


def _is_strict(shape: object) -> bool:
    """Our own bodies forbid unknown keys themselves, at every depth; the model's types do not."""
    return isinstance(shape, type) and issubclass(shape, Struct) and shape.__struct_config__.forbid_unknown_fields


def _strangers(document: object, shape: object, path: str) -> Iterator[FieldProblem]:
    """Keys that `shape` does not know, at any depth; for shapes that are not strict by themselves."""
    shape = _bare(shape)
    if isinstance(shape, type) and issubclass(shape, Struct) and isinstance(document, dict):
        fields = _fields(shape)
        for key, value in document.items():
            if key in fields:
                yield from _strangers(value, fields[key], _join(path, key))
            else:
                yield _unknown_key(path, key, fields)
    elif isinstance(document, list) and get_args(shape):
        for index, item in enumerate(document):
            yield from _strangers(item, get_args(shape)[0], _join(path, str(index)))
    elif isinstance(document, dict) and get_origin(shape) is dict:
        for key, value in document.items():
            yield from _strangers(value, get_args(shape)[1], _join(path, key))


def _problems(document: object, shape: object, path: str) -> Iterator[FieldProblem]:
    inner = _bare(shape)
    if isinstance(inner, type) and issubclass(inner, Struct) and isinstance(document, dict):
        yield from _struct_problems(document, inner, path)
    elif isinstance(document, list) and get_origin(inner) in (tuple, list) and len(get_args(inner)) in (1, 2):
        yield from _item_problems(document, shape, get_args(inner)[0], path)
    else:
        yield from _value_problem(document, shape, path)


def is_whole_number(shape: type[Struct], name: str) -> bool:
    """True if the field of that name takes whole numbers."""
    return _bare(_fields(shape)[name]) is int


def _struct_problems(document: dict[str, Any], shape: type[Struct], path: str) -> Iterator[FieldProblem]:
    fields = _fields(shape)
    required = {field.encode_name for field in msgspec.structs.fields(shape) if field.required}
    for key, value in document.items():
        if key in fields:
            yield from _problems(value, fields[key], _join(path, key))
        else:
            yield _unknown_key(path, key, fields)
    for key in fields:
        if key in required and key not in document:
            yield FieldProblem(_join(path, key), "it is missing")


def _item_problems(document: list[Any], whole: object, item: object, path: str) -> Iterator[FieldProblem]:
    found = False
    for index, each in enumerate(document):
        for problem in _problems(each, item, _join(path, str(index))):
            found = True
            yield problem
    if not found:
        yield from _value_problem(document, whole, path)


def _value_problem(document: object, shape: object, path: str) -> Iterator[FieldProblem]:
    try:
        msgspec.convert(document, shape)
    except msgspec.ValidationError as error:
        message, _, where = str(error).partition(" - at `")
        inner = where.removeprefix("$.").rstrip("`") if where.startswith("$.") else ""
        yield FieldProblem(_join(path, inner), _pattern_words(shape, message) or _lower(message))


def _pattern_words(shape: object, message: str) -> str:
    """What a broken pattern means, in words; empty if it is not a pattern that is broken, or one without words."""
    if "matching regex" not in message:
        return ""
    patterns = [each.pattern for each in get_args(shape)[1:] if isinstance(each, msgspec.Meta) and each.pattern]
    return next((PATTERN_WORDS[pattern] for pattern in patterns if pattern in PATTERN_WORDS), "")


def _first(problems: Iterator[FieldProblem]) -> Iterator[FieldProblem]:
    for _, problem in zip(range(PROBLEMS_LIMIT), problems, strict=False):
        yield problem


def _fields(shape: type[Struct]) -> dict[str, Any]:
    if shape not in _hints:
        types = get_type_hints(shape, include_extras=True)
        _hints[shape] = {field.encode_name: types[field.name] for field in msgspec.structs.fields(shape)}
    return _hints[shape]


def _bare(shape: object) -> object:
    """The shape without annotations and without None."""
    if get_origin(shape) is Annotated:
        return _bare(get_args(shape)[0])
    if get_origin(shape) in (Union, UnionType):
        others = [each for each in get_args(shape) if each is not type(None)]
        return _bare(others[0]) if len(others) == 1 else shape
    return shape


def _unknown_key(path: str, key: str, fields: Mapping[str, Any]) -> FieldProblem:
    close = next(
        (name for name in fields if name.replace("_", "") == key.lower().replace("_", "").replace("-", "")), ""
    )
    hint = f"; did you mean {close}?" if close else ""
    return FieldProblem(_join(path, ascii(key[:60])[1:-1]), f"it is not known here{hint}")


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path and key else path or key


def _lower(message: str) -> str:
    return message[:1].lower() + message[1:]
