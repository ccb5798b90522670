"""What generators read in the protos: file options, and which members a caller must set and may not."""

from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet

ROOT = Path(__file__).parents[2]
FILES = {
    file.name: file
    for file in FileDescriptorSet.FromString((ROOT / "gen/tickets.binpb").read_bytes()).file
    if file.package.startswith("tickets.")
}


def options(file: FileDescriptorProto) -> dict[str, str | bool]:
    """What a file says to each generator: packages by the language's own custom, one for all files of a package.

    Java's outer class would else be named after the file, and be in the way of its first message.
    """
    words = file.package.split(".")
    names = [word.capitalize() for word in words]
    stem = "".join(word.capitalize() for word in Path(file.name).stem.split("_"))
    return {
        "csharp_namespace": ".".join(names),
        "go_package": f"github.com/tickets-service/tickets/gen/go/{'/'.join(words)};{''.join(words[1:])}",
        "java_multiple_files": True,
        "java_outer_classname": f"{stem}Proto",
        "java_package": ".".join(["io.github.tickets_service", *words[1:]]),
        "objc_class_prefix": "".join(names[:-1]),
        "php_metadata_namespace": "\\".join([*names, "GPBMetadata"]),
        "php_namespace": "\\".join(names),
        "ruby_package": "::".join(names),
    }


@pytest.mark.parametrize("name", FILES)
def test_a_proto_says_where_its_code_goes_in_every_language(name: str) -> None:
    assert {option.name: value for option, value in FILES[name].options.ListFields()} == options(FILES[name])
