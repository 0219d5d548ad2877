"""The command line: parses, calls, prints. Exit 0 done, 2 wrong usage or input, 1 anything else."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from laconic import DEFAULT_MODEL, __version__
from laconic.console import TEXTS, number, read, say, whole, write
from laconic.errors import EndpointError, InputError, LaconicError
from laconic.render import CONTROLS
from laconic.serve import cli as serve
from laconic.serve import replay_cli as replay
from laconic.serve import restore
from laconic.soft import cli as soft
from laconic.train import cli as train

if TYPE_CHECKING:
    from collections.abc import Iterator

    from laconic.result import Compression
    from laconic.score import Progress

_LONG = 300_000  # characters from which a watching person gets a progress bar


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    try:
        args = _parser().parse_args(argv)
        if sys.stdout is None or sys.stdin is None:
            raise InputError("standard input and standard output must be open; redirect them to /dev/null instead")
        status: int = args.run(args)
        sys.stdout.flush()
        return status
    except LaconicError as error:
        return _fail(str(error), 1 if isinstance(error, EndpointError) else 2)
    except BrokenPipeError:  # the reader went away: nothing to say, and nobody to say it to
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return _fail("interrupted", 1)
    except Exception as error:  # a bug of ours, or the machine's: one line, never a traceback
        return _fail(f"{type(error).__name__}: {error}", 1)


def _fail(message: str, status: int) -> int:
    say("laconic: " + " ".join(message.split()).translate(CONTROLS))
    return status


class _Parser(argparse.ArgumentParser):
    """Errors of usage in one line, like all others."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; try: {self.prog} --help")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="laconic",
        description="Prompt compression: keep the smallest verbatim part of a text that still does the job.",
        epilog="example: laconic compress report.md --rate 0.4 > short.md",
    )
    parser.add_argument("--version", action="version", version=f"laconic {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Callable[[argparse.Namespace], int] | None, text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        sub.set_defaults(run=run)  # None: its own commands set it
        return sub

    sub = command("compress", _compress, "compress a text; the result goes to standard output, byte for byte")
    _compression_options(sub)
    sub.add_argument("--format", choices=("text", "json", "ansi", "html"), default="text", help="default: text")
    sub.add_argument("-o", "--output", metavar="OUT", type=Path, help="write there instead of to standard output")
    sub = command("show", _show, "show kept and dropped words as a heat map")
    _compression_options(sub)
    sub.add_argument("--html", metavar="OUT", type=Path, help="write a self-contained HTML page instead")
    command("models", _models, "list the models")
    sub = command("export", _export, "convert a Hugging Face token classifier to ONNX (needs the extra [torch])")
    sub.add_argument("folder", metavar="DIR", type=Path, help="folder with config.json, model.safetensors, tokenizer")
    sub.add_argument("-o", "--output", metavar="OUT", type=Path, help="default: DIR/onnx")
    sub.add_argument("--fp32", action="store_true", help="no int8 weights: larger and slower, scores unchanged")
    _distill_options(command("distill", _distill, "label texts with a teacher LLM (needs the extra [distill])"))
    _eval_options(command("eval", _eval, "measure methods on tasks (needs the extra [eval])"))
    train.options(command("train", None, "train a model (needs the extra [train])"))
    soft.options(command("soft", None, "texts as a few slots that one model reads (needs the extra [soft])"))
    serve.options(command("serve", None, "a proxy that compresses (needs the extra [serve])"))
    replay.options(command("replay", None, "what would have been saved on recorded requests"))
    restore.options(command("restore", None, "print the original of a part that was compressed"))
    sub = command("bench", _bench, "measure the speed on this machine")
    sub.add_argument("file", nargs="?", metavar="FILE", help="text to measure on (default: generated prose)")
    sub.add_argument("--model", default=DEFAULT_MODEL, metavar="NAME|DIR", help=f"default: {DEFAULT_MODEL}")
    return parser


def _compression_options(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "files",
        nargs="*",
        default=["-"],
        metavar="FILE",
        help="UTF-8 text; - or nothing: standard input; several: documents, compressed together within one budget",
    )
    budget = sub.add_argument_group("budget (one of them; default: --rate 0.5)")
    budget.add_argument("--rate", type=number, metavar="R", help="share of tokens to keep, in (0, 1]")
    budget.add_argument("--tokens", type=whole, metavar="N", help="most tokens to keep, counted on the result")
    budget.add_argument("--threshold", type=number, metavar="P", help="keep what scores at least P, in [0, 1]")
    sub.add_argument("--question", metavar="Q", help="keep what answers it (only with a model that reads questions)")
    sub.add_argument("--keep", metavar="REGEX", action="append", default=[], help="never drop what matches; repeatable")
    sub.add_argument("--model", default=DEFAULT_MODEL, metavar="NAME|DIR", help=f"default: {DEFAULT_MODEL}")
    sub.add_argument(
        "--method",
        default="llmlingua2",
        metavar="M",
        help="llmlingua2 (default), tfidf, lead, random; with a causal language model as --model: llmlingua, "
        "longllmlingua, selective-context (-phrase, -sentence)",
    )
    sub.add_argument(
        "--counter",
        default="o200k_base",
        metavar="C",
        help="whose tokens are counted: o200k_base (default), cl100k_base, words, or a folder with a tokenizer.json",
    )
    sub.add_argument("--plain", action="store_true", help="no special care of JSON, code, Markdown, negations")
    several = sub.add_argument_group("several documents and a question")
    several.add_argument(
        "--ranker",
        metavar="R[=MODEL]",
        help="how relevant each one is: bm25, gzip, evidence, embedding=DIR, reranker=DIR, perplexity=DIR "
        "(default: the model's own scores, bm25 if it reads no questions)",
    )
    several.add_argument("--order", metavar="O", help="original (default), best_first, two_ended (best at both ends)")
    several.add_argument("--spread", type=number, metavar="S", help="the best one keeps so much more, the worst less")


def _distill_options(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("input", metavar="IN", type=Path, help=TEXTS)
    sub.add_argument("output", metavar="OUT", type=Path, help="data set, JSON lines; beside it a report and a cache")
    sub.add_argument("--teacher", metavar="URL", required=True, help="OpenAI-compatible; key: LACONIC_API_KEY")
    sub.add_argument("--teacher-model", metavar="M", required=True, help="the model's name at that address")
    sub.add_argument("--dry-run", action="store_true", help="print what would be asked and cost, and ask nothing")
    sub.add_argument("--questions", action="store_true", help="also a question, its answer and evidence for each chunk")
    sub.add_argument("--tokens", type=whole, default=512, metavar="N", help="most tokens of a chunk (default: 512)")
    sub.add_argument("--counter", default="o200k_base", metavar="C", help="as for compress")
    sub.add_argument("--broken", choices=("stop", "skip"), default="stop", help="on broken records (default: stop)")
    for name in ("text", "id", "question", "answer"):
        sub.add_argument(f"--{name}-field", default=name, metavar="F", help=f"default: {name}")
    sub.add_argument("--drop-vr", type=number, default=5.0, metavar="PCT", help="drop by Variation Rate (default: 5)")
    sub.add_argument("--drop-ag", type=number, default=10.0, metavar="PCT", help="then by Alignment Gap (default: 10)")
    sub.add_argument("--concurrency", type=whole, default=8, metavar="N", help="requests in flight (default: 8)")
    sub.add_argument("--per-minute", type=number, metavar="N", help="most requests begun in a minute")
    sub.add_argument("--price-in", type=number, metavar="P", help="of a million tokens, for the cost estimate")
    sub.add_argument("--price-out", type=number, metavar="P", help="of a million tokens of answers")
    sub.add_argument("--cache", metavar="FILE", type=Path, help="answers already paid (default: OUT.cache.sqlite)")


def _eval_options(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("tasks", nargs="+", metavar="TASK=PATH", help="PATH: file, folder, hf:org/name/file; docs/eval.md")
    sub.add_argument("--method", action="append", metavar="M[=MODEL]", help="repeatable; default: llmlingua2")
    sub.add_argument("--rate", type=number, action="append", metavar="R", help="repeatable; default: 0.1, 0.25, 0.5")
    sub.add_argument("--limit", type=whole, metavar="N", help="so many examples of each task, drawn at random")
    sub.add_argument("--reader", metavar="DIR", help="extractive reader that answers (recipes/reader.py)")
    sub.add_argument("--endpoint", metavar="URL", help="OpenAI-compatible model that answers; key: LACONIC_API_KEY")
    sub.add_argument("--endpoint-model", metavar="M", help="the model's name at that address")
    sub.add_argument("-o", "--output", metavar="OUT", type=Path, required=True, help="folder; done rows are kept")


def _compress(args: argparse.Namespace) -> int:
    result = _run(args)
    text = {
        "text": lambda: result.text,
        "json": lambda: json.dumps(result.to_dict(), ensure_ascii=False) + "\n",
        "ansi": lambda: result.show() + "\n",
        "html": result.html,
    }[args.format]()
    write(args.output, text)
    if args.output is None and sys.stdout.isatty() and not text.endswith("\n"):
        say("")
    say(result.stats())
    return 0


def _show(args: argparse.Namespace) -> int:
    result = _run(args)
    if args.html:
        write(args.html, result.html())
    else:
        color = sys.stdout.isatty() and "NO_COLOR" not in os.environ
        write(None, result.show(color) + "\n")
    say(result.stats())
    return 0


def _run(args: argparse.Namespace) -> Compression:
    import laconic
    from laconic.budget import Budget

    Budget(args.rate, args.tokens, args.threshold)  # before reading or loading anything
    arrangement = {k: v for k in ("ranker", "order", "spread") if (v := getattr(args, k)) is not None}
    if len(args.files) == 1 and arrangement:
        raise InputError(f"--{next(iter(arrangement))} is for several documents; pass more than one FILE")
    if len(args.files) > 1 and args.threshold is not None:
        raise InputError("--threshold is for one text; pass --rate or --tokens for several documents")
    texts = [read(name) for name in args.files]
    compressor = laconic.load(args.model, method=args.method, counter=args.counter, structure=not args.plain)
    options = {"rate": args.rate, "tokens": args.tokens, "question": args.question, "protect": args.keep}
    if len(texts) > 1:
        return compressor.compress_documents(texts, **options, **arrangement)
    with _bar(len(texts[0])) as progress:
        return compressor.compress(texts[0], threshold=args.threshold, progress=progress, **options)


@contextmanager
def _bar(size: int) -> Iterator[Progress | None]:
    """A progress bar on standard error when the work is long and a person watches."""
    if size < _LONG or sys.stderr is None or not sys.stderr.isatty():
        yield None
        return
    from tqdm import tqdm

    with tqdm(total=size, unit="char", unit_scale=True, leave=False, desc="compressing") as bar:
        yield bar.update


def _models(args: argparse.Namespace) -> int:
    from laconic.hub import models

    for row in models():
        if "problem" in row:
            print(f"{row['name']}: {row['problem']}")
            continue
        languages = ", ".join(row["languages"]) or "any language"
        reads = "reads questions" if row["question"] else "does not read questions"
        print(f"{row['name']}  {row['bytes'] / 1e6:.0f} MB, {languages}, windows of {row['window']} tokens, {reads}")
        print(f"  limits: {row['limits']}\n  data: {row['data']}\n  licence: {row['licence']}\n  folder: {row['path']}")
    return 0


def _export(args: argparse.Namespace) -> int:
    from laconic.export import export

    print(export(args.folder, args.output or args.folder / "onnx", int8=not args.fp32))
    return 0


def _distill(args: argparse.Namespace) -> int:
    from laconic.distill.plan import Job, Prices, plan
    from laconic.distill.quality import Drop
    from laconic.distill.report import line
    from laconic.distill.run import distill
    from laconic.distill.texts import Fields
    from laconic.endpoint import Endpoint

    fields = Fields(args.text_field, args.id_field, args.question_field, args.answer_field)
    job = Job(args.input, fields, args.tokens, args.counter, args.questions, args.broken == "skip")
    drop = Drop(args.drop_vr, args.drop_ag)
    priced = args.price_in is not None or args.price_out is not None
    prices = Prices(args.price_in or 0, args.price_out or 0) if priced else None
    if not args.output.name or args.output.is_dir():
        raise InputError(f"{args.output} is a folder; pass a file for the data set")
    cache = args.cache or args.output.with_suffix(".cache.sqlite")
    if cache.resolve() == args.output.resolve():
        raise InputError(f"{cache} cannot hold both the data set and the answers; pass another --cache")
    with Endpoint(
        args.teacher, args.teacher_model, concurrency=args.concurrency, per_minute=args.per_minute, cache=cache
    ) as endpoint:
        planned = plan(job, endpoint)
        if args.dry_run:
            print(planned.line(prices))
            return 0
        say(planned.line(prices))
        report = distill(planned, endpoint, args.output, drop, prices)
    say(f"{args.output}: {line(report)}")
    return 0


def _eval(args: argparse.Namespace) -> int:
    from contextlib import nullcontext

    from laconic.endpoint import Endpoint
    from laconic.eval.run import Plan, evaluate

    if bool(args.endpoint) != bool(args.endpoint_model):
        raise InputError("--endpoint and --endpoint-model go together; pass both or neither")
    pairs = [tuple(t.split("=", 1)) for t in args.tasks]
    if wrong := next((p for p in pairs if len(p) != 2), None):
        raise InputError(f"a task is given as TASK=PATH, got {wrong[0]!r}; for example nq20=data/nq20.jsonl")
    cache = args.output / "endpoint.sqlite"
    with Endpoint(args.endpoint, args.endpoint_model, cache=cache) if args.endpoint else nullcontext() as endpoint:
        methods, rates = args.method or ["llmlingua2"], args.rate or [0.1, 0.25, 0.5]
        plan = Plan(pairs, methods, rates, args.output, args.limit, args.reader, endpoint)
        tables, failures = evaluate(plan)
    print(tables)
    for line in failures:
        say(f"no answer: {line}")
    return 1 if failures else 0


def _bench(args: argparse.Namespace) -> int:
    from laconic.bench import report

    text = read(args.file) if args.file else None
    for line in report(args.model, text):
        print(line)
    return 0


def _entry() -> Any:
    sys.exit(main())


if __name__ == "__main__":
    _entry()
