"""The comments of the protos, by the full name of what they are about."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet

_SENTENCE = re.compile(r"(?<=[.])\s+(?=[A-Z`])")

# What typed messages have and JSON has not, and what is said of it instead.
_TYPED: Sequence[tuple[re.Pattern[str], str]] = [
    (re.compile(words), other)
    for words, other in (
        (r"\bThe text of an? (?=JSON)", "A "),
        (r"\bThe text of (?=any JSON)", ""),
        (r"\bthe text of (?=an? JSON|any JSON)", ""),
        (r"\s*Text, because a Struct would turn every number into a double\.", ""),
        (r"\s*Not named in `update_mask`\.", ""),
        (r"Cleared when named in `update_mask` and not set\.", "Null clears it."),
        (r"\bCan be cleared\b", "Null clears it"),
        (r"named by `update_mask` and not set,", "if it is null,"),
        (r"that are set, or those that `update_mask` names", "that are in the body"),
        (r"Otherwise ABORTED, reason (`\w+`)", r"Otherwise \1"),
        (r"\(In REST (a date alone [^)]*)\)", r"\1"),
        (r"[0-9]+ when absent \(in REST ([^,)]*)([^)]*)\)", r"\1 when absent\2"),
        (r"\s*A typed page [^.]*\.", ""),
    )
]
_ABSENT = re.compile(r"\b([Aa])bsent\b")

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


def in_json(text: str, *, is_null: bool = False) -> str:
    """A comment of a typed message as it is true of JSON; `is_null`: what is absent there is null here."""
    for words, other in _TYPED:
        text = words.sub(other, text)
    text = re.sub(r"(^|\. )([a-z])", lambda found: found[1] + found[2].upper(), text)
    return _ABSENT.sub(lambda found: "Null" if found[1] == "A" else "null", text) if is_null else text


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
