"""What arrives? The same inputs through llmlingua 0.2.2 and laconic, every cell computed from input and output.

    python bench/fidelity.py [--text FILE] [--base DIR] [--json OUT]

Three systems: llmlingua with a WordPiece tokenizer (the shape of its small model, multilingual BERT), llmlingua with a
Unigram tokenizer (the shape of its large one, XLM-RoBERTa), and laconic with the WordPiece model's own weights. Both
models are the encoder of `--base` under a cased tokenizer trained here, which knows every character of the inputs but,
for WordPiece, no emoji, like multilingual BERT; embeddings are taken over where the piece is known.

The columns. *tokens*: counted on the output / allowed (rate 0.5, or `target_token`). *verbatim*: are the characters of
the output those of the input, in their order? *facts cut*: numbers and URLs of the output that the input has not.
*breaks*: line breaks in the output / in the input. *fused*: words of the output, marks inside, that the input has not.
*usable*: does code still parse, does JSON, and how many lines are whole lines of the input?
"""

from __future__ import annotations

import argparse
import ast
import base64
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import common
from common import table

PROSE = """The committee met on 14 March 2024 at 10:30 and approved a budget of $1,000.50 for the harbour, 3.75% less
than last year's 1,038 dollars. Mrs. O'Neill didn't object; the well-known 10-minute rule wasn't applied. "Is that
final?" asked the chair. It isn't: 23 of 57 piles (40.4%) must be replaced by 2025-06-30, which costs €1.9 million."""
FACTS = """Invoices: $1,299.99, $84.05, €12.50 and £7,000,000.00 due 2024-11-30.
Versions: torch 2.4.1, numpy 1.26.4, v3.11.7-rc1, build 20240214.
Links: https://example.com/a/b?c=1&d=2#top, mailto:a.b@example.org, ftp://files.example.net/x_y.tar.gz
Ratios: 16:9, 3/4, -5.5, +0.25, 1e-9, 192.168.0.1:8080, 50%, 10,000."""
MARKDOWN = """# Harbour report

The pier is *closed* since the storm.

- 23 piles are damaged, not 11
- the cost rises from $1.2 million to $1.9 million
- the ferry cannot use the southern berth

1. Order the new piles before June.
2. Reopen in two stages.

| item  | cost |
|-------|------|
| piles | 900  |
"""
CODE = '''import json
from pathlib import Path


class Ledger:
    """Money in and out, by day."""

    def __init__(self, path):
        self.path = Path(path)
        self.rows = []

    def load(self):
        for line in self.path.open():
            row = json.loads(line)
            if row["amount"] != 0:
                self.rows.append(row)
        return self

    def total(self, day=None):
        if day is None:
            return sum(row["amount"] for row in self.rows)
        return sum(row["amount"] for row in self.rows if row["day"] == day)
'''
CHINESE = (
    "港口委员会周二开会，讨论北码头的维修问题。自1月14日的暴风雨以来，北码头一直关闭。工程师发现有23根桩受损，"
    "因此费用将从120万元增加到190万元。几位成员问，渡轮能否暂时使用南泊位。港务长认为不行，因为那里水深只有3.5米。"
)
JAPANESE = (
    "港湾委員会は火曜日に会議を開き、北桟橋の修理について話し合った。北桟橋は1月14日の嵐から閉鎖されている。"
    "損傷した杭は11本ではなく23本で、費用は120万円から190万円に増える見込みだ。フェリーは南の岸壁を使えない。"
)
WIDE = "９月１２日のＡＢＣ会議：参加費は１，０００円（税込）です。　受付は１０：３０から。ﾃﾚﾋﾞ会議も可。"
EMOJI = "Great work team 🎉🎉 the launch 🚀 went well 👍🏽, thanks to all 👩‍👩‍👧 who stayed late 🌙, see you in 🇩🇪 ☕!"
ROW = {"name": "pile", "ok": False, "depth": 3.5, "note": 'checked, "twice", by Ms. O\'Neill'}
JSON = {"pier": "north", "piles": [{"id": k, **ROW} for k in range(6)]}
INPUTS: dict[str, tuple[str, str]] = {  # name: (text, kind)
    "English prose, numbers": (PROSE, ""),
    "money, versions, URLs": (FACTS, "lines"),
    "Markdown": (MARKDOWN, "lines"),
    "Python code": (CODE, "python"),
    "JSON": (json.dumps(JSON), "json"),
    "JSON, indented": (json.dumps(JSON, indent=2), "json"),
    "Chinese": (CHINESE, ""),
    "Japanese": (JAPANESE, ""),
    "full-width": (WIDE, ""),
    "emoji": (EMOJI, ""),
    "base64": (base64.b64encode(bytes(range(256)) * 4).decode(), ""),
    "empty": ("", ""),
    "one word": ("Hello", ""),
}
_FACT = re.compile(r"(?:https?|ftp)://[^\s,]*[^\s,.:]|\d+(?:[.,:/-]\d+)*")
_LATIN = r"[A-Za-z\u00c0-\u024f]+"
_WORD = re.compile(rf"{_LATIN}(?:[.,;:!?]{_LATIN})*")
HEAD = ["input", "system", "tokens", "budget met", "verbatim", "facts cut", "breaks", "fused", "usable"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, metavar="FILE", help="prose for the long inputs (else Python's manual)")
    parser.add_argument("--base", type=Path, metavar="DIR", help="BERT checkpoint of 6 layers (default: MiniLM's)")
    parser.add_argument("--work", type=Path, default=common.WORK, metavar="DIR", help="where the models are kept")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write inputs' outputs and cells there")
    args = parser.parse_args()
    common.quiet()
    count = common.counter()
    words = common.document(10_000, count, args.text).split(" ")
    inputs = {**INPUTS, "5,000 words": (" ".join(words[:5000]), ""), "target_token=150": (" ".join(words[:1000]), "")}
    folders = _models(args, [text for text, _ in inputs.values()])
    systems = {name: common.system(*folder) for name, folder in folders.items()}
    found = []
    for name, (text, kind) in inputs.items():
        tokens = int(name.partition("=")[2] or 0)
        asked = tokens or int(common.RATE * count(text))
        for label, compress in systems.items():
            found.append({"input": name, "system": label, **_run(compress, text, kind, tokens, asked, count)})
    print("\n" + table(HEAD, [_cells(row) for row in found]) + "\n")
    print(_summary(found, list(systems)))
    if args.json:
        args.json.write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _run(
    compress: Callable[..., str], text: str, kind: str, tokens: int, asked: int, count: Callable[[str], int]
) -> dict[str, Any]:
    """Compress and examine; a crash is a result too."""
    try:
        output = compress(text, tokens=tokens) if tokens else compress(text)
    except Exception as error:
        return {"crash": type(error).__name__}
    facts, words = set(_FACT.findall(text)), set(_WORD.findall(text))
    return {
        "output": output,
        "tokens": count(output),
        "asked": asked,
        "verbatim": _subsequence(output, text),
        "facts": [f for f in _FACT.findall(output) if f not in facts],
        "breaks": [output.count("\n"), text.count("\n")],
        "fused": [w for w in _WORD.findall(output) if w not in words],
        "usable": _usable(output, text, kind),
        "lost": bool(text) and not output.strip(),
    }


def _subsequence(output: str, text: str) -> bool:
    rest = iter(text)
    return all(character in rest for character in output)


def _usable(output: str, text: str, kind: str) -> str:
    """What the kind of text asks for."""
    if not kind:
        return ""
    if kind == "json":
        return "parses" if _parses(json.loads, output) else "does not parse"
    lines = set(text.splitlines())
    left = [line for line in output.splitlines() if line.strip()]
    parses = {True: "parses, ", False: "does not parse, "}[_parses(ast.parse, output)] if kind == "python" else ""
    return f"{parses}{sum(line in lines for line in left)} of {len(left)} lines whole"


def _parses(parser: Callable[[str], Any], text: str) -> bool:
    try:
        parser(text)
    except (ValueError, SyntaxError):
        return False
    return bool(text.strip())


def _cells(row: dict[str, Any]) -> list[str]:
    first = [row["input"], row["system"]]
    if "crash" in row:
        return [*first, f"crash: {row['crash']}", *[""] * 6]
    over = row["tokens"] - row["asked"]
    met = "yes" if over <= 0 else f"no, +{over}" + (f" ({over / row['asked']:.0%})" if row["asked"] else "")
    tokens = f"{row['tokens']:,} / {row['asked']:,}" + (" (all lost)" if row["lost"] else "")
    verbatim, breaks = "yes" if row["verbatim"] else "no", "{} / {}".format(*row["breaks"])
    return [*first, tokens, met, verbatim, _some(row["facts"]), breaks, _some(row["fused"]), row["usable"]]


def _some(found: list[str]) -> str:
    """How many, and one of them."""
    return f"{len(found)} (`{found[0][:24]}`)" if found else "0"


def _summary(found: list[dict[str, Any]], systems: list[str]) -> str:
    head = ["system", "crashes", "all lost", "budget met", "verbatim", "facts cut", "breaks kept", "fused"]
    rows = []
    for system in systems:
        runs = [r for r in found if r["system"] == system and "crash" not in r]
        crashes = sum(r["system"] == system for r in found) - len(runs)
        met, same = sum(r["tokens"] <= r["asked"] for r in runs), sum(r["verbatim"] for r in runs)
        kept, given = (sum(r["breaks"][k] for r in runs) for k in (0, 1))
        facts, fused = (sum(len(r[key]) for r in runs) for key in ("facts", "fused"))
        shares = f"{met} of {len(runs)}", f"{same} of {len(runs)}"
        rows.append([system, crashes, sum(r["lost"] for r in runs), *shares, facts, f"{kept} of {given}", fused])
    return table(head, rows)


def _models(args: argparse.Namespace, texts: list[str]) -> dict[str, tuple[str, Path]]:
    """Made anew every time: the tokenizers are trained on the inputs."""
    shutil.rmtree(args.work / "fidelity", ignore_errors=True)
    folders = {"wordpiece": common.BODIES["MiniLM"], "unigram": common.BODIES["XLM-R-large"]}
    for kind, name in folders.items():
        folder = args.work / "fidelity" / name
        folder.mkdir(parents=True)
        known = texts if kind == "unigram" else [text for text in texts if text != EMOJI]
        common.save_tokenizer(folder, kind, known, 6_000)
        _graft(args.base or common.minilm_folder(), folder, kind)
    word, uni = (args.work / "fidelity" / name for name in folders.values())
    ours = common.exported(word, int8=False)
    theirs = {"llmlingua, WordPiece": ("llmlingua", word), "llmlingua, Unigram": ("llmlingua", uni)}
    return {**theirs, "laconic": ("laconic", ours)}


def _graft(base: Path, folder: Path, kind: str) -> None:
    """The encoder of `base` under the tokenizer of `folder`; pieces that `base` does not know look like its [UNK]."""
    import torch
    from tokenizers import Tokenizer
    from transformers import AutoModelForTokenClassification, AutoTokenizer

    torch.manual_seed(0)
    model = AutoModelForTokenClassification.from_pretrained(base, num_labels=2)
    known = AutoTokenizer.from_pretrained(base).get_vocab()
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    pieces = [tokenizer.id_to_token(k).lower() for k in range(tokenizer.get_vocab_size())]
    if kind == "unigram":  # what opens a word has a mark there, what continues one here
        pieces = [p[1:] if p.startswith("▁") else f"##{p}" for p in pieces]
    vectors = model.get_input_embeddings().weight.data[[known.get(p, known["[UNK]"]) for p in pieces]].clone()
    model.resize_token_embeddings(len(pieces))
    model.get_input_embeddings().weight.data.copy_(vectors)
    model.config.pad_token_id = tokenizer.token_to_id("<pad>" if kind == "unigram" else "[PAD]")
    model.save_pretrained(folder)


if __name__ == "__main__":
    main()
