"""`python -m service.openapi`: a descriptor set on stdin, the document on stdout. `make gen` calls it."""

import json
import sys
import tomllib
from pathlib import Path

from service.openapi.document import document
from service.openapi.words import read_words

_PROJECT = Path(__file__).parents[2] / "pyproject.toml"

if __name__ == "__main__":
    version = tomllib.loads(_PROJECT.read_text())["project"]["version"]
    made = document(read_words(sys.stdin.buffer.read()), version)
    sys.stdout.write(json.dumps(made, indent=1, ensure_ascii=False) + "\n")
