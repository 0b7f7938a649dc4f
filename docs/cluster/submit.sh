#!/bin/bash
# Submits the array of scores.sbatch, and the notebooks for the time when all its tasks have
# succeeded. Type it in the project's folder, with the options of run_all.py:
#
#     bash docs/cluster/submit.sh --profile paper
#
# SHARES    : the number of tasks (default: 8)
# RESOURCES : options of sbatch for the array, which replace those in scores.sbatch
# NOTEBOOKS : options of sbatch for the notebooks' job
set -eu
export SHARES="${SHARES:-8}"
read -ra resources <<< "${RESOURCES:-}"
read -ra notebooks <<< "${NOTEBOOKS:-}"
array=$(sbatch --parsable --array="1-$SHARES" "${resources[@]}" docs/cluster/scores.sbatch "$@")
last=$(sbatch --parsable --dependency="afterok:$array" --kill-on-invalid-dep=yes \
    "${notebooks[@]}" docs/cluster/notebooks.sbatch "$@")
echo "array $array, notebooks $last"
