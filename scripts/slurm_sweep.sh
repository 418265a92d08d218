#!/usr/bin/env bash
# One run per line of a file, as an array job:
#   scripts/slurm_sweep.sh runs.txt [options of sbatch]      where a line is e.g.  model=ivae data.seed=3 seed=[0,1,2]
# The same as `python -m ivae_lab.train -m ... hydra/launcher=slurm`, for those who prefer sbatch by hand. A line whose
# run is finished is found finished; so the same command after a failure does what is left.
set -euo pipefail

if [[ "${SLURM_ARRAY_TASK_ID:-}" ]]; then
  read -ra overrides < <(grep . "$IVAE_LAB_RUNS" | sed -n "${SLURM_ARRAY_TASK_ID}p")
  exec bash "$IVAE_LAB_TRAIN" "${overrides[@]}"
fi

runs=${1:-}
[[ -f $runs ]] || { echo "expected a file with the overrides of one run per line, got ${runs:-none}" >&2; exit 2; }
count=$(grep -c . "$runs") || { echo "expected overrides in $runs, got none" >&2; exit 2; }
here=$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")
IVAE_LAB_RUNS=$(readlink -f -- "$runs") IVAE_LAB_TRAIN=$here/slurm_train.sh \
  sbatch --array="1-$count" --time=04:00:00 --cpus-per-task=2 --mem=8G --requeue --open-mode=append \
  --signal=B:USR1@120 --job-name=ivae_lab "${@:2}" "$here/slurm_sweep.sh"
