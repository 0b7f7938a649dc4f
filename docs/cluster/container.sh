#!/bin/bash
# Installs what the study needs into a container of Debian 12; Dockerfile and apptainer.def call it
# in the folder of a clone.
#
#     container.sh cuda      torch for NVIDIA GPUs (and processors), from the package index
#     container.sh cpu       torch without CUDA's 5 GB, from TORCH_INDEX
set -eu
torch="$1"
index="${TORCH_INDEX:-https://download.pytorch.org/whl/cpu}"
case "$torch" in cpu | cuda) ;; *) echo "container.sh: '$torch' is neither cpu nor cuda" >&2; exit 2 ;; esac

export DEBIAN_FRONTEND=noninteractive
apt-get update
# g++ is for --compile, git for the version that results name.
apt-get install --yes --no-install-recommends ca-certificates g++ git python3-dev python3-venv
rm -rf /var/lib/apt/lists/*

python3 -m venv /opt/venv
locked=/tmp/locked.txt
if [ "$torch" = cpu ]; then
    torches=$(sed -nE 's/^(torch|torchvision)==([^ ;]+).*/\1==\2/p' requirements.lock)
    # shellcheck disable=SC2086
    /opt/venv/bin/pip install --no-cache-dir --index-url "$index" $torches
    grep -vE '^(torch|torchvision|triton|cuda-[a-z]+|nvidia-[cn].*)==' requirements.lock > "$locked"
else
    cp requirements.lock "$locked"
fi
/opt/venv/bin/pip install --no-cache-dir --requirement "$locked"
/opt/venv/bin/pip install --no-cache-dir --no-deps --editable .
rm "$locked"
