#!/usr/bin/env bash
# Every prompt of a file over night; started again, it goes on where it stopped.
#   examples/overnight.sh prompts.txt made --model flux.1-dev
set -euo pipefail
prompts=$1 folder=$2
shift 2
until spectrum batch "$prompts" --output "$folder" "$@"; do
    code=$?
    [ "$code" -eq 1 ] && exit 1  # some jobs failed: the manifest says which and why
    [ "$code" -eq 2 ] && exit 2  # the file or an option is wrong
    sleep 10                     # stopped by a signal or a full disk: go on
done
