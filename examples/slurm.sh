#!/usr/bin/env bash
#SBATCH --array=1-8
#SBATCH --gres=gpu:1
# Eight GPUs on one file of prompts: each takes its share, all into one folder.
#   sbatch examples/slurm.sh prompts.txt /shared/made --model wan2.1-14b
set -euo pipefail
[ $# -ge 2 ] || { echo "usage: sbatch $0 PROMPTS FOLDER [OPTION...]" >&2; exit 2; }
prompts=$1 folder=$2
shift 2
exec spectrum batch "$prompts" --output "$folder" \
    --shard "${SLURM_ARRAY_TASK_ID}/${SLURM_ARRAY_TASK_COUNT}" "$@"
