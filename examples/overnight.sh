#!/usr/bin/env bash
# Every prompt of a file over night, also if something kills it (out of memory): what is made stays
# made. Ctrl-C ends it; the same command goes on.
#   examples/overnight.sh prompts.txt made --model flux.1-dev
set -euo pipefail
[ $# -ge 2 ] || { echo "usage: $0 PROMPTS FOLDER [OPTION...]" >&2; exit 2; }
prompts=$1 folder=$2
shift 2
while true; do
    code=0
    spectrum batch "$prompts" --output "$folder" "$@" || code=$?
    [ "$code" -eq 137 ] || exit "$code" # 137: killed; 1: a job failed, see the manifest
    sleep "${PAUSE:-10}"
done
