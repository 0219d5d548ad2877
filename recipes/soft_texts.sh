#!/usr/bin/env bash
# 500xCompressor (kv) and ICAE (embedding) encoders for laconic-lm: abstracts and made-up facts into 1, 4 or 16 slots; and
# the upper bound (full): the same LoRA and steps on a reader of the full contexts.
#
#     pip install -e ".[train,soft,eval]"
#     recipes/soft_texts.sh ../shared/data build        # killed, it goes on; not run to its end yet
#
# laconic-lm must be there (recipes/laconic_lm.sh). Judged on abstracts of June 2026 and later, which no model here has
# seen, and on facts about names never trained on. More options of `laconic train soft` may follow.
set -euo pipefail
data=$1 out=$2
texts=$out/lm-texts
slots="--slots 1 --slots 4 --slots 16"
for mode in "kv $slots" "embedding $slots" full; do
    laconic train soft "$texts/train.jsonl.gz" --dev "$texts/arxiv.jsonl.gz" --base "$out/laconic-lm/checkpoint" \
        -o "$out/soft-texts/${mode%% *}" --mode $mode --window 96 --shortest 8 --facts 0.3 \
        --rank 32 --alpha 32 --targets all --dropout 0 --lr 1e-3 --warmup 50 --decay 0.3 --batch 16 --steps 1500 "${@:3}"
done
laconic soft measure "$out"/soft-texts/{kv,embedding,full}/checkpoint \
    --data "$texts/arxiv.jsonl.gz" --trained "$texts/train.jsonl.gz" $slots --lengths 16,48,96 \
    --facts 200 --limit 100 --ablate -o "$out/soft-texts/measured"
