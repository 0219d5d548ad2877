#!/usr/bin/env bash
# laconic-small fine-tuned by reward (TACO-RL) on a CPU: a language model of 11 M parameters reads what is kept.
#
#     pip install -e ".[train,eval]"
#     recipes/policy.sh ../shared/data build build/laconic-lm/checkpoint     # killed, it goes on where it was
#
# A model this small cannot answer in its own words, so what is paid is how likely it finds the right answer
# (`--reward likelihood`, which is in no paper). For the papers' rewards pass a larger model, or an endpoint:
# `--reward-model Qwen/Qwen2.5-1.5B-Instruct --reward f1`, or `--endpoint URL --endpoint-model NAME`.
# It starts from OUT/laconic-small/checkpoint (recipes/laconic_small.sh), or from BASE, any keep/drop classifier.
# With this reader no run raised the reward on held-out passages (docs/log.md).
# More options of `laconic train policy` may follow.
set -euo pipefail
data=$1 out=$2 reader=$3
base=${BASE:-$out/laconic-small/checkpoint}
mkdir -p "$out"
head -n 64 "$data/teacher/dev.jsonl" > "$out/policy-dev.jsonl"
laconic train policy "$data/teacher/train.jsonl" --dev "$out/policy-dev.jsonl" --base "$base" -o "$out/policy" \
    --algorithm taco-rl --rate 0.4 --reward-model "$reader" --reward likelihood \
    --samples 4 --baseline others --lr 5e-5 --steps 300 --window 384 "${@:4}"
