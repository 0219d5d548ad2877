#!/usr/bin/env bash
# Retention over the ratio, from 6 to 480 tokens a slot: 500xCompressor (kv) and ICAE (embedding) encoders for laconic-lm
# that put up to 480 tokens of made-up facts into 1, 4 or 16 slots.
#
#     pip install -e ".[train,soft,eval]"
#     recipes/soft_ratios.sh build          # killed, it goes on; an hour and a half on two cores
#
# Facts and no texts: a text of 480 tokens that is said again stands twice before the reader of the full context, and
# laconic-lm has 512 positions. One encoder has all three numbers of slots, one of them drawn each step. Both learn on a core
# of their own, and are judged on names never trained on. More options of `laconic train soft` may follow.
set -euo pipefail
cd "$(dirname "$0")/.."
out=$1
for mode in kv embedding; do
    OMP_NUM_THREADS=1 laconic train soft --base checkpoints/laconic-lm -o "$out/soft-ratios/$mode" --mode $mode \
        --facts 1 --slots 1 --slots 4 --slots 16 --window 480 --shortest 48 --grow 0.6 --rank 32 --alpha 32 --targets all \
        --dropout 0 --lr 2e-3 --warmup 40 --decay 0.3 --batch 8 --steps 800 --save-every 50 "${@:2}" &
done
wait -n
wait -n
laconic soft measure "$out"/soft-ratios/{kv,embedding}/checkpoint --facts 60 --facts-lengths 96,192,288,384,480 \
    --slots 1 --slots 4 --slots 16 -o "$out/soft-ratios/measured"
