"""The rules that hold for every configuration users write: tolerant of strings, strict about keys.

Numbers and booleans may come as strings ("64", "0.005", "True"), a scalar may stand where a list of one is meant,
``null`` means "not given", and floats are finite.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar, get_args, get_origin

from pydantic import AliasChoices, BaseModel, ConfigDict, ValidationError, model_validator
from pydantic.fields import FieldInfo
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import InitErrorDetails, PydanticCustomError, core_schema

from locex.errors import InvalidConfiguration


class Configuration(BaseModel):
    """Base of everything a user configures.

    Unknown keys are refused, and a field that is given by two of its names; ``null`` is dropped, lists take scalars.
    """

    model_config = ConfigDict(extra="forbid", populate_by_name=True, allow_inf_nan=False, hide_input_in_errors=True)

    @model_validator(mode="before")
    @classmethod
    def _lenient(cls, given: Any) -> Any:
        if not isinstance(given, Mapping):
            return given
        kept = {key: value for key, value in given.items() if value is not None}
        for name, field in cls.model_fields.items():
            keys = [key for key in _names_of(name, field) if key in kept]
            if len(keys) > 1:  # one of them would be dropped in silence, or be called unknown
                raise _given_twice(cls, keys)
            for key in keys:
                if _takes_list(field) and not isinstance(kept[key], list | tuple):
                    kept[key] = [kept[key]]
        return kept


def _names_of(name: str, field: FieldInfo) -> list[str]:
    """Return every key under which a field may be given."""
    alias = field.validation_alias or name
    names = map(str, alias.choices) if isinstance(alias, AliasChoices) else [str(alias)]
    return list(dict.fromkeys([*names, name]))


def _given_twice(model: type[BaseModel], keys: list[str]) -> ValidationError:
    told = PydanticCustomError("given_twice", "{names} are the same field: give it once", {"names": " and ".join(keys)})
    return ValidationError.from_exception_data(
        model.__name__, [InitErrorDetails(type=told, loc=(key,), input=None) for key in keys]
    )


def _takes_list(field: FieldInfo) -> bool:
    return any(get_origin(part) in {list, tuple} for part in (field.annotation, *get_args(field.annotation)))


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
        """Show a field under every name that it may be given by, not only under the first; any of them will do."""
        content = super().model_fields_schema(schema)
        properties, required = content.get("properties", {}), content.get("required", [])
        for name, field in schema["fields"].items():
            choices = field.get("validation_alias")
            if isinstance(choices, list) and all(isinstance(choice, list) for choice in choices):
                aliases = [str(choice[0]) for choice in choices if isinstance(choice, list)]
                known = next((properties[alias] for alias in (*aliases, name) if alias in properties), None)
                properties |= {alias: known for alias in aliases if known is not None}
                if any(alias in required for alias in aliases):
                    required[:] = [key for key in required if key not in aliases]
                    either = {"anyOf": [{"required": [alias]} for alias in aliases]}
                    content.setdefault("allOf", []).append(either)
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


def _fault(fault: Any, at: str, allowed: str) -> dict[str, str]:
    pointer = at + "".join(f"/{str(part).replace('~', '~0').replace('/', '~1')}" for part in fault["loc"])
    message = str(fault["msg"])
    if fault["type"] == "extra_forbidden":
        message = f"unknown key; allowed here are: {allowed}" if len(fault["loc"]) == 1 else "unknown key"
    return {"path": pointer, "message": message}
