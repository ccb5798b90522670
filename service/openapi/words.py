"""The comments of the protos, by the full name of what they are about."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet

_SENTENCE = re.compile(r"(?<=[.])\s+(?=[A-Z`])")

# The numbers of the fields that a path in a descriptor goes by (descriptor.proto).
_MESSAGES, _ENUMS, _SERVICES = 4, 5, 6
_FIELDS, _NESTED, _METHODS, _VALUES = 2, 3, 2, 2


def read_words(descriptors: bytes) -> Mapping[str, str]:
    """The comments in a descriptor set that was made with source info."""
    files = FileDescriptorSet.FromString(descriptors).file
    return {name: words for file in files for name, words in _of_file(file)}


def first_sentence(text: str) -> str:
    """What something is or does, without what there is to know beside that."""
    return _SENTENCE.split(text.partition("\n\n")[0], maxsplit=1)[0]


def _of_file(file: FileDescriptorProto) -> Iterator[tuple[str, str]]:
    names = dict(_names(file))
    for location in file.source_code_info.location:
        if location.leading_comments and tuple(location.path) in names:
            paragraphs = location.leading_comments.strip().split("\n\n")
            yield names[tuple(location.path)], "\n\n".join(" ".join(part.split()) for part in paragraphs)


def _names(file: FileDescriptorProto) -> Iterator[tuple[tuple[int, ...], str]]:
    for index, service in enumerate(file.service):
        name = f"{file.package}.{service.name}"
        yield (_SERVICES, index), name
        for number, method in enumerate(service.method):
            yield (_SERVICES, index, _METHODS, number), f"{name}.{method.name}"
    for index, message in enumerate(file.message_type):
        yield from _of_message((_MESSAGES, index), f"{file.package}.{message.name}", message)
    for index, enum in enumerate(file.enum_type):
        yield (_ENUMS, index), f"{file.package}.{enum.name}"


def _of_message(path: tuple[int, ...], name: str, message: Any) -> Iterator[tuple[tuple[int, ...], str]]:
    yield path, name
    for index, field in enumerate(message.field):
        yield (*path, _FIELDS, index), f"{name}.{field.name}"
    for index, nested in enumerate(message.nested_type):
        yield from _of_message((*path, _NESTED, index), f"{name}.{nested.name}", nested)
