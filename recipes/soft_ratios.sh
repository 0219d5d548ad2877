#!/usr/bin/env bash
# Retention over the ratio, from 6 to 480 tokens a slot: 500xCompressor (kv) and ICAE (embedding) encoders for laconic-lm
# that put up to 480 tokens of made-up facts into 1, 4 or 16 slots.
#
#     pip install -e ".[train,soft,eval]"
#     recipes/soft_ratios.sh build          # killed, it goes on; about an hour on two cores
#
# Facts and no texts: a text of 480 tokens that is said again stands twice before the reader of the full context, and
# laconic-lm has 512 positions. One encoder has all three numbers of slots, one of them drawn each step. The kv one goes on
# from checkpoints/laconic-lm-500x, which put 96 tokens into 16 slots; there is no embedding one that had learnt anything to go
# on from, so the two are no comparison of methods (recipes/soft_lookup.sh and soft_texts.sh are). Each learns on a core of its
# own. Judged on names never trained on. More options of `laconic train soft` may follow.
set -euo pipefail
cd "$(dirname "$0")/.."
out=$1
run() {
    OMP_NUM_THREADS=1 laconic train soft --base checkpoints/laconic-lm --facts 1 --slots 1 --slots 4 --slots 16 --window 480 \
        --shortest 96 --grow 0.6 --batch 8 --steps 400 --save-every 50 --warmup 20 --decay 0.3 "$@"
}
run -o "$out/soft-ratios/kv" --start checkpoints/laconic-lm-500x --lr 1e-3 "${@:2}" &
run -o "$out/soft-ratios/embedding" --mode embedding --rank 32 --alpha 32 --targets all --dropout 0 --lr 2e-3 "${@:2}" &
wait -n
wait -n
laconic soft measure "$out"/soft-ratios/{kv,embedding}/checkpoint --facts 30 --facts-lengths 96,192,288,384,480 \
    --slots 1 --slots 4 --slots 16 --hard none -o "$out/soft-ratios/measured"

# The upper bound, a reader of full contexts that was fine-tuned on such facts, and words in place of slots, at 96 tokens.
laconic train soft --base checkpoints/laconic-lm --mode full --facts 1 --window 96 --rank 32 --alpha 32 --targets all --dropout 0 \
    --lr 5e-4 --warmup 10 --decay 0.3 --batch 4 --steps 120 -o "$out/soft-ratios/full" "${@:2}"
laconic soft measure "$out"/soft-ratios/{kv,embedding,full}/checkpoint --facts 30 --facts-lengths 96 \
    --slots 1 --slots 4 --slots 16 -o "$out/soft-ratios/measured-96"
