"""The base of all settings: immutable, no unknown keys, and every number, text and truth value of its own kind only.

pydantic would take `true` for the number 1 and "8" for 8. Its own strict mode would refuse lists where tuples are kept,
which is all that YAML has; so strictness is put on the leaves of a model's schema.
"""

from __future__ import annotations

import re
from typing import Any

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

_LEAVES = ("int", "float", "bool", "str")
# What stands in a schema beside the schemas in it.
_NO_SCHEMA = ("metadata", "default", "serialization", "expected")
# YAML 1.1 reads a number such as 1e-3, without a dot, as text.
_EXPONENT = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d{1,4}", re.ASCII)


def _strict(schema: Any) -> Any:
    if isinstance(schema, list | tuple):
        return type(schema)(_strict(one) for one in schema)
    if not isinstance(schema, dict):
        return schema
    made = {name: value if name in _NO_SCHEMA else _strict(value) for name, value in schema.items()}
    if made.get("type") not in _LEAVES or made.get("strict"):
        return made
    made["strict"] = True
    if made["type"] == "float":
        return core_schema.no_info_before_validator_function(_number, made)
    return made


def _number(given: Any) -> Any:
    return float(given) if isinstance(given, str) and _EXPONENT.fullmatch(given) else given


class Frozen(BaseModel):
    """An immutable model that refuses unknown keys, and a boolean or a text for a number."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Make every leaf strict, in lists and unions too; whole numbers still stand for floats."""
        made: CoreSchema = _strict(handler(source))
        return made
