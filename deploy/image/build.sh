#!/bin/sh
# What the image runs: the service and all it needs, in one folder that needs nothing but Python. The Dockerfile calls
# this, and so does a test, as images are built where no test runs.
#
#   build.sh SOURCE TARGET      from a checkout, into a folder that is not there yet
#
# PYTHON is the one to use, where it is not `python3`. Everything that is downloaded has a hash in a lock; `make lock`
# writes those for this version of Python.
set -eu
source=$1 target=$2 python=${PYTHON:-python3}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore

"$python" -m venv "$work/build"
"$work/build/bin/python" -m pip install --quiet --require-hashes -r "$source/deploy/build.lock"
"$work/build/bin/python" -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir "$work/wheels" "$source/service/client" "$source"

"$python" -m venv "$target"
"$target/bin/python" -m pip install --quiet --require-hashes -r "$source/deploy/service.lock"
"$target/bin/python" -m pip install --quiet --no-deps --no-index "$work"/wheels/*.whl

# Beside the command: what asks its health, and what gives Envoy its files.
{ echo "#!$target/bin/python -I"; cat "$source/deploy/image/health.py"; } > "$target/bin/tickets-health"
cp "$source/deploy/image/envoy-files.sh" "$target/bin/tickets-envoy-files"
chmod 0755 "$target/bin/tickets-health" "$target/bin/tickets-envoy-files"
mkdir -p "$target/share"
cp -R "$target"/lib/python3*/site-packages/service/bundled "$target/share/envoy"
rm "$target/share/envoy/envoy.yaml" # as it stands; `tickets gateway` writes the one for the settings

# It runs, and installs nothing any more.
"$target/bin/python" -m pip uninstall --quiet --yes pip setuptools
