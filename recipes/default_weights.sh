#!/usr/bin/env bash
# The default weights from nothing: photographs from Debian packages, a teacher's answers, and five trained networks.
#
#     recipes/default_weights.sh FOLDER
#
# FOLDER (some 6 GB) takes photographs, crops and runs. Hours on two cores; the same call goes on where it was stopped.
# Ends by writing models/weights. Needs `.venv/bin/python -m pip install 'reconstruct-features[train]'` and, for the photographs, Debian.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=${1:?usage: recipes/default_weights.sh FOLDER}
python=${PYTHON:-.venv/bin/python}

# One thread a network, and memory that is kept rather than given back to the system between steps: a fifth to two thirds
# of the time on a CPU.
export OMP_NUM_THREADS=1 THP_MEM_ALLOC_ENABLE=1
export MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=100000000000 MALLOC_TOP_PAD_=100000000

[ -f "$folder/photographs/manifest.json" ] || "$python" recipes/photographs.py "$folder/photographs"

train() {  # MODEL and options; crops and answers are made by the first call and shared
    "$python" -m reconstruct train "$1" "$folder/photographs/train" --validation "$folder/photographs/held_out" \
        --teacher efficientnet_lite0 --crops "$folder/crops" --crop-count 64000 --crop-side 128 \
        --output "$folder/$1" --precision bfloat16 --device cpu "${@:2}"
}

large=(--side 112 --epochs 8 --ica "$folder/photographs/train")
train crelu_conv1_4 "${large[@]}"
train all_cnn_b "${large[@]}"
small=(--side 32 --resize 36 --epochs 4 --first-layer 20 --no-dropout)
train convpool_cnn_c_crelu "${small[@]}"
train convpool_cnn_c "${small[@]}"
train cifar_split "${small[@]}"

publish() { "$python" recipes/publish.py "$folder/$1/$1.toml" "$folder/photographs" "$folder/crops" "${@:2}"; }

publish crelu_conv1_4 --side 112
publish all_cnn_b --side 112
# Their conv9 has the teacher's thousand classes, not CIFAR's ten.
publish convpool_cnn_c_crelu --side 32 --resize 36 --stop conv8
publish convpool_cnn_c --side 32 --resize 36 --stop conv8
# Its layer of classes is not the published network's.
publish cifar_split --side 32 --resize 36 --stop conv32
