"""JSON Schema, draft 2020-12: the keywords that our schema files use, and no others."""

import re
from typing import Any

_TYPES: dict[str, type | tuple[type, ...]] = {
    "object": dict,
    "array": list,
    "string": str,
    "boolean": bool,
    "null": type(None),
}
_ANNOTATIONS = {"$schema", "title", "description", "$defs"}
_APPLIED = {"properties", "additionalProperties", "items", "prefixItems", "then", "else"}


def problems(value: Any, schema: Any, root: Any, place: str = "$") -> list[str]:
    """Returns what is wrong with a value, each with its place; nothing where it conforms.

    Raises ValueError for a keyword that this module does not know: what is not checked must not look checked.
    """
    if isinstance(schema, bool):
        return [] if schema else [f"{place}: not allowed"]
    out: list[str] = []
    for keyword, wanted in schema.items():
        if keyword in _ANNOTATIONS | _APPLIED:
            continue
        check = _CHECKS.get(keyword)
        if check is None:
            raise ValueError(f"keyword {keyword}")
        out += [f"{place}: {text}" if text[:1] != "$" else text for text in check(value, wanted, root, place)]
    if isinstance(value, dict):
        out += _object(value, schema, root, place)
    if isinstance(value, list):
        out += _array(value, schema, root, place)
    if "if" in schema:
        branch = "else" if problems(value, schema["if"], root, place) else "then"
        out += problems(value, schema.get(branch, True), root, place)
    return out


def _object(value: dict[str, Any], schema: Any, root: Any, place: str) -> list[str]:
    out = []
    known = schema.get("properties", {})
    for name, entry in value.items():
        rule = known[name] if name in known else schema.get("additionalProperties", True)
        out += problems(entry, rule, root, f"{place}.{name}")
    return out


def _array(value: list[Any], schema: Any, root: Any, place: str) -> list[str]:
    first = schema.get("prefixItems", [])
    out = []
    for number, entry in enumerate(value):
        rule = first[number] if number < len(first) else schema.get("items", True)
        out += problems(entry, rule, root, f"{place}[{number}]")
    return out


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _type(value: Any, wanted: str, _root: Any, _place: str) -> list[str]:
    if wanted in ("integer", "number"):
        fits = _is_number(value) and (wanted == "number" or value == int(value))
    else:
        fits = isinstance(value, _TYPES[wanted])
    return [] if fits else [f"{value!r} is no {wanted}"]


def _same(value: Any, wanted: Any) -> bool:
    return value == wanted and isinstance(value, bool) == isinstance(wanted, bool)


def _const(value: Any, wanted: Any, _root: Any, _place: str) -> list[str]:
    return [] if _same(value, wanted) else [f"{value!r} is not {wanted!r}"]


def _enum(value: Any, wanted: list[Any], _root: Any, _place: str) -> list[str]:
    return [] if any(_same(value, entry) for entry in wanted) else [f"{value!r} is none of {wanted}"]


def _pattern(value: Any, wanted: str, _root: Any, _place: str) -> list[str]:
    return [f"{value!r} does not match"] if isinstance(value, str) and not re.search(wanted, value) else []


def _minimum(value: Any, wanted: int, _root: Any, _place: str) -> list[str]:
    return [f"{value} is below {wanted}"] if _is_number(value) and value < wanted else []


def _maximum(value: Any, wanted: int, _root: Any, _place: str) -> list[str]:
    return [f"{value} is above {wanted}"] if _is_number(value) and value > wanted else []


def _min_items(value: Any, wanted: int, _root: Any, _place: str) -> list[str]:
    return [f"fewer than {wanted}"] if isinstance(value, list) and len(value) < wanted else []


def _max_items(value: Any, wanted: int, _root: Any, _place: str) -> list[str]:
    return [f"more than {wanted}"] if isinstance(value, list) and len(value) > wanted else []


def _min_length(value: Any, wanted: int, _root: Any, _place: str) -> list[str]:
    return [f"shorter than {wanted}"] if isinstance(value, str) and len(value) < wanted else []


def _unique(value: Any, wanted: bool, _root: Any, _place: str) -> list[str]:
    twice = wanted and isinstance(value, list) and len({repr(entry) for entry in value}) < len(value)
    return ["something twice"] if twice else []


def _required(value: Any, wanted: list[str], _root: Any, _place: str) -> list[str]:
    return [f"{name} is missing" for name in wanted if isinstance(value, dict) and name not in value]


def _ref(value: Any, wanted: str, root: Any, place: str) -> list[str]:
    prefix = "#/$defs/"
    if not wanted.startswith(prefix):
        raise ValueError(f"reference {wanted}")
    return problems(value, root["$defs"][wanted.removeprefix(prefix)], root, place)


def _all_of(value: Any, wanted: list[Any], root: Any, place: str) -> list[str]:
    return [text for entry in wanted for text in problems(value, entry, root, place)]


def _any_of(value: Any, wanted: list[Any], root: Any, place: str) -> list[str]:
    found = [problems(value, entry, root, place) for entry in wanted]
    return [] if not all(found) else min(found, key=len)


def _if(_value: Any, _wanted: Any, _root: Any, _place: str) -> list[str]:
    # Together with `then` and `else`, in `problems`.
    return []


_CHECKS = {
    "type": _type,
    "const": _const,
    "enum": _enum,
    "pattern": _pattern,
    "minimum": _minimum,
    "maximum": _maximum,
    "minItems": _min_items,
    "maxItems": _max_items,
    "minLength": _min_length,
    "uniqueItems": _unique,
    "required": _required,
    "$ref": _ref,
    "allOf": _all_of,
    "anyOf": _any_of,
    "if": _if,
}
