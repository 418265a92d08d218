#!/usr/bin/env bash
# How long it takes from nothing to latents: a fresh clone of this checkout, its packages, then the tour's files, first
# model and encode, as the tour writes them. Prints the seconds since the start after each.
#
#   scripts/first_latents.sh [FOLDER]    where to clone to; otherwise a temporary folder, removed afterwards
set -euo pipefail
here="$(cd -- "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/.." && pwd)"
if (($#)); then
  folder="$1"
else
  folder="$(mktemp -d)"
  trap 'rm -rf -- "$folder"' EXIT
fi
git clone --quiet "$here" "$folder/ivae_lab"
cd -- "$folder/ivae_lab"
tour() { grep -m 1 "^    python .*$1" experiments/tour/README.md; }

SECONDS=0
make install
echo "packages after $SECONDS s"
export PATH="$PWD/.venv/bin:$PATH"
eval "$(tour files.py)"
eval "$(tour ivae_lab.train)"
echo "a model after $SECONDS s"
eval "$(tour ivae_lab.encode)"
echo "latents after $SECONDS s"
