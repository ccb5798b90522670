# Everything a change must pass is in .ci/run; most of it is `make test`. Every target makes what it needs, starting from a bare Python.

# The first of these that runs, is new enough, and can make an environment. Another one: `make up PYTHON=…`.
PYTHONS := python3.11 python3.12 python3.13 python3.14 python3
SUITS := -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))'
PYTHON ?= $(shell for name in $(PYTHONS); do "$$name" $(SUITS) 2>/dev/null && echo "$$name" && break; done)
define need_python
	@"$(or $(PYTHON),none)" $(SUITS) 2>/dev/null || { echo "This needs Python 3.11 or newer, with venv and ensurepip:" \
		"$(if $(PYTHON),$(PYTHON) is not that,none of $(PYTHONS) is that). Name another one with PYTHON=…" >&2; exit 1; }
endef

BIN := .venv/bin
PIP_INSTALL := -m pip install --quiet --disable-pip-version-check
NEWEST_INSTALL := $(BIN)/uv pip install --quiet --compile-bytecode --python .venv-newest
# The client and the service as they stand here, without a download.
EDITABLE := --no-deps --no-build-isolation --editable service/client --editable .
GEN := gen
READY := .venv/ready
PROTOS := $(shell cd protos && find tickets -name '*.proto' | sort)
PROTO_DIR := protos

# Python's compiled files are worth keeping: every test process would compile the tests again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: up test tests test-processes test-clients test-long test-newest newest bench check breaking baseline gen gen-python gen-go gen-typescript migration lock audit sbom \
	test-deploy release version clean

up: .venv/ready ## everything on this machine, with demo data
	$(BIN)/tickets up

# Types are checked beside the first tests, which leave a core idle as they wait.
test: $(READY) ## lint, format, types, protos, and what the contracts promise
	$(MAKE) --jobs 2 check tests

# Three, for two cores: a third of the time each waits for what it has started.
tests: $(READY)
	$(BIN)/pytest -n 3 --dist loadfile --no-loadscope-reorder

# What is installed here is Debian's, as nothing else can be: where it is not Debian, or not root, it says what is missing.
test-processes: $(READY) ## what is flooded, fuzzed, stopped and killed, `tickets up` and both wheels: minutes, and part of CI
	$(BIN)/pytest -m "processes and not long" -n 3 --dist loadfile --no-loadscope-reorder

test-clients: .venv/tools ## clients as users have them: a real browser, and those of other languages whose tools are here
	@command -v chromium >/dev/null || { test "$$(id -u)" = 0 && command -v apt-get >/dev/null && apt-get update -qq \
		&& DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends chromium >/dev/null; } \
		|| { echo "This needs chromium on the PATH (Debian: apt-get install chromium)." >&2; exit 1; }
	$(BIN)/pytest -m clients tests/clients

# The image's contents are installed from the lock, so it takes two minutes on two cores after its tools, which take more.
test-deploy: $(READY) .venv-deploy/promtool ## what the image has, compose.yaml, the Helm chart, alerts, and PgBouncer
	@command -v pgbouncer >/dev/null || { test "$$(id -u)" = 0 && command -v apt-get >/dev/null && apt-get update -qq \
		&& DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends pgbouncer >/dev/null; } \
		|| echo "pgbouncer is not on the PATH (Debian: apt-get install pgbouncer): without CI its tests are skipped." >&2
	$(BIN)/pytest -m deploy -n 2 --dist loadfile tests/deploy

test-long: $(READY) ## what takes minutes and stays out of CI
	$(BIN)/pytest -m long

# What depends on gRPC and protobuf most: the client, the service over both transports, and `tickets up`.
NEWEST_TESTS := tests/gateway $(patsubst %,tests/integration/%,client service admin itsm handoff/test_tickets.py \
	handoff/test_watch.py helpdesk/test_tickets.py)

test-newest: newest ## on the newest gRPC and protobuf, which deploy/requirements.lock holds back
	.venv-newest/bin/pytest -n 2 --dist loadfile $(NEWEST_TESTS)

# An environment of its own, made anew each time: by uv, which takes seconds. `make bench` makes it too: --grpcio newest
newest: .venv/ready
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python .venv-newest
	$(NEWEST_INSTALL) --require-hashes -r deploy/requirements.lock
	$(BIN)/uv pip uninstall --quiet --python .venv-newest grpcio-tools
	$(NEWEST_INSTALL) --upgrade grpcio grpcio-health-checking grpcio-reflection protobuf googleapis-common-protos
	$(NEWEST_INSTALL) $(EDITABLE)
	$(BIN)/uv pip list --python .venv-newest 2>/dev/null | grep -E '^(grpc|proto|google)'

# Its options go through ARGS, as `make` takes those on its own line for itself: make bench ARGS=--quick, or
# make bench ARGS="--api helpdesk,handoff", or make bench ARGS="--grpcio newest"
bench: .venv/tools ## against what a user would build instead, in under ten minutes; needs wrk
	$(BIN)/python -m tests.benchmarks.bench $(ARGS)

check: .venv/ready breaking
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	cd protos && ../$(BIN)/buf lint
	cd protos && ../$(BIN)/buf format --diff --exit-code >/dev/null

breaking: $(READY) ## the protos against protos/baseline.binpb
	cd $(PROTO_DIR) && $(abspath $(BIN))/buf build --output - | $(abspath $(BIN))/buf breaking - --config buf.yaml --against baseline.binpb

baseline: $(READY) ## protos and OpenAPI as they are become what is compared with: for a break that is meant, or a release
	cd protos && ../$(BIN)/buf build --exclude-source-info --output baseline.binpb
	cp $(GEN)/openapi.json protos/openapi.baseline.json

# In a language's folder this replaces what is generated; the package beside it is written by hand. Where a language's
# tool is not there, what it has stays as it was: `make test` compares Python's part, `make test-clients` the others.
gen: gen-python gen-go gen-typescript ## protos → gen/, never edited by hand

gen-python: $(READY)
	rm -rf $(GEN)/python && mkdir -p $(GEN)/python
	$(BIN)/python -m grpc_tools.protoc -Iprotos -Iprotos/third_party \
		--plugin=protoc-gen-mypy=$(BIN)/protoc-gen-mypy --plugin=protoc-gen-mypy_grpc=$(BIN)/protoc-gen-mypy_grpc \
		--python_out=$(GEN)/python --grpc_python_out=$(GEN)/python \
		--mypy_out=quiet:$(GEN)/python --mypy_grpc_out=quiet:$(GEN)/python \
		--include_imports --descriptor_set_out=$(GEN)/tickets.binpb $(PROTOS)
	(cd protos && ../$(BIN)/buf build --output -) | $(BIN)/python -m service.openapi > $(GEN)/openapi.json
	for stubs in $(GEN)/python/tickets/*/; do touch "$$stubs/py.typed"; done

ifeq ($(shell command -v npm 2>/dev/null),)
gen-typescript:
	@echo "npm is not installed: gen/typescript/src/gen stays as it is." >&2
else
gen-typescript: $(READY) gen/typescript/node_modules/.package-lock.json
	cd gen/typescript && $(abspath $(BIN))/buf generate --output $(abspath $(GEN))/typescript
endif

gen/typescript/node_modules/.package-lock.json: gen/typescript/package-lock.json
	cd gen/typescript && npm ci --ignore-scripts --no-audit --no-fund
	touch $@

ifeq ($(shell command -v go 2>/dev/null),)
gen-go:
	@echo "Go is not installed: gen/go/tickets stays as it is." >&2
else
gen-go: $(READY)
	rm -rf $(GEN)/go/tickets && mkdir -p $(GEN)/go
	cd $(PROTO_DIR) && $(abspath $(BIN))/buf generate --template ../gen/go/buf.gen.yaml --output $(abspath $(GEN))/go
endif

migration: $(READY) ## make migration m="What changes": the next one, with what the tables have and the schema has not
	$(BIN)/python -m service.local.migration "$(m)"
	$(BIN)/ruff check --quiet --fix-only service/migrations/versions && $(BIN)/ruff format --quiet service/migrations/versions

.venv/ready: pyproject.toml service/client/pyproject.toml deploy/requirements.lock
	$(call need_python)
	$(PYTHON) -m venv .venv
	$(BIN)/python $(PIP_INSTALL) --require-hashes -r deploy/requirements.lock
	$(BIN)/python $(PIP_INSTALL) $(EDITABLE)
	touch $@

.venv/tools: .venv/ready deploy/tools.lock
	$(BIN)/python $(PIP_INSTALL) --require-hashes -r deploy/tools.lock
	touch $@

# Out of Debian's package, as Prometheus itself need not run.
PROMTOOL = cd .venv-deploy && { apt-get -qq download prometheus || { apt-get -qq update && apt-get -qq download prometheus; }; } \
	>/dev/null 2>&1 && dpkg-deb --fsys-tarfile prometheus_*.deb | tar -x --strip-components 3 -C bin ./usr/bin/promtool \
	&& rm prometheus_*.deb

# Helm is built from its module's sums. Without Go there is none here: then one on the PATH is used, or its tests are skipped.

.venv-deploy/ready: .venv/ready deploy/helm/checks.lock deploy/helm/tools/go.sum
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python .venv-deploy
	$(BIN)/uv pip install --quiet --python .venv-deploy --require-hashes -r deploy/helm/checks.lock
	@command -v go >/dev/null || { echo "Go is not installed: there is no Helm but one on the PATH." >&2; exit 0; }; \
		cd deploy/helm/tools && GOBIN=$(abspath .venv-deploy/bin) go install tool ./servicemonitor
	touch $@

.venv-deploy/promtool: .venv-deploy/ready
	@command -v promtool >/dev/null || { command -v apt-get >/dev/null && $(PROMTOOL); } \
		|| { echo "This needs promtool on the PATH (Debian: in the package prometheus)." >&2; exit 1; }
	touch $@

LOCK := $(BIN)/uv pip compile --quiet --python-version 3.11 --generate-hashes --no-header --no-annotate --no-emit-index-url \
	--no-emit-package tickets-client
AS_TESTED := --constraint deploy/requirements.lock

# What is tested; of that, what the image runs and what builds it (its Python: see the Dockerfile); what some targets need.
lock: ## deploy/*.lock from the two pyproject.toml and deploy/constraints.txt
	$(LOCK) --universal --extra local --extra otel --extra dev --constraint deploy/constraints.txt -o deploy/requirements.lock pyproject.toml
	$(LOCK) --python-platform linux --extra otel $(AS_TESTED) -o deploy/service.lock pyproject.toml
	echo hatchling | $(LOCK) --python-platform linux $(AS_TESTED) -o deploy/build.lock -
	$(LOCK) --universal --extra bench --extra audit --extra clients $(AS_TESTED) -o deploy/tools.lock pyproject.toml
	$(LOCK) --universal -o deploy/helm/checks.lock deploy/helm/checks.in

# It has failed too where the advisories cannot be had. Its options go through ARGS: make audit ARGS='-s osv'
audit: .venv/tools ## advisories about anything in the locks; the findings are in dist/audit.json
	@mkdir -p dist && rm -f dist/audit.json; status=0; \
	$(BIN)/pip-audit --strict --disable-pip --require-hashes --progress-spinner off --format json --output dist/audit.json \
		-r deploy/requirements.lock -r deploy/tools.lock $(ARGS) || status=$$?; \
	test -s dist/audit.json || { echo "Nothing was audited: the advisories cannot be had from here (why: above)." >&2; exit 75; }; \
	exit $$status

DIST := dist

# Licences are those that the installed packages name; versions and hashes are the lock's.
sbom: .venv/tools ## what the image runs: as CycloneDX, and with the licence of each
	@mkdir -p $(DIST)
	$(BIN)/cyclonedx-py requirements --pyproject pyproject.toml --output-reproducible --of JSON \
		-o $(DIST)/tickets-service.cdx.json deploy/service.lock
	$(BIN)/pip-licenses --python $(BIN)/python --from mixed --with-urls --format csv --output-file $(DIST)/licenses.csv \
		--packages $$(sed -n 's/^\([a-z0-9-]*\)==.*/\1/p' deploy/service.lock)

CHANGELOG := CHANGELOG.md

release: $(READY) .venv/tools .venv-deploy/ready ## all that a release has, into dist/: fails where the changelog does not have its version
	$(BIN)/python deploy/release.py check --changelog $(CHANGELOG)
	rm -rf $(DIST) && mkdir -p $(DIST)
	for project in service/client .; do \
		(cd $$project && $(abspath $(BIN))/python -m hatchling build --target sdist --target wheel --directory $(abspath $(DIST))) || exit 1; done
	PATH="$(abspath .venv-deploy/bin):$$PATH" helm package deploy/helm/tickets --destination $(DIST)
	$(MAKE) sbom DIST=$(DIST)
	cd $(DIST) && sha256sum -- * > ../SHA256SUMS.part && mv ../SHA256SUMS.part SHA256SUMS

version: $(READY) ## make version v=1.2.3: everywhere where it stands
	$(BIN)/python deploy/release.py set "$(v)"
	$(MAKE) gen-python

clean:
	rm -rf .venv .venv-newest .venv-deploy .tickets gen/typescript/dist gen/typescript/node_modules
