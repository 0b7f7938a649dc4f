# shellcheck shell=bash source=/dev/null
# What each job does before Python starts; the other scripts source this file on a compute node.

cd "${SLURM_SUBMIT_DIR:-.}" || exit 1

# The environment in which `pip install -r requirements.lock` was run.
DCLS_VENV="${DCLS_VENV:-.venv}"
if [ -z "${DCLS_CONTAINER:-}" ]; then
    source "$DCLS_VENV/bin/activate" || exit 1
fi

# Without a number, each process would use all processors of the node, also those of other jobs.
export OMP_NUM_THREADS="${SLURM_CPUS_PER_TASK:-1}"
export MKL_NUM_THREADS="$OMP_NUM_THREADS" NUMBA_NUM_THREADS="$OMP_NUM_THREADS"

# Compiled code belongs to one node: nodes with other processors must not read it, and many small
# files are slow on a shared disk. Each cache may be deleted at any time.
CACHES="${TMPDIR:-/tmp}/dcls-caches-$(id -u)"
mkdir -p "$CACHES" && chmod 700 "$CACHES" || exit 1
export NUMBA_CACHE_DIR="$CACHES/numba"
export TORCHINDUCTOR_CACHE_DIR="$CACHES/inductor"
export TRITON_CACHE_DIR="$CACHES/triton"
export MPLCONFIGDIR="$CACHES/matplotlib"

# Compute nodes often have no network. Then a download would wait for minutes before it fails.
export HF_HUB_OFFLINE=1

# Python, in the container if DCLS_CONTAINER names an Apptainer image.
in_environment() {
    if [ -z "${DCLS_CONTAINER:-}" ]; then
        "$@"
    else
        apptainer exec --nv --bind "$PWD" --pwd "$PWD" "$DCLS_CONTAINER" "$@"
    fi
}
