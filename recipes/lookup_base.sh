#!/usr/bin/env bash
# lookup-base: a Llama of 0.8 M parameters that looks up pairs of symbols and copies, to measure what a memory can hold.
#
#     pip install -e ".[train]"
#     recipes/lookup_base.sh ../shared/data build          # killed, it goes on; half an hour on one core
#
# 40 % pairs, 30 % copies, 30 % abstracts, 9 M tokens. It ends with an error unless the model, with the full context
# before it, answers at least 99 % right for every number of pairs: no compressor is worth training on one that does not.
set -euo pipefail
data=$1 out=$2
texts=$out/lm-texts
[ -e "$texts/train.jsonl.gz" ] || { python recipes/lm_texts.py "$data" "$texts.tmp" && mv "$texts.tmp" "$texts"; }
laconic train lm "$texts/train.jsonl.gz" --dev "$texts/arxiv.jsonl.gz" -o "$out/lookup-base" \
    --about recipes/lookup_base.json --vocabulary 512 --width 128 --layers 4 --heads 4 --window 96 \
    --copy 0.3 --recall 0 --lookup 0.4 --steps 1500 --batch 64 --lr 1e-3 "${@:3}"
python recipes/lookup_gate.py "$out/lookup-base/checkpoint"
