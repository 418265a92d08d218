#!/usr/bin/env bash
# One run by hand: sbatch scripts/slurm_train.sh model=ivae data=tcl_khemakhem 'seed=[0,1,2,3,4]'
# Options of sbatch before the script win over the ones below. Needs the .venv of `make install` in the folder from which
# it is submitted, or PYTHON=... Before the time limit the run writes its checkpoint and is requeued, as it is where Slurm
# preempts it or its node dies; it continues into the same run folder.
#SBATCH --job-name=ivae_lab
#SBATCH --time=04:00:00
#SBATCH --cpus-per-task=2
#SBATCH --mem=8G
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:USR1@120
set -uo pipefail

requeue() {
  kill -TERM "$run" 2>/dev/null # it finishes its chunk, writes its checkpoint and leaves
  wait "$run"
  scontrol requeue "${SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}${SLURM_ARRAY_TASK_ID:+_$SLURM_ARRAY_TASK_ID}"
  exit 0
}
trap requeue USR1

"${PYTHON:-.venv/bin/python}" -m ivae_lab.train compute.threads="${SLURM_CPUS_PER_TASK:-2}" "$@" &
run=$!
wait "$run"
