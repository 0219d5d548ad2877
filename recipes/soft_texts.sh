#!/usr/bin/env bash
# 500xCompressor (kv) and ICAE (embedding) encoders for laconic-lm: up to 96 tokens of abstracts and made-up facts into 16
# slots. checkpoints/laconic-lm-500x is what it makes of kv.
#
#     pip install -e ".[train,soft,eval]"
#     recipes/soft_texts.sh ../shared/data build        # killed, it goes on; an hour each, on one core of two
#
# laconic-lm must be there (recipes/laconic_lm.sh). Texts grow from 16 tokens, as many as there are slots, to 96: from 8 to 96
# in half of 1,500 steps neither learns to say a text again (docs/log.md). Both are compared after the same steps; then kv
# goes on with a falling learning rate. Judged on abstracts of June 2026 and later, which no model here has seen, and on facts
# about names never trained on. `--mode full` with the same options trains the upper bound (docs/soft.md). More options of
# `laconic train soft` may follow.
set -euo pipefail
data=$1 out=$2
texts=$out/lm-texts
run() {
    laconic train soft "$texts/train.jsonl.gz" --dev "$texts/arxiv.jsonl.gz" --base "$out/laconic-lm/checkpoint" \
        --slots 16 --window 96 --facts 0.2 --rank 32 --alpha 32 --targets all --dropout 0 --lr 2e-3 --batch 16 "$@"
}
for mode in kv embedding; do
    run --mode $mode -o "$out/soft-texts/$mode" --shortest 16 --grow 1 --steps 1920 --warmup 50 "${@:3}"
done
run --mode kv --start "$out/soft-texts/kv/checkpoint" -o "$out/soft-texts/kv-fallen" \
    --steps 500 --warmup 20 --decay 0.9 --seed 1 "${@:3}"
laconic soft measure "$out"/soft-texts/{kv,embedding,kv-fallen}/checkpoint --data "$texts/arxiv.jsonl.gz" \
    --trained "$texts/train.jsonl.gz" --lengths 16,32,48,96 --facts 100 --limit 60 --ablate -o "$out/soft-texts/measured"
