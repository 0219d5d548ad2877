#!/usr/bin/env bash
# 500xCompressor for Llama-3-8B-Instruct with the settings of its authors' code: 500 tokens into up to 16 slots.
#
#     pip install -e ".[train,soft,eval]"
#     recipes/soft_llama3.sh meta-llama/Meta-Llama-3-8B-Instruct texts/ asked/ out [GPUS]
#
# texts/: train.jsonl.gz and dev.jsonl.gz, records with a text, such as 2.35 million abstracts of before July 2023; asked/:
# the same with question and answer (250,000). Each process holds the whole base in bfloat16 (16 GB), LoRA, memory
# embeddings and AdamW in float32 (0.4 GB), and with --checkpointing about 10 GB of activations. Not run: it takes GPUs.
#
# A base that one GPU has no room for (Llama-3-70B: 141 GB): add --shard to run(). With 8 GPUs each then holds 17 GB of its
# layers and 4 GB of embeddings and head, and of LoRA and AdamW 2 GB: arithmetic, not run either.
#
# Theirs: LoRA of rank 64 and alpha 32 on q_proj and v_proj, dropout 0.05, AdamW, 300 steps of warm-up, then constant at 1e-4
# (texts, 3 epochs) and 5e-5 (questions, 10 epochs), 4 contexts a process and step. Those are the defaults. Ours: memory
# embeddings begin as wide as the base's own, not at N(0, 1); padding is not learnt; one encoder for 1, 4 and 16 slots.
set -euo pipefail
base=$1 texts=$2 asked=$3 out=$4 gpus=${5:-8}
slots="--slots 1 --slots 4 --slots 16"
run() { accelerate launch --num_processes "$gpus" --mixed_precision bf16 -m laconic.cli train soft "$@" --checkpointing; }
run "$texts/train.jsonl.gz" --dev "$texts/dev.jsonl.gz" --base "$base" $slots --window 500 \
    --steps $((3 * 2353924 / 4 / gpus)) --save-every 1000 -o "$out/texts"
run "$asked/train.jsonl.gz" --dev "$asked/dev.jsonl.gz" --base "$base" --start "$out/texts/checkpoint" $slots --window 500 \
    --lr 5e-5 --steps $((10 * 250000 / 4 / gpus)) --save-every 1000 -o "$out/answers"
laconic soft measure "$out/answers/checkpoint" --data "$asked/dev.jsonl.gz" --trained "$texts/train.jsonl.gz" \
    "$asked/train.jsonl.gz" $slots --lengths 96,192,288,384,480 --ablate -o "$out/measured"
