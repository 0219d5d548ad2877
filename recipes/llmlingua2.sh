#!/usr/bin/env bash
# LLMLingua-2 with the paper's settings (arXiv 2403.12968, section 4: learning rate 1e-5, 10 epochs, batches of 10 windows
# of 512 tokens; the schedule and the gradient clipping are ours). Needs a GPU; several: put `accelerate launch -m` and
# `laconic.cli` in place of `laconic`.
#
#     recipes/llmlingua2.sh TRAIN.jsonl DEV.jsonl OUT [BASE]    # BASE: FacebookAI/xlm-roberta-large (default), or
#                                                               # bert-base-multilingual-cased for the small model
set -euo pipefail
train=$1 dev=$2 out=$3 base=${4:-FacebookAI/xlm-roberta-large}
laconic train classifier "$train" --dev "$dev" --base "$base" -o "$out" \
    --lr 1e-5 --epochs 10 --batch 5120 --average 0 --no-features
