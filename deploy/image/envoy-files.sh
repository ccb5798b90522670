#!/bin/sh
# tickets-envoy-files FOLDER [options of `tickets gateway`]: all that Envoy reads, in a folder that it has at /etc/envoy.
# Its configuration for this environment's settings, the descriptor set, and the page with its document.
set -eu
folder=$1
shift
bin=$(dirname "$(readlink -f "$0")")
cp -R "$bin/../share/envoy/." "$folder/"
exec "$bin/tickets" gateway --output "$folder/envoy.yaml" "$@"
