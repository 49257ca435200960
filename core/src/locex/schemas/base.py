"""The rules that hold for every configuration users write: tolerant of strings, strict about keys.

Numbers and booleans may come as strings ("64", "0.005", "True"), a scalar may stand where a list of one is meant,
``null`` means "not given", and floats are finite.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar, get_args, get_origin

from pydantic import AliasChoices, BaseModel, ConfigDict, ValidationError, model_validator
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from locex.errors import InvalidConfiguration


class Configuration(BaseModel):
    """Base of everything a user configures: unknown keys are refused, ``null`` is dropped, lists take scalars."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True, allow_inf_nan=False, hide_input_in_errors=True)

    @model_validator(mode="before")
    @classmethod
    def _lenient(cls, given: Any) -> Any:
        if not isinstance(given, Mapping):
            return given
        lists = _list_keys(cls)
        return {
            key: [value] if key in lists and not isinstance(value, list | tuple) else value
            for key, value in given.items()
            if value is not None
        }


def _list_keys(model: type[BaseModel]) -> set[str]:
    keys: set[str] = set()
    for name, field in model.model_fields.items():
        if any(get_origin(part) in {list, tuple} for part in (field.annotation, *get_args(field.annotation))):
            keys |= {name, field.alias or name}
    return keys


class TolerantJsonSchema(GenerateJsonSchema):
    """JSON Schema that says what `Configuration` accepts: numbers and booleans also as strings."""

    def int_schema(self, schema: core_schema.IntSchema) -> JsonSchemaValue:
        """Accept an integer or its decimal digits."""
        return {"anyOf": [super().int_schema(schema), {"type": "string", "pattern": r"^\s*[-+]?\d+\s*$"}]}

    def float_schema(self, schema: core_schema.FloatSchema) -> JsonSchemaValue:
        """Accept a number or its decimal notation."""
        pattern = r"^\s*[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?\s*$"
        return {"anyOf": [super().float_schema(schema), {"type": "string", "pattern": pattern}]}

    def model_fields_schema(self, schema: core_schema.ModelFieldsSchema) -> JsonSchemaValue:
        """Show a field under every name that it may be given by, not only under the first."""
        content = super().model_fields_schema(schema)
        properties = content.get("properties", {})
        for name, field in schema["fields"].items():
            choices = field.get("validation_alias")
            if isinstance(choices, list) and all(isinstance(choice, list) for choice in choices):
                aliases = [str(choice[0]) for choice in choices if isinstance(choice, list)]
                known = next((properties[alias] for alias in (*aliases, name) if alias in properties), None)
                properties |= {alias: known for alias in aliases if known is not None}
        return content

    def bool_schema(self, schema: core_schema.BoolSchema) -> JsonSchemaValue:
        """Accept a boolean or the words for it."""
        words = {"type": "string", "pattern": r"^([Tt]rue|[Ff]alse|TRUE|FALSE|[01])$"}
        return {"anyOf": [super().bool_schema(schema), words]}


def schema_of(model: type[BaseModel], *, ref_template: str = "#/$defs/{model}") -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of what the model accepts from users."""
    return model.model_json_schema(schema_generator=TolerantJsonSchema, ref_template=ref_template, mode="validation")


ModelT = TypeVar("ModelT", bound=BaseModel)


def validate(model: type[ModelT], given: Any, *, at: str = "") -> ModelT:
    """Validate what a user sent, or raise `InvalidConfiguration` with a JSON pointer for every fault.

    ``at`` is the pointer of ``given`` in the document that the user wrote. An unknown key's fault lists the allowed.
    """
    try:
        return model.model_validate(given)
    except ValidationError as error:
        allowed = ", ".join(sorted(field.alias or name for name, field in model.model_fields.items()))
        faults = [_fault(fault, at, allowed) for fault in error.errors(include_url=False, include_context=False)]
        listing = "; ".join(f"{fault['path'] or '/'}: {fault['message']}" for fault in faults)
        raise InvalidConfiguration(
            f"the configuration is invalid: {listing}", remedy="correct the named fields", errors=faults
        ) from None


def refuse_double(model: type[BaseModel], given: Mapping[str, Any]) -> None:
    """Raise `InvalidConfiguration` where one field is given by two of its names: one would be dropped in silence."""
    for name, field in model.model_fields.items():
        alias = field.validation_alias
        names = {name, field.alias or name}
        names |= {str(choice) for choice in alias.choices} if isinstance(alias, AliasChoices) else set()
        twice = sorted(key for key in names if given.get(key) is not None)
        if len(twice) > 1:
            faults = [{"path": f"/{key}", "message": "given under another name too"} for key in twice]
            raise InvalidConfiguration(
                f"{' and '.join(twice)} are the same field", remedy="give it once", errors=faults
            )


def _fault(fault: Any, at: str, allowed: str) -> dict[str, str]:
    pointer = at + "".join(f"/{str(part).replace('~', '~0').replace('/', '~1')}" for part in fault["loc"])
    message = str(fault["msg"])
    if fault["type"] == "extra_forbidden":
        message = f"unknown key; allowed here are: {allowed}" if len(fault["loc"]) == 1 else "unknown key"
    return {"path": pointer, "message": message}
