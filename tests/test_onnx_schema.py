"""The numbers of ONNX's fields and types are those of the onnx package."""

from __future__ import annotations

from enum import IntEnum

import pytest

from minimobile.formats.onnx import schema

MESSAGES = {
    schema.ModelField: "ModelProto",
    schema.OperatorSetField: "OperatorSetIdProto",
    schema.EntryField: "StringStringEntryProto",
    schema.GraphField: "GraphProto",
    schema.NodeField: "NodeProto",
    schema.FunctionField: "FunctionProto",
    schema.AttributeField: "AttributeProto",
    schema.TensorField: "TensorProto",
    schema.ValueField: "ValueInfoProto",
    schema.TypeField: "TypeProto",
    schema.TensorTypeField: "TypeProto.Tensor",
    schema.ShapeField: "TensorShapeProto",
    schema.DimensionField: "TensorShapeProto.Dimension",
}
ENUMERATIONS = {
    schema.AttributeType: "AttributeProto.AttributeType",
    schema.ElementType: "TensorProto.DataType",
    schema.DataLocation: "TensorProto.DataLocation",
}


@pytest.mark.crosscheck
@pytest.mark.parametrize(("numbers", "message"), MESSAGES.items(), ids=MESSAGES.values())
def test_fields_have_the_numbers_of_the_schema(numbers: type[IntEnum], message: str) -> None:
    onnx = pytest.importorskip("onnx")
    found = onnx
    for part in message.split("."):
        found = getattr(found, part)
    prefix = "dim_" if numbers is schema.DimensionField else ""
    theirs = found.DESCRIPTOR.fields_by_name
    assert {field.name: field.value for field in numbers} == {
        field.name: theirs[prefix + field.name.lower()].number for field in numbers
    }


@pytest.mark.crosscheck
@pytest.mark.parametrize(("numbers", "enumeration"), ENUMERATIONS.items(), ids=ENUMERATIONS.values())
def test_enumerations_have_the_numbers_of_the_schema(numbers: type[IntEnum], enumeration: str) -> None:
    onnx = pytest.importorskip("onnx")
    message, name = enumeration.split(".")
    theirs = getattr(onnx, message).DESCRIPTOR.enum_types_by_name[name].values_by_name
    assert {entry.name: entry.value for entry in numbers} == {
        entry.name: theirs[entry.name].number for entry in numbers
    }
