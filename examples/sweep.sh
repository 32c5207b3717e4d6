#!/usr/bin/env bash
# One prompt at several speedups and seeds, to see what a speedup costs.
#   examples/sweep.sh "a red circle on a white background" made
set -euo pipefail
[ $# -ge 2 ] || { echo "usage: $0 PROMPT FOLDER [OPTION...]" >&2; exit 2; }
prompt=$1 folder=$2
shift 2
printf '%s\n' "$prompt" |
    spectrum batch - --output "$folder" --seeds 1-2 --sweep speedup=1,2,4.5 \
        --name '{speedup}-{seed}' "$@"
