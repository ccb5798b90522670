"""The OpenAPI document of the REST face, made of what the service itself runs: `make gen` writes it."""
