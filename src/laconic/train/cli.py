"""`laconic train`: options, and the runs that they describe."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from laconic.console import TEXTS, number, read, say, whole
from laconic.errors import InputError

if TYPE_CHECKING:
    from laconic.soft import Settings as Encoder
    from laconic.soft import Tuning

_WINDOW = 500  # tokens of a new soft encoder


def options(sub: argparse.ArgumentParser) -> None:
    """What can be trained."""
    kinds = sub.add_subparsers(required=True, metavar="WHAT")
    _classifier_options(
        kinds.add_parser(
            "classifier", help="keep or drop, with or without a question", description="Train a token classifier."
        )
    )
    _lm_options(
        kinds.add_parser("lm", help="a small language model from scratch", description="Pretrain a small Llama.")
    )
    _soft_options(
        kinds.add_parser(
            "soft", help="texts as a few slots (needs the extra [soft])", description="Train a soft encoder."
        )
    )
    _policy_options(
        kinds.add_parser(
            "policy", help="keep or drop, by what a language model then says", description="Train a policy by reward."
        )
    )


def _classifier_options(sub: argparse.ArgumentParser) -> None:
    sub.set_defaults(run=_train_classifier)
    sub.add_argument("data", nargs="+", metavar="FILE[:ROWS]", help="labelled JSON lines; ROWS: so many in an epoch")
    sub.add_argument("--dev", metavar="FILE", type=Path, required=True, help="labelled JSON lines to judge on")
    sub.add_argument("--base", metavar="NAME|DIR", required=True, help="Hugging Face encoder to start from")
    _run_options(sub)
    sub.add_argument("--about", metavar="FILE", type=Path, help="JSON for the model card: name, window, licence, …")
    sub.add_argument("--epochs", type=whole, default=4, metavar="N", help="default: 4")
    sub.add_argument("--lr", type=number, default=1.5e-4, metavar="LR", help="peak learning rate (default: 1.5e-4)")
    sub.add_argument("--batch", type=whole, default=3072, metavar="N", help="tokens a step and process (default: 3072)")
    sub.add_argument("--window", type=whole, default=512, metavar="N", help="longest row in tokens (default: 512)")
    sub.add_argument("--average", type=number, default=0.999, metavar="D", help="decay of averaged weights; 0: none")
    sub.add_argument("--embedder", default="", metavar="NAME|DIR", help="sentence encoder to learn nearness from")
    sub.add_argument("--layers", type=whole, metavar="N", help="so many of the base's layers (default: all)")
    sub.add_argument("--no-features", action="store_true", help="no capitals and layout as token types")
    sub.add_argument("--patience", type=whole, metavar="N", help="stop after N epochs that are no better on dev")


def _lm_options(sub: argparse.ArgumentParser) -> None:
    sub.set_defaults(run=_train_lm)
    sub.add_argument("data", nargs="+", metavar="TEXTS", type=Path, help=TEXTS)
    sub.add_argument(
        "--dev", metavar="TEXTS", type=Path, action="append", required=True, help="to judge on; repeatable"
    )
    _run_options(sub)
    sub.add_argument("--about", metavar="FILE", type=Path, help="JSON for the model card: name, licence, data, …")
    sub.add_argument("--text-field", default="text", metavar="F", help="default: text")
    sub.add_argument("--broken", choices=("stop", "skip"), default="stop", help="on broken records (default: stop)")
    sub.add_argument("--steps", type=whole, default=2000, metavar="N", help="default: 2000")
    sub.add_argument("--batch", type=whole, default=32, metavar="N", help="windows a step and process (default: 32)")
    sub.add_argument("--window", type=whole, default=512, metavar="N", help="tokens (default: 512)")
    sub.add_argument("--vocabulary", type=whole, default=8192, metavar="N", help="tokens (default: 8192)")
    sub.add_argument("--width", type=whole, default=384, metavar="N", help="default: 384")
    sub.add_argument("--layers", type=whole, default=5, metavar="N", help="default: 5")
    sub.add_argument("--heads", type=whole, default=6, metavar="N", help="of queries (default: 6)")
    sub.add_argument("--lr", type=number, default=5e-4, metavar="LR", help="peak learning rate (default: 5e-4)")
    sub.add_argument("--copy", type=number, default=0.2, metavar="S", help="share of copy windows (default: 0.2)")
    sub.add_argument("--recall", type=number, default=0.2, metavar="S", help="share of fact windows (default: 0.2)")
    sub.add_argument("--lookup", type=number, default=0.0, metavar="S", help="share of pair windows (default: 0)")


def _soft_options(sub: argparse.ArgumentParser) -> None:
    sub.set_defaults(run=_train_soft)
    sub.add_argument("data", nargs="*", metavar="TEXTS", type=Path, help=f"{TEXTS}; with question and answer, or not")
    sub.add_argument("--dev", metavar="TEXTS", type=Path, action="append", default=[], help="to judge on; repeatable")
    sub.add_argument("--base", metavar="NAME|DIR", required=True, help="causal language model that will read the slots")
    sub.add_argument("--start", metavar="DIR", type=Path, help="encoder to go on from")
    _run_options(sub)
    sub.add_argument("--text-field", default="text", metavar="F", help="default: text")
    sub.add_argument("--slots", type=whole, action="append", metavar="M", help="repeatable: drawn (default: 16)")
    sub.add_argument("--steps", type=whole, default=2000, metavar="N", help="default: 2000")
    sub.add_argument("--batch", type=whole, default=4, metavar="N", help="contexts a step and process (default: 4)")
    sub.add_argument("--lr", type=number, default=1e-4, metavar="LR", help="peak learning rate (default: 1e-4)")
    sub.add_argument("--warmup", type=whole, default=300, metavar="N", help="steps (default: 300)")
    sub.add_argument("--decay", type=number, default=0.0, metavar="S", help="share of steps at the end (default: 0)")
    sub.add_argument("--checkpointing", action="store_true", help="less memory, a third more time")
    sub.add_argument("--shard", action="store_true", help="split the base over the processes; docs/train.md")
    lora = sub.add_argument_group("a new encoder; with --start, what that one must be (but for the window)")
    lora.add_argument(
        "--mode",
        choices=("kv", "embedding", "full"),
        help="500xCompressor (default), ICAE, or no slots: a reader of full contexts, the upper bound",
    )
    lora.add_argument("--window", type=whole, metavar="N", help=f"longest text in tokens (default: {_WINDOW})")
    lora.add_argument("--positions", choices=("official", "continue"), help="docs/soft.md (default: official)")
    lora.add_argument("--rank", type=whole, metavar="N", help="default: 64")
    lora.add_argument("--alpha", type=number, metavar="A", help="default: 32")
    lora.add_argument("--dropout", type=number, metavar="P", help="default: 0.05")
    lora.add_argument("--targets", metavar="T,…", help="maps, or all (default: q_proj,v_proj)")
    goals = sub.add_argument_group(
        "what is learnt besides saying the text again, or answering where there is a question"
    )
    goals.add_argument("--follow", type=whole, default=0, metavar="N", help="tokens after the text (ICAE; default: 0)")
    goals.add_argument("--distil", type=number, default=0.0, metavar="W", help="weight of the full-context reader")
    goals.add_argument("--facts", type=number, default=0.0, metavar="S", help="share of made-up facts (default: 0)")
    goals.add_argument("--lookup", type=number, default=0.0, metavar="S", help="share of pairs (default: 0)")
    goals.add_argument("--shortest", type=whole, default=0, metavar="N", help="tokens of the first texts, which grow")
    goals.add_argument(
        "--grow", type=number, default=0.5, metavar="S", help="share of steps they grow in (default: 0.5)"
    )


def _policy_options(sub: argparse.ArgumentParser) -> None:
    sub.set_defaults(run=_train_policy)
    sub.add_argument("data", nargs="+", metavar="TEXTS", type=Path, help="JSON lines: text, and question, answer")
    sub.add_argument("--dev", metavar="FILE", type=Path, required=True, help="JSON lines to judge on")
    sub.add_argument("--base", metavar="NAME|DIR", required=True, help="encoder (pcrl) or keep/drop classifier")
    sub.add_argument("--algorithm", choices=("pcrl", "taco-rl"), required=True, help="docs/train.md")
    model = sub.add_argument_group("the model that reads what is kept (one of them)")
    model.add_argument("--reward-model", metavar="NAME|DIR", help="causal language model on this machine")
    model.add_argument("--endpoint", metavar="URL", help="OpenAI-compatible; key: LACONIC_API_KEY")
    sub.add_argument("--endpoint-model", metavar="M", help="the model's name at that address")
    sub.add_argument("--concurrency", type=whole, default=8, metavar="N", help="requests in flight (default: 8)")
    sub.add_argument("--reward", metavar="R", help="rouge-l (default for pcrl), f1 (for taco-rl), bleu, likelihood")
    sub.add_argument("--answer-tokens", type=whole, default=30, metavar="N", help="most of an answer (default: 30)")
    sub.add_argument("--cache", metavar="FILE", type=Path, help="answers already had (default: OUT/answers.sqlite)")
    _run_options(sub)
    sub.add_argument("--about", metavar="FILE", type=Path, help="JSON for the model card: name, window, licence, …")
    sub.add_argument("--steps", type=whole, default=1000, metavar="N", help="default: 1000")
    sub.add_argument("--window", type=whole, default=512, metavar="N", help="longest text in tokens (default: 512)")
    paper = sub.add_argument_group("settings with the papers' defaults, pcrl and taco-rl")
    paper.add_argument("--batch", type=whole, metavar="N", help="texts a step and process (32, 8)")
    paper.add_argument("--samples", type=whole, metavar="N", help="compressions drawn of each text (4, 1)")
    paper.add_argument("--lr", type=number, metavar="LR", help="learning rate at the start (3e-5, 1e-5)")
    paper.add_argument("--entropy", type=number, metavar="W", help="weight of the entropy (0.001, 0.01)")
    paper.add_argument("--baseline", metavar="B", help="greedy, others, none (greedy, none)")
    paper.add_argument("--penalty", type=number, metavar="R", help="reward where the condition fails (-0.01, -0.1)")
    paper.add_argument("--tau", type=number, metavar="T", help="pcrl: the quality must be above it (0.9)")
    paper.add_argument("--hidden", type=whole, metavar="N", help="pcrl: width of the head's hidden layer (4096)")
    paper.add_argument("--rate", type=number, metavar="R", help="taco-rl: share of tokens to keep (0.5)")
    paper.add_argument("--tolerance", type=whole, metavar="N", help="taco-rl: tokens more or less allowed (30)")


def _run_options(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("-o", "--output", metavar="OUT", type=Path, required=True, help="folder; a killed run goes on")
    sub.add_argument("--seed", type=whole, default=0, metavar="N", help="default: 0")
    sub.add_argument("--save-every", type=whole, default=200, metavar="N", help="steps (default: 200)")


def _train_classifier(args: argparse.Namespace) -> int:
    from laconic.train.classifier import Settings, Source, train
    from laconic.train.loop import first_process
    from laconic.train.publish import check, publish

    about = _about(args.about) if args.about else {}
    check(about)
    settings = Settings(
        base=args.base,
        epochs=args.epochs,
        lr=args.lr,
        tokens=args.batch,
        window=args.window,
        average=args.average,
        embedder=args.embedder,
        layers=args.layers,
        features=not args.no_features,
        patience=args.patience,
        seed=args.seed,
    )
    train([Source.parse(d) for d in args.data], args.dev, args.output, settings, args.save_every, say)
    if first_process():
        print(publish(args.output, about))
    return 0


def _train_lm(args: argparse.Namespace) -> int:
    from laconic.train.corpus import Texts
    from laconic.train.lm import Settings, train
    from laconic.train.loop import first_process
    from laconic.train.publish import check_lm, publish_lm

    about = _about(args.about) if args.about else {}
    check_lm(about)
    settings = Settings(
        steps=args.steps,
        batch=args.batch,
        window=args.window,
        vocabulary=args.vocabulary,
        width=args.width,
        layers=args.layers,
        heads=args.heads,
        lr=args.lr,
        copy=args.copy,
        recall=args.recall,
        lookup=args.lookup,
        seed=args.seed,
    )
    texts = Texts(tuple(args.data), tuple(args.dev), args.text_field, args.broken == "skip")
    train(texts, args.output, settings, args.save_every, say)
    if first_process():
        print(publish_lm(args.output, about))
    return 0


def _train_soft(args: argparse.Namespace) -> int:
    from laconic.soft import Settings as Encoder
    from laconic.soft import Tuning, mode_of
    from laconic.train.loop import first_process
    from laconic.train.soft import Settings, train

    full = (mode_of(args.start) if args.start else args.mode) == "full"
    if full and (args.slots or args.positions):
        raise InputError("full contexts have no slots; leave out --slots and --positions")
    slots = () if full else tuple(args.slots or [16])
    kind: Any = Tuning if full else Encoder
    encoder = _again(args, kind.of(args.start)) if args.start else _new(args, kind, slots)
    names = ("steps", "batch", "lr", "warmup", "decay", "shortest", "grow", "follow", "distil", "facts", "lookup")
    given = {name: getattr(args, name) for name in (*names, "checkpointing", "shard", "seed")}
    settings = Settings(args.base, encoder, slots, **given)
    saving = {"start": args.start, "field": args.text_field, "save_every": args.save_every}
    checkpoint = train(args.data, args.dev, args.output, settings, **saving, say=say)
    if first_process():
        print(checkpoint)
    return 0


def _new(args: argparse.Namespace, kind: Any, slots: tuple[int, ...]) -> Encoder | Tuning:
    """What a new encoder is, or a reader of full contexts."""
    most = {"slots": max(slots)} if slots else {}
    made: Encoder | Tuning = kind(**{"window": _WINDOW, "seed": args.seed, **most, **_lora(args)})
    return made


def _again(args: argparse.Namespace, found: Encoder | Tuning) -> Encoder | Tuning:
    """What an encoder to go on from is; InputError where the options say otherwise. It may learn longer texts."""
    for name, value in _lora(args).items():
        if name != "window" and (there := getattr(found, name)) != value:
            raise InputError(
                f"--start goes on with {name} {there!r} of {args.start}, got {value!r}; leave out --{name}"
            )
    return found if args.window is None else replace(found, window=args.window)


def _lora(args: argparse.Namespace) -> dict[str, Any]:
    """Those of an encoder's settings that are given."""
    from laconic.train.soft import ALL_LINEAR

    names = ("mode", "window", "positions", "rank", "alpha", "dropout", "targets")
    given = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    if args.targets:
        given["targets"] = ALL_LINEAR if args.targets == "all" else tuple(args.targets.split(","))
    return given


def _train_policy(args: argparse.Namespace) -> int:
    from contextlib import ExitStack, closing

    from laconic.endpoint import Endpoint
    from laconic.train.loop import first_process
    from laconic.train.policy import Settings, train
    from laconic.train.publish import check, publish
    from laconic.train.rewards import Local, Remote, algorithm, quality

    about = _about(args.about) if args.about else {}
    check(about)
    if bool(args.endpoint) != bool(args.endpoint_model) or bool(args.endpoint) == bool(args.reward_model):
        raise InputError("pass either --reward-model, or --endpoint and --endpoint-model")

    def given(*names: str) -> dict[str, Any]:
        return {name: getattr(args, name) for name in names if getattr(args, name) is not None}

    paid = algorithm(args.algorithm, **given("penalty", "tau", "hidden", "rate", "tolerance"))
    changes = given("batch", "samples", "lr", "entropy", "baseline")
    settings = Settings.of(args.base, paid, steps=args.steps, window=args.window, seed=args.seed, **changes)
    reward = args.reward or {"pcrl": "rouge-l", "taco-rl": "f1"}[args.algorithm]
    cache = args.cache or args.output / "answers.sqlite"
    with ExitStack() as stack:
        reader: Local | Remote
        if args.endpoint:
            endpoint = Endpoint(args.endpoint, args.endpoint_model, concurrency=args.concurrency, cache=cache)
            reader = Remote(stack.enter_context(endpoint), args.answer_tokens)
        else:
            reader = stack.enter_context(closing(Local(args.reward_model, args.answer_tokens, cache)))
        train(args.data, args.dev, args.output, settings, quality(reward, reader), args.save_every, say)
    if first_process():
        print(publish(args.output, about))
    return 0


def _about(path: Path) -> Any:
    text = read(str(path))
    try:
        return json.loads(text)
    except ValueError as error:
        raise InputError(f"{path} is not JSON ({error}); see docs/train.md") from None
