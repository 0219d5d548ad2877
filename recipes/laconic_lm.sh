#!/usr/bin/env bash
# laconic-lm: a Llama of 11 M parameters from scratch, to test and show perplexity methods and soft compression with.
#
#     pip install -e ".[train]"
#     recipes/laconic_lm.sh ../shared/data build            # two idle cores: under two hours; killed, it goes on
#     recipes/laconic_lm.sh ../shared/data build gpu        # a GPU, with eighteen times the tokens; not run yet
#
# More options of `laconic train lm` may follow. build/laconic-lm/checkpoint is a Hugging Face folder with
# its model card; checkpoints/laconic-lm is what the first line gave (3,600 steps, 75 minutes beside other work).
set -euo pipefail
data=$1 out=$2 machine=${3:-cpu}
texts=$out/lm-texts
[ -e "$texts/train.jsonl.gz" ] || { python recipes/lm_texts.py "$data" "$texts.tmp" && mv "$texts.tmp" "$texts"; }
case $machine in
    cpu) size=(--steps 3600 --batch 8) ;;    # 15 M tokens
    gpu) size=(--steps 4000 --batch 128) ;;  # 262 M tokens
    *) echo "pass cpu or gpu, got $machine" >&2; exit 2 ;;
esac
laconic train lm "$texts/train.jsonl.gz" --dev "$texts/arxiv.jsonl.gz" --dev "$texts/podcasts.jsonl.gz" \
    --dev "$texts/meetings.jsonl.gz" --dev "$texts/documents.jsonl.gz" --dev "$texts/wikipedia.jsonl.gz" \
    -o "$out/laconic-lm" --about recipes/laconic_lm.json --copy 0.3 --recall 0.3 \
    --save-every 200 "${size[@]}" "${@:4}"
