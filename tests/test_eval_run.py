"""The whole matrix on small examples: rows, resume, tables, curves, and the command line."""

from __future__ import annotations

import json

import pytest

from laconic.cli import main
from laconic.errors import EndpointError, InputError
from laconic.eval import report, run
from laconic.eval.data import Example
from laconic.eval.kinds import span_scores
from laconic.eval.matrix import Judge, Rows, Suite, measure, measure_keep
from laconic.eval.methods import BASELINES, method
from laconic.eval.run import Plan, evaluate

TOWNS = ["Ayton", "Beeford", "Ceeham", "Deeby"]
CONTEXT = "\n".join(f"The town of {town} has {k}00 mills, and all of them grind." for k, town in enumerate(TOWNS, 1))
EXAMPLES = [
    Example(town, CONTEXT, f"Which town has {k}00 mills?", (town,), (CONTEXT.split("\n")[k - 1],), group="towns")
    for k, town in enumerate(TOWNS, 1)
]


class Finder:
    """An answerer that knows the answers and finds them if they are still there; fails where it is told to."""

    name = "finder"

    def __init__(self, fails=()):
        self.fails, self.calls = fails, 0

    def answers(self, contexts, examples):
        self.calls += len(examples)
        failed = EndpointError("too long")
        right = [e.answers[0] if e.answers[0] in c else "" for c, e in zip(contexts, examples, strict=True)]
        return [failed if e.id in self.fails else a for a, e in zip(right, examples, strict=True)]


def judges(finder):
    return [Judge("reader", finder, span_scores)]


@pytest.fixture
def rows(tmp_path):
    return Rows(tmp_path / "out" / "rows.jsonl")


def measured(rows, rates=(0.5,), methods=("lead",), finder=None):
    suite = Suite("articles", "qa", EXAMPLES)
    return measure(suite, [method(m) for m in methods], rates, judges(finder) if finder else [], rows)


def test_a_row_holds_what_was_asked_got_and_measured(rows):
    measured(rows)
    row = rows.rows[0]
    assert (row["task"], row["method"], row["rate"], row["id"], row["group"]) == (
        "articles",
        "lead",
        0.5,
        "Ayton",
        "towns",
    )
    assert row["tokens_after"] <= 0.5 * row["tokens_before"] and row["within"] == 1
    assert row["got"] == row["tokens_after"] / row["tokens_before"]
    assert [r["survived"] for r in rows.rows] == [1, 1, 0, 0]  # the first half is kept
    assert row["evidence"] == 1
    assert row["numbers"] == 0.5 and row["numbers_whole"] == 1
    assert len(rows.path.read_text().splitlines()) == len(rows.rows) == 4


def test_judges_also_see_the_full_context_and_none(rows):
    measured(rows, finder=Finder())
    found = {(r["method"], r["rate"]): [] for r in rows.rows}
    for row in rows.rows:
        found[row["method"], row["rate"]].append(row["reader_f1"])
    assert found == {("lead", 0.5): [1, 1, 0, 0], ("full", 1.0): [1] * 4, ("none", 0.0): [0] * 4}


def test_what_is_done_is_not_done_again(rows):
    finder = Finder()
    measured(rows, finder=finder)
    before, calls = rows.path.read_bytes(), finder.calls
    again = Rows(rows.path)
    measured(again, finder=finder)
    assert rows.path.read_bytes() == before and finder.calls == calls
    measured(again, rates=(0.5, 0.25), finder=finder)
    assert finder.calls == calls + 4


def test_half_a_line_left_by_a_kill_is_measured_again(rows):
    measured(rows)
    whole = rows.path.read_text()
    rows.path.write_text(whole[:-20])
    again = Rows(rows.path)
    assert len(again.rows) == 3
    measured(again)
    assert [json.loads(line)["id"] for line in rows.path.read_text().splitlines()] == TOWNS


def test_a_spoilt_line_is_refused_by_its_number(rows):
    measured(rows)
    rows.path.write_text("{\n" + rows.path.read_text())
    with pytest.raises(InputError, match=r"rows.jsonl:1 is not JSON"):
        Rows(rows.path)


def test_examples_without_an_answer_have_no_row_and_are_tried_again(rows):
    failures = measured(rows, finder=Finder(fails={"Beeford"}))
    assert len(failures) == 3 and "articles, Beeford, lead at 0.5: too long" in failures[0]
    assert "Beeford" not in {r["id"] for r in rows.rows}
    assert measured(rows, finder=Finder()) == []
    assert [r["id"] for r in rows.rows].count("Beeford") == 3


def test_a_context_is_compressed_once_for_methods_that_read_no_question(rows, monkeypatch):
    lead = method("lead")
    done = []
    original = type(lead).compress
    monkeypatch.setattr(type(lead), "compress", lambda *args: done.append(args) or original(*args))
    measured(rows)
    assert len(done) == 1


def test_survival_is_only_asked_of_what_was_there(rows):
    gone = Example("x", CONTEXT, "Which?", ("Nowhere",))
    measure(Suite("articles", "qa", [gone]), [method("lead")], [0.5], [], rows)
    assert "survived" not in rows.rows[0] and "evidence" not in rows.rows[0]


def test_keep_measures_scores_against_the_teachers_text(rows):
    first_half = Example("p", " ".join("abcdefghijkl"), meta={"compressed": " ".join("abcdef")})
    all_kept = Example("q", "one two", meta={"compressed": "one two"})
    measure_keep(Suite("keep", "keep", [first_half, all_kept]), [method("lead"), method("random")], rows)
    lead, trivial, chance, _ = rows.rows
    assert (lead["keep_f1"], lead["auc"], lead["rate"]) == (1, 1, None)
    assert chance["keep_f1"] < 1 and chance["auc"] < 1
    assert "auc" not in trivial  # nothing was dropped: there is nothing to tell apart


def test_the_table_has_a_line_a_method_and_rate_with_intervals_and_shares(rows):
    measured(rows, rates=(0.5, 0.25), methods=("lead", "random"), finder=Finder())
    text = report.markdown(rows.rows, "lead")
    lines = text.splitlines()
    assert lines[0] == "## articles"
    assert sum(line.startswith(("| lead | 0.5 ", "| full | 1 ", "| none | 0 ")) for line in lines) == 3
    lead = next(line for line in lines if line.startswith("| lead | 0.5 ")).split(" | ")
    assert lead[2] == "4" and lead[4] == "1.00"
    assert lead[5].startswith("0.500 [")  # of the answers survive
    assert "Difference to lead on the same examples:" in lines
    differences = lines[lines.index("Difference to lead on the same examples:") :]
    assert [line.split(" | ")[0] for line in differences if "rand" in line] == ["| random", "| random"]


def test_curves_are_drawn_for_every_measure(rows, tmp_path):
    measured(rows, rates=(0.5, 0.25), methods=("lead", "random"), finder=Finder())
    names = {p.name for p in report.curves(rows.rows, tmp_path)}
    assert {"survived.png", "survived.svg", "reader_f1.png", "evidence.svg"} <= names
    assert (tmp_path / "survived.png").read_bytes()[:4] == b"\x89PNG"
    assert "<svg" in (tmp_path / "survived.svg").read_text()


def test_colours_do_not_depend_on_what_else_is_drawn():
    assert report.colour_of(["ours", "lead"])["lead"] == report.colour_of(["lead"])["lead"]
    assert len(set(report.colour_of(["a", "b", "c"]).values())) == len(BASELINES) + 3


@pytest.fixture
def squad(tmp_path):
    qas = [
        [{"id": e.id, "question": e.question, "answers": [{"text": e.answers[0], "answer_start": 12}]}]
        for e in EXAMPLES
    ]
    paragraphs = [{"context": line, "qas": q} for line, q in zip(CONTEXT.split("\n"), qas, strict=True)]
    paragraphs += [{"context": "Nothing.", "qas": []}] * 6
    path = tmp_path / "squad.json"
    path.write_text(json.dumps({"data": [{"title": "Normans", "paragraphs": paragraphs}]}))
    return path


@pytest.fixture
def few_baselines(monkeypatch):
    monkeypatch.setattr(run, "baselines", lambda: ["random"])


@pytest.mark.usefixtures("few_baselines")
def test_eval_writes_rows_tables_and_curves(capfd, squad, tmp_path):
    out = tmp_path / "results"
    command = ["eval", f"articles={squad}", "--method", "lead", "--rate", "0.5", "--limit", "3", "-o", str(out)]
    assert main(command) == 0
    shown = capfd.readouterr().out
    assert shown.rstrip() == (out / "tables.md").read_text().rstrip()
    assert "| lead | 0.5 | 3 |" in shown and "| random | 0.5 | 3 |" in shown
    assert len((out / "rows.jsonl").read_text().splitlines()) == 6
    assert (out / "survived.png").exists()
    assert main(command) == 0
    assert len((out / "rows.jsonl").read_text().splitlines()) == 6


@pytest.mark.usefixtures("few_baselines")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["nq20"], "TASK=PATH"),
        (["nosuch=x"], "no task 'nosuch'"),
        (["articles={squad}", "--rate", "2"], "rate must be in (0, 1], got 2"),
        (["articles={squad}", "--method", "nosuch"], "no method 'nosuch'"),
        (["articles={squad}", "--endpoint", "http://127.0.0.1:1"], "--endpoint-model"),
        (["articles={squad}", "--reader", "/nonexistent"], "holds no reader"),
        (["articles={squad}", "--limit", "0"], "limit must be 1 or more, got 0"),
    ],
)
def test_wrong_use_is_refused_in_one_line(capfd, squad, tmp_path, options, message):
    options = [o.format(squad=squad) for o in options]
    assert main(["eval", *options, "-o", str(tmp_path / "out")]) == 2
    error = capfd.readouterr().err
    assert message in error and error.count("\n") == 1


@pytest.mark.usefixtures("few_baselines")
def test_data_sets_of_longbench_are_reported_apart(tmp_path):
    paths = []
    for name in ("qasper", "hotpotqa"):
        record = {"_id": name, "context": CONTEXT, "input": "?", "answers": ["Ayton"], "dataset": name}
        paths.append(tmp_path / f"{name}.jsonl")
        paths[-1].write_text(json.dumps(record))
    tables, _ = evaluate(Plan([("longbench", str(p)) for p in paths], ["lead"], [0.5], tmp_path / "out"))
    assert [line for line in tables.splitlines() if line.startswith("##")] == [
        "## longbench/qasper",
        "## longbench/hotpotqa",
    ]


def test_evaluate_needs_its_extra(monkeypatch, squad, tmp_path):
    monkeypatch.setattr(run, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"laconic\[eval\]"):
        evaluate(Plan([("articles", str(squad))], ["lead"], [0.5], tmp_path))


def test_an_output_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(InputError, match="another folder"):
        Rows(tmp_path / "out" / "rows.jsonl")
