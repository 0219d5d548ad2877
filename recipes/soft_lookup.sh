#!/usr/bin/env bash
# What a memory can hold: 500xCompressor (kv) and ICAE (embedding) memories of pairs of symbols, for a Llama of 0.8 M
# parameters, by slots (the C0 size of docs/soft.md).
#
#     pip install -e ".[train,soft,eval]"
#     recipes/soft_lookup.sh ../shared/data build       # killed, it goes on
#
# Trains the base unless it is there (recipes/lookup_base.sh, with its gate), then four encoders with the same steps, and
# measures them on pairs never trained on.
set -euo pipefail
data=$1 out=$2
[ -e "$out/lookup-base/run.json" ] || recipes/lookup_base.sh "$data" "$out"
for mode in kv embedding; do
    for slots in 1 4; do
        laconic train soft --base "$out/lookup-base/checkpoint" -o "$out/soft-lookup/$mode-$slots" --lookup 1 \
            --mode "$mode" --slots "$slots" --window 64 --rank 32 --alpha 32 --targets all \
            --dropout 0 --steps 1000 --batch 64 --lr 1e-3 --warmup 50 --decay 0.3 "${@:3}"
    done
done
laconic soft measure "$out"/soft-lookup/{kv,embedding}-{1,4}/checkpoint --lookup 250 --hard none --ablate \
    -o "$out/soft-lookup/measured"
