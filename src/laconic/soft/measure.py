"""What `laconic soft measure` does: memories of trained encoders against no context, all of it, and hard compression.

One row an item (a context and one thing to be said of it) and way to put the context before the same frozen reader. A
memory is also swapped for that of another context, which must lose what it gained, and read with each slot left out.
The upper bound is a reader of full contexts that was fine-tuned as the encoders were.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch

import laconic
from laconic.distill.texts import Fields, read
from laconic.errors import InputError, MissingExtraError
from laconic.eval import leakage, metrics
from laconic.eval.kinds import rouge
from laconic.eval.matrix import Row, Rows
from laconic.soft import items as of
from laconic.soft import tables
from laconic.soft.adapter import FULL as TUNED
from laconic.soft.adapter import mode_of
from laconic.soft.base import Base
from laconic.soft.encoder import SoftEncoder
from laconic.soft.items import Item
from laconic.soft.judge import after, nats
from laconic.soft.reader import Reader
from laconic.soft.tuned import Tuned
from laconic.soft.ways import FULL, NONE, Before, Hard, Soft, Upper, Way, Whole
from laconic.train.contexts import Texts

LENGTHS = (96, 192, 288, 384, 480)  # 500xCompressor's
_KEY = ("part", "name", "made", "slots", "task", "length", "id")
_TOGETHER = 16  # items read at a time, and what a kill can lose
_ANSWER = 46  # tokens, as in 500xCompressor

Progress = Callable[[int], object]  # called with the number of items just done


@dataclass(frozen=True)
class Plan:
    """What to measure."""

    encoders: Sequence[Path]  # folders, also of `Tuned`; all of one base
    out: Path
    data: Sequence[Path] = ()  # texts, or texts with `question` and `answer`
    slots: Sequence[int] = ()  # default: all that each encoder has
    lengths: Sequence[int] = ()  # tokens that texts are cut to; default: those of LENGTHS that the encoders read
    facts: int = 0  # contexts of made-up facts
    facts_lengths: Sequence[int] = ()  # tokens that these have; default: each as long as it is, up to what is read
    lookup: int = 0  # contexts of pairs of symbols, of each of four numbers of pairs
    follow: int = 32  # tokens after a text that are to be said, too
    limit: int | None = None  # texts of each file and length
    trained: Sequence[Path] = ()  # what the encoders learnt from: a text in both fails the run
    hard: str = laconic.DEFAULT_MODEL  # a model of hard compression at the same rates; "": none
    ablate: bool = False  # also with each slot left out
    base: str | None = None  # the base, where it is no longer where the encoders were trained
    device: str | None = None
    field: str = "text"

    def __post_init__(self) -> None:
        for rule, value, fine in (
            ("slots must be 1 or more", self.slots, all(m >= 1 for m in self.slots)),
            ("lengths must be 1 token or more", self.lengths, all(n >= 1 for n in self.lengths)),
            ("facts must be 0 or more", self.facts, self.facts >= 0),
            ("lengths of facts need a number of facts", self.facts, self.facts or not self.facts_lengths),
            ("lookup must be 0 or more", self.lookup, self.lookup >= 0),
            ("follow must be 0 tokens or more", self.follow, self.follow >= 0),
            ("limit must be 2 or more", self.limit, self.limit is None or self.limit >= 2),
        ):
            if not fine:
                raise InputError(f"{rule}, got {value}")
        if not (self.data or self.facts or self.lookup):
            raise InputError("nothing to measure on; pass files, or numbers of facts or lookup")


def evaluate(plan: Plan, progress: Progress = lambda done: None) -> str:
    """Measure the plan into OUT/rows.jsonl, OUT/tables.md and OUT/retention.png and .svg; returns the tables.

    What is in rows.jsonl already is not measured again. Fails before anything is measured where a text was trained on.
    """
    if not all(map(find_spec, ("matplotlib", "rouge_score", "sacrebleu"))):
        raise MissingExtraError("laconic soft measure", "eval")
    if plan.trained:
        leakage.check(_texts(plan.trained, plan.field), list(_texts(plan.data, plan.field)))
    encoders = _encoders(plan)
    base = next(iter(encoders.values())).base
    items = _items(plan, base, min(e.settings.window for e in encoders.values()))
    ways = _ways(plan, encoders, Reader(base))
    rows = Rows(plan.out / "rows.jsonl", _KEY)
    shown = measure(ways, items, rows, ablate=plan.ablate, progress=progress)
    written = tables.markdown(shown)
    (plan.out / "tables.md").write_text(written, encoding="utf-8")
    tables.curves(shown, plan.out)
    return written


def measure(
    ways: Sequence[Way],
    items: Sequence[Item],
    rows: Rows,
    *,
    ablate: bool = False,
    progress: Progress = lambda done: None,
) -> list[Row]:
    """The rows of items and ways, in order; those that are not in `rows` yet are measured and added to it."""
    other, heads = of.others(items), list[Row]()
    for way in ways:
        for part in ("whole", "slots") if ablate and isinstance(way, Soft) and way.slots > 1 else ("whole",):
            asked = [(item, _head(part, way, item)) for item in items if way.takes(item)]
            missing = [(item, head) for item, head in asked if head not in rows]
            progress(len(asked) - len(missing))
            for start in range(0, len(missing), _TOGETHER):
                some = missing[start : start + _TOGETHER]
                measured = (_whole if part == "whole" else _slots)(way, [item for item, _ in some], other)
                rows.add({**head, **found} for (_, head), found in zip(some, measured, strict=True))
                progress(len(some))
            heads += [head for _, head in asked]
    return rows.get(heads)


def _head(part: str, way: Way, item: Item) -> Row:
    """What tells a row apart, and what it is of."""
    return {
        "part": part,
        "name": way.name,
        "kind": way.kind,
        "made": way.made,
        "slots": way.slots,
        "task": item.task,
        "length": item.length,
        "id": item.id,
        "group": item.context,
        "goal": item.said.goal,
        "tokens": len(item.ids),
        "said": len(item.said.ids) - item.said.after,
    }


def _whole(way: Way, items: Sequence[Item], other: dict[str, list[int]]) -> Iterator[Row]:
    """Nats of what is to be said, also after the memories of other contexts, and what the reader says by itself."""
    with torch.no_grad():
        before = way.before(items)
        spent = _nats(way.reader, before, items)
        said = _said(way.reader, before, items)
        swapped = list[float]()
        if isinstance(way, Soft):
            strangers = [i._replace(ids=other[i.context], context=f"not {i.context}") for i in items]
            swapped = _nats(way.reader, way.before(strangers), items)
    for k, (item, answer) in enumerate(zip(items, said, strict=True)):
        row: Row = {"bytes": before.bytes[k], "nats": spent[k]}
        yield row | ({"swapped": swapped[k]} if swapped else {}) | _scores(way.reader.base, item, answer)


def _slots(way: Way, items: Sequence[Item], other: dict[str, list[int]]) -> Iterator[Row]:
    """Nats with each slot left out."""
    assert isinstance(way, Soft)
    with torch.no_grad():
        before = way.before(items)
        spent = [_nats(way.reader, way.less(before, slot), items) for slot in range(way.slots)]
    for each in zip(*spent, strict=True):
        yield {"less": list(each)}


def _nats(reader: Reader, before: Before, items: Sequence[Item]) -> list[float]:
    """Of each item, summed."""
    said = [after(head, item.said) for head, item in zip(before.heads, items, strict=True)]
    return [float(found.sum()) for found in nats(reader, before.kv, said)]


def _said(reader: Reader, before: Before, items: Sequence[Item]) -> list[list[int]]:
    """The most probable ids, token by token; none for a continuation, of which there is more than one."""
    some = [k for k, item in enumerate(items) if item.said.goal != "on"]
    heads = [after(before.heads[k], items[k].said) for k in some]
    prompts = [said.ids[: said.after] for said in heads]
    room = [reader.base.window - before.kv[k].shape[-2] - len(prompt) for k, prompt in zip(some, prompts, strict=True)]
    limits = [min(_limit(items[k]), left) for k, left in zip(some, room, strict=True)]
    answers = reader.answers([before.kv[k] for k in some], prompts, limits)
    found = dict(zip(some, answers, strict=True))
    return [found.get(k, []) for k in range(len(items))]


def _limit(item: Item) -> int:
    """A text may be said again in as many tokens as it has; a symbol is one."""
    return len(item.gold) if item.said.goal == "again" or item.task == of.LOOKUP else _ANSWER


def _scores(base: Base, item: Item, ids: list[int]) -> Row:
    if item.said.goal == "on":
        return {}
    if item.task == of.LOOKUP:
        return {"exact": float(ids == item.gold)}
    answer, gold = base.text(ids), base.text(item.gold)
    found: Row = {"answer": answer, "gold": gold, "exact": float(ids == item.gold)}
    if item.said.goal == "answer":
        line = answer.strip().split("\n")[0]
        return found | {"em": metrics.exact_match(line, [gold]), "f1": metrics.token_f1(line, [gold])}
    found |= {"accuracy": metrics.token_accuracy(ids, item.gold), "prefix": metrics.exact_prefix(ids, item.gold)}
    return found | {"rougeL": rouge(answer, [gold])["rougeL"]}


def _texts(paths: Sequence[Path], field: str) -> Iterator[str]:
    return (document.text for path in paths for document in read(path, Fields(text=field)))


def _encoders(plan: Plan) -> dict[str, SoftEncoder | Tuned]:
    """By the names of their folders, over one base."""
    found: dict[str, SoftEncoder | Tuned] = {}
    base: Base | str | None = Base.load(plan.base, plan.device) if plan.base else None
    for path in plan.encoders:
        folder = path.resolve()
        name = folder.parent.name if folder.name == "checkpoint" else folder.name
        if name in found:
            raise InputError(f"two encoders are called {name}; rename the folder {folder}")
        found[name] = (Tuned if mode_of(folder) == TUNED else SoftEncoder).load(folder, base)
        base = found[name].base
    if not found:
        raise InputError("no encoder to measure; pass folders that SoftEncoder.save wrote")
    return found


def _items(plan: Plan, base: Base, window: int) -> list[Item]:
    lengths = plan.lengths or [n for n in LENGTHS if n <= window] or [window]
    if (longest := max([*lengths, *plan.facts_lengths])) > window:
        raise InputError(f"lengths must be at most {window}, which all encoders were trained on, got {longest}")
    found: list[Item] = []
    for path in plan.data:
        texts = Texts([path], base.tokens, base.start, base.ends[0], field=plan.field)
        found += of.of_texts(path.name, texts, lengths, window, plan.follow, plan.limit)
    if plan.facts_lengths:
        found += of.of_facts_by_length(base, plan.facts_lengths, plan.facts)
    else:
        found += of.of_facts(base, window, plan.facts)
    found += of.of_pairs(base, window, plan.lookup)
    return list({(item.task, item.length, item.id): item for item in found}.values())  # a text may be there twice


def _ways(plan: Plan, encoders: dict[str, SoftEncoder | Tuned], reader: Reader) -> list[Way]:
    """None, full and tuned first; each encoder with the slots asked for that it has; hard ones with as many tokens."""
    tuned, soft = list[Way](), list[Way]()
    for name, encoder in encoders.items():
        if isinstance(encoder, Tuned):
            tuned.append(Upper(name, encoder))
            continue
        most = encoder.settings.slots
        some = [m for m in plan.slots or [most] if m <= most]
        if not some:
            raise InputError(f"slots must be at most {most} for {name}, got {list(plan.slots)}")
        soft += [Soft(name, encoder, reader, m) for m in some]
    hard: list[Way] = []
    if plan.hard:
        compressor = laconic.load(plan.hard, counter=lambda text: len(reader.base.tokens(text)))
        kinds = (False, True) if compressor.scorer.reads_question else (False,)
        counts = sorted({way.slots for way in soft})
        hard = [Hard(Path(plan.hard).name, compressor, reader, m, asks) for m in counts for asks in kinds]
    return [Whole(NONE, reader), Whole(FULL, reader), *tuned, *soft, *hard]
