# Everything a change must pass is `make test`. Every target makes what it needs, starting from a bare Python 3.11.

PYTHON ?= python3.11
BIN := .venv/bin
PIP_INSTALL := -m pip install --quiet --disable-pip-version-check
# The client and the service as they stand here, without a download.
EDITABLE := --no-deps --no-build-isolation --editable service/client --editable .
GEN := gen
READY := .venv/ready
PROTOS := $(shell cd protos && find tickets -name '*.proto' | sort)

.PHONY: up test test-long bench check gen lock clean

up: .venv/ready ## everything on this machine, with demo data
	$(BIN)/tickets up

test: check ## lint, format, types, protos, and the whole test suite
	$(BIN)/pytest -n 2 --dist loadfile

test-long: $(READY) ## what takes minutes and stays out of CI
	$(BIN)/pytest -m long

bench: $(READY) ## against what a user would build instead, in under ten minutes; needs wrk
	$(BIN)/python $(PIP_INSTALL) --no-build-isolation --editable '.[bench]'
	$(BIN)/python -m tests.benchmarks.bench

check: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	cd protos && ../$(BIN)/buf lint
	cd protos && ../$(BIN)/buf format --diff --exit-code >/dev/null
	cd protos && ../$(BIN)/buf breaking --against '../.git#ref=HEAD,subdir=protos'

gen: $(READY) ## protos → gen/, never edited by hand
	rm -rf $(GEN) && mkdir -p $(GEN)/python
	$(BIN)/python -m grpc_tools.protoc -Iprotos -Iprotos/third_party \
		--plugin=protoc-gen-mypy=$(BIN)/protoc-gen-mypy --plugin=protoc-gen-mypy_grpc=$(BIN)/protoc-gen-mypy_grpc \
		--python_out=$(GEN)/python --grpc_python_out=$(GEN)/python \
		--mypy_out=quiet:$(GEN)/python --mypy_grpc_out=quiet:$(GEN)/python \
		--include_imports --descriptor_set_out=$(GEN)/tickets.binpb $(PROTOS)
	for stubs in $(GEN)/python/tickets/*/; do touch "$$stubs/py.typed"; done

.venv/ready: pyproject.toml service/client/pyproject.toml deploy/requirements.lock
	$(PYTHON) -m venv .venv
	$(BIN)/python $(PIP_INSTALL) --require-hashes -r deploy/requirements.lock
	$(BIN)/python $(PIP_INSTALL) $(EDITABLE)
	touch $@

lock: ## deploy/requirements.lock from the two pyproject.toml and deploy/constraints.txt
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --extra local --extra dev --generate-hashes --no-header --no-annotate \
		--no-emit-index-url --no-emit-package tickets-client --constraint deploy/constraints.txt \
		--output-file deploy/requirements.lock pyproject.toml

clean:
	rm -rf .venv .tickets
migration: $(READY) ## make migration m="What changes": the next one, with what the tables have and the schema has not
	$(BIN)/python -m service.migrations "$(m)"
	$(BIN)/ruff check --quiet --fix-only service/migrations/versions && $(BIN)/ruff format --quiet service/migrations/versions

