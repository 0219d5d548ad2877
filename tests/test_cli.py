"""The command line as a person meets it."""

from __future__ import annotations

import io
import json
import subprocess
import sys

import pytest

from laconic.cli import main

TEXT = (
    "The committee met on Tuesday, 14 January 2025, and did not approve the budget of $1,200.50.\r\nIt will meet again."
)


@pytest.fixture
def document(tmp_path):
    path = tmp_path / "minutes.txt"
    path.write_bytes(TEXT.encode())
    return str(path)


def run(capfdbinary, *args):
    status = main([str(a) for a in args])
    out, err = capfdbinary.readouterr()
    return status, out.decode("utf-8", "surrogatepass"), err.decode()


def test_compress_writes_only_the_text_and_one_line_of_statistics(capfdbinary, document):
    status, out, err = run(capfdbinary, "compress", document, "--rate", "0.5")
    assert status == 0
    assert 0 < len(out) < len(TEXT)
    assert err.count("\n") == 1
    assert "tokens (kept" in err and "laconic-small" in err


def test_rate_one_copies_the_bytes(capfdbinary, document):
    assert run(capfdbinary, "compress", document, "--rate", "1")[1] == TEXT


def test_json_has_the_documented_keys(capfdbinary, document):
    _, out, _ = run(capfdbinary, "compress", document, "--tokens", "12", "--format", "json")
    result = json.loads(out)
    assert list(result) == [
        *("text", "spans", "tokens_before", "tokens_after", "rate", "met", "method", "model", "counter", "seconds")
    ]
    assert result["text"] == "".join(TEXT[s:e] for s, e in result["spans"])
    assert result["tokens_after"] <= 12


def test_standard_input_and_byte_order_mark(capfdbinary, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\xef\xbb\xbf" + TEXT.encode())))
    assert run(capfdbinary, "compress", "-", "--rate", "1")[1] == TEXT


@pytest.fixture
def documents(tmp_path):
    texts = {
        "rome.txt": "The weather was fine in Rome, and the ships lay in the harbour all day long.",
        "oslo.txt": "Ann Smith signed the contract in Oslo on 3 May 2021, after three days of talks.",
        "bread.txt": "Bread is made of flour, water and salt; the oven has to be very hot for it.",
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    return [tmp_path / name for name in texts]


def test_several_files_are_documents_within_one_budget(capfdbinary, documents):
    asked = ("--question", "Who signed the contract?", "--tokens", "25")
    status, out, _ = run(capfdbinary, "compress", *documents, *asked, "--order", "best_first", "--format", "json")
    result = json.loads(out)
    assert status == 0 and result["order"][0] == 1 and result["tokens_after"] <= 25
    assert result["text"].startswith("Ann Smith signed the contract")
    _, text, _ = run(capfdbinary, "compress", *documents, *asked, "--ranker", "bm25", "--spread", "1")
    assert "Ann Smith" in text and "oven" not in text


@pytest.mark.parametrize(
    ("args", "advice"),
    [
        (["--threshold", "0.5"], "--threshold is for one text; pass --rate or --tokens for several documents"),
        (["--question", "Who?", "--order", "best"], "order must be one of original, best_first, two_ended, got 'best'"),
        (["--question", "Who?", "--ranker", "bm26"], "no ranker 'bm26'; there are"),
        (["--order", "best_first"], "pass question="),
    ],
)
def test_wrong_use_of_several_files(capfdbinary, documents, args, advice):
    status, out, err = run(capfdbinary, "compress", *documents, *args)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert advice in err


def test_output_file_gets_exactly_the_text(capfdbinary, document, tmp_path):
    out = tmp_path / "short.txt"
    assert run(capfdbinary, "compress", document, "--rate", "1", "-o", out)[1] == ""
    assert out.read_bytes() == TEXT.encode()


def test_keep_protects(capfdbinary, document):
    assert "again" in run(capfdbinary, "compress", document, "--tokens", "5", "--keep", "again")[1]


def test_show_marks_what_was_dropped(capfdbinary, document, tmp_path):
    _, out, _ = run(capfdbinary, "show", document)
    assert "[-" in out and "-]" in out
    page = tmp_path / "page.html"
    run(capfdbinary, "show", document, "--html", page)
    html = page.read_text()
    assert "<del>" in html and "<mark" in html
    assert "http" not in html  # self-contained


def test_show_escapes_what_would_be_markup_or_drive_the_terminal(capfdbinary, tmp_path):
    path = tmp_path / "bad.txt"
    path.write_text("<script>alert(1)</script> \x1b[2J and more words to drop here")
    _, out, _ = run(capfdbinary, "compress", path, "--format", "html")
    assert "<script>" not in out
    _, out, _ = run(capfdbinary, "compress", path, "--format", "ansi")
    assert "\x1b[2J" not in out


def test_show_draws_nothing_that_drives_a_terminal(capfdbinary, tmp_path):
    path = tmp_path / "bad.txt"
    path.write_text("one \x9b31m two\x0b \u202e three\rfour five six")
    for command in (["show", path], ["compress", path, "--format", "ansi"]):
        _, out, _ = run(capfdbinary, *command)
        assert not {"\x9b", "\x0b", "\u202e", "\r"} & set(out)


def test_statistics_never_reach_standard_output(document):
    done = subprocess.run(
        f"{sys.executable} -m laconic.cli compress {document} --rate 1 2>&-",
        shell=True,
        capture_output=True,
        check=True,
    )
    assert done.stdout.decode() == TEXT


def test_models_lists_the_default(capfdbinary):
    status, out, _ = run(capfdbinary, "models")
    assert status == 0 and "laconic-small" in out


@pytest.mark.parametrize(
    ("args", "advice"),
    [
        (["--rate", "33"], "did you mean tokens=33 or rate=0.33?"),
        (["--rate", "0"], "rate must be in (0, 1], got 0"),
        (["--rate", "half"], "'half' is not a number"),
        (["--tokens", "0"], "tokens must be 1 or more"),
        (["--tokens", "1.5"], "'1.5' is not a whole number"),
        (["--threshold", "2"], "threshold must be in [0, 1]"),
        (["--rate", "0.5", "--tokens", "5"], "one budget at a time"),
        (["--keep", "("], "protect takes regular expressions"),
        (["--question", "Why?", "--method", "tfidf"], "tfidf does not read questions"),
        (["--method", "magic"], "no method 'magic'; there are llmlingua2"),
        (["--model", "laconic-smal"], "did you mean 'laconic-small'?"),
        (["--counter", "gpt"], "no counter 'gpt'; pass o200k_base"),
        (["--colour"], "unrecognized arguments: --colour"),
        (["--order", "best_first"], "--order is for several documents; pass more than one FILE"),
        (["--spread", "1"], "--spread is for several documents"),
    ],
)
def test_wrong_use_gets_one_helpful_line_and_exit_2(capfdbinary, document, args, advice):
    status, out, err = run(capfdbinary, "compress", document, *args)
    assert (status, out) == (2, "")
    assert advice in err
    assert err.count("\n") == 1


def test_wrong_files_get_one_helpful_line_and_exit_2(capfdbinary, tmp_path):
    latin = tmp_path / "latin.txt"
    latin.write_bytes("Straße".encode("latin-1"))
    wide = tmp_path / "wide.txt"
    wide.write_bytes("hello".encode("utf-16"))
    for name, advice in [
        (tmp_path / "none.txt", "no file"),
        (tmp_path, "is a folder"),
        (latin, "is not UTF-8 (byte 4); if it is ISO-8859-1, convert it: iconv"),
        (wide, "if it is UTF-16"),
    ]:
        status, out, err = run(capfdbinary, "compress", name)
        assert (status, out, err.count("\n")) == (2, "", 1)
        assert advice in err


def test_nothing_to_do_without_a_command(capfdbinary):
    assert run(capfdbinary)[0] == 2


def test_importing_laconic_is_light_and_quiet():
    code = (
        "import sys, laconic; print([m for m in ('torch', 'transformers', 'onnxruntime', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert done.stderr == ""


def test_compressing_loads_neither_torch_nor_transformers():
    code = (
        "import sys, laconic; laconic.compress('some words to compress here', rate=0.5);"
        "print([m for m in ('torch', 'transformers', 'huggingface_hub') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_reader_that_goes_away_is_no_error(document):
    command = f"{sys.executable} -m laconic.cli compress {document} --rate 1 2>/dev/null | head -c 1"
    assert subprocess.run(command, shell=True, capture_output=True, check=True).stdout == b"T"


def test_bench_measures_the_default_model(capfdbinary, document):
    status, out, _ = run(capfdbinary, "bench", document)
    assert status == 0 and "tokens/s" in str(out) and "outside the model" in str(out)
