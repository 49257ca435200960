"""Protocol buffer schemas (`.proto` text) as descriptors, without the compiler `protoc`.

The texts in ``proto/`` are the only source: nothing generated lies beside them to go stale. They are read when the
service starts, in a few milliseconds. Read is what they use of proto3: messages, enums, oneofs, maps and services;
anything else raises `ValueError`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    ServiceDescriptorProto,
)

_TOKEN = re.compile(r'\s*(?://[^\n]*\s*)*("[^"]*"|[\w.]+|[{}()<>=,;])')
_SCALARS = {
    name: getattr(FieldDescriptorProto, f"TYPE_{name.upper()}")
    for name in ("bool", "bytes", "double", "float", "int32", "int64", "string", "uint32", "uint64")
}


def read_schema(text: str, name: str) -> FileDescriptorProto:
    """Return the descriptor of a schema; names of types are left for the pool to resolve."""
    return _Reader(text).file(name)


class _Reader:
    def __init__(self, text: str) -> None:
        self._tokens = _tokens(text)
        self._next = next(self._tokens, "")

    def file(self, name: str) -> FileDescriptorProto:
        found = FileDescriptorProto(name=name, syntax="proto3")
        while word := self._next and self._take():
            if word == "syntax":
                self._want("=", '"proto3"', ";")
            elif word == "package":
                found.package = self._take()
                self._want(";")
            elif word == "import":
                found.dependency.append(self._take().strip('"'))
                self._want(";")
            elif word == "message":
                self._message(found.message_type.add())
            elif word == "enum":
                self._enum(found.enum_type.add())
            elif word == "service":
                self._service(found.service.add())
            else:
                raise ValueError(f"{name}: {word!r} begins nothing that is read here")
        return found

    def _message(self, message: DescriptorProto) -> None:
        message.name = self._take()
        for word in self._block():
            if word == "message":
                self._message(message.nested_type.add())
            elif word == "enum":
                self._enum(message.enum_type.add())
            elif word == "oneof":
                message.oneof_decl.add(name=self._take())
                for kind in self._block():
                    self._field(message, kind, FieldDescriptorProto.LABEL_OPTIONAL)
                    message.field[-1].oneof_index = len(message.oneof_decl) - 1
            elif word == "map":
                self._map(message)
            elif word == "repeated":
                self._field(message, self._take(), FieldDescriptorProto.LABEL_REPEATED)
            else:
                self._field(message, word, FieldDescriptorProto.LABEL_OPTIONAL)

    def _field(self, message: DescriptorProto, kind: str, label: FieldDescriptorProto.Label.ValueType) -> None:
        field = message.field.add(name=self._take(), label=label)
        _set_kind(field, kind)
        self._want("=")
        field.number = int(self._take())
        self._want(";")

    def _map(self, message: DescriptorProto) -> None:
        """Read a map: it is a repeated message of key and value, named after the field."""
        self._want("<")
        key = self._take()
        self._want(",")
        value = self._take()
        self._want(">")
        name = "".join(part.capitalize() for part in self._next.split("_")) + "Entry"
        entry = message.nested_type.add(name=name)
        entry.options.map_entry = True
        for number, (part, kind) in enumerate((("key", key), ("value", value)), start=1):
            _set_kind(entry.field.add(name=part, number=number, label=FieldDescriptorProto.LABEL_OPTIONAL), kind)
        self._field(message, name, FieldDescriptorProto.LABEL_REPEATED)

    def _enum(self, enum: EnumDescriptorProto) -> None:
        enum.name = self._take()
        for word in self._block():
            self._want("=")
            enum.value.add(name=word, number=int(self._take()))
            self._want(";")

    def _service(self, service: ServiceDescriptorProto) -> None:
        service.name = self._take()
        for word in self._block():
            if word != "rpc":
                raise ValueError(f"the service {service.name} has {word!r} where a method should begin")
            method = service.method.add(name=self._take())
            method.client_streaming, method.input_type = self._side()
            self._want("returns")
            method.server_streaming, method.output_type = self._side()
            self._want(";")

    def _side(self) -> tuple[bool, str]:
        self._want("(")
        first = self._take()
        stream = first == "stream"
        kind = self._take() if stream else first
        self._want(")")
        return stream, kind

    def _block(self) -> Iterator[str]:
        """Give the first word of each statement between braces."""
        self._want("{")
        while self._next != "}":
            yield self._take()
        self._take()

    def _want(self, *words: str) -> None:
        for word in words:
            if (found := self._take()) != word:
                raise ValueError(f"{found!r} stands where {word!r} should")

    def _take(self) -> str:
        if not self._next:
            raise ValueError("the schema ends in the middle")
        taken, self._next = self._next, next(self._tokens, "")
        return taken


def _tokens(text: str) -> Iterator[str]:
    position = 0
    while found := _TOKEN.match(text, position):
        position = found.end()
        yield found[1]
    if text[position:].strip():
        raise ValueError(f"{text[position:].split(maxsplit=1)[0]!r} cannot be read")


def _set_kind(field: FieldDescriptorProto, kind: str) -> None:
    """Set a field's type; that of a message or an enum is told by its name alone."""
    if kind in _SCALARS:
        field.type = _SCALARS[kind]
    else:
        field.type_name = kind
