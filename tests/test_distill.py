"""From texts to labels, with a teacher that is not always at its best."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from laconic.budget import counter
from laconic.cli import main
from laconic.distill.align import compare, kept_spans, kept_units, units, windowed_pairs
from laconic.distill.chunks import chunks
from laconic.distill.plan import Job, Prices, plan
from laconic.distill.quality import Drop, choose, measure
from laconic.distill.run import distill
from laconic.distill.teach import Asked, Unusable, asked, compression, requests
from laconic.distill.texts import Document, Fields, read
from laconic.endpoint import Completion, Endpoint
from laconic.errors import EndpointError, InputError, MissingExtraError
from teacher_server import Teacher

WORDS = counter("words")
TEXT = "The cat sat on the mat in the sun. It was 3.5 metres from the dog, and the dog was really asleep."


@pytest.fixture(autouse=True)
def no_key_and_no_waiting(monkeypatch):
    monkeypatch.delenv("LACONIC_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setattr("random.uniform", lambda a, b: 0.0)


def answer(text, finish="stop"):
    return Completion(text, 1, 1, finish, cached=False)


def lines(path, records):
    path.write_text("".join(r if isinstance(r, str) else json.dumps(r) + "\n" for r in records), encoding="utf-8")
    return path


@pytest.fixture
def ten(tmp_path):
    """Ten texts of one chunk each."""
    return lines(tmp_path / "in.jsonl", [{"id": f"t{k}", "text": TEXT.replace("3.5", str(k))} for k in range(10)])


def taught(source, out, script=(), job=None, drop=None, **options):
    """Run a distillation against a teacher: its report, its examples, and the requests it made."""
    job = job or Job(source)
    with Teacher(script) as teacher:
        cache = out.with_suffix(".cache.sqlite")
        with Endpoint(teacher.url, "standin", concurrency=1, cache=cache) as endpoint:
            report = distill(plan(job, endpoint), endpoint, out, drop or Drop(0, 0), **options)
    with out.open(encoding="utf-8") as file:
        return report, [json.loads(line) for line in file], teacher.seen


# Texts


def test_json_lines_with_fields_of_any_name(tmp_path):
    path = lines(
        tmp_path / "a.jsonl",
        ["\ufeff", {"body": "One.", "key": 7, "q": " Why? "}, "\n", {"body": "Two.", "answer": "2", "q": None}],
    )
    assert list(read(path, Fields(text="body", id="key", question="q"))) == [
        Document("7", "One.", "a.jsonl", "Why?"),
        Document("a-3", "Two.", "a.jsonl", "", "2"),
    ]


BROKEN = {
    "not JSON": ('{"text": "cut o\n', "line 2 is not JSON"),
    "no object": ('["text"]\n', "line 2 is no JSON object but a list"),
    "no text": ('{"body": "x", "id": 1}\n', "line 2 has no text in 'text' .its fields: body, id.; see --text-field"),
    "a number": ('{"text": 5}\n', "line 2 has no text in 'text'"),
    "deep": ("[" * 100_000 + "\n", "line 2 is not JSON"),
}


@pytest.mark.parametrize(("line", "advice"), BROKEN.values(), ids=BROKEN)
def test_a_broken_line_is_named_and_stops_or_is_skipped(tmp_path, line, advice):
    path = lines(tmp_path / "a.jsonl", [{"text": "One."}, line, {"text": "Three."}])
    with pytest.raises(InputError, match=f"{advice}.*--broken skip"):
        list(read(path))
    broken = []
    assert [d.text for d in read(path, broken=broken.append)] == ["One.", "Three."]
    assert len(broken) == 1 and "line 2" in broken[0]


def test_a_line_that_is_not_utf8_is_broken(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"text": "One."}\n{"text": "Stra\xdfe"}\n')
    with pytest.raises(InputError, match="line 2 is not UTF-8 .byte 14."):
        list(read(path))


def test_parquet(tmp_path, monkeypatch):
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "a.parquet"
    parquet.write_table(arrow.table({"text": ["One.", None, "Three."], "id": [1, 2, 3]}), path)
    broken = []
    assert [(d.id, d.text) for d in read(path, broken=broken.append)] == [("1", "One."), ("3", "Three.")]
    assert "row 2" in broken[0]
    with pytest.raises(InputError, match="has no text in 'body' .its fields: text, id."):
        list(read(path, Fields(text="body")))
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match="is not a whole Parquet file"):
        list(read(path))
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r"laconic\[distill\]"):
        list(read(path))


def test_a_folder_of_texts_in_a_fixed_order(tmp_path):
    (tmp_path / "sub").mkdir()
    for name in ("b.txt", "a.md", "c.py", "sub/d.TXT"):
        (tmp_path / name).write_text(name)
    assert [d.id for d in read(tmp_path)] == ["a.md", "b.txt", "sub/d.TXT"]
    assert [d.id for d in read(tmp_path / "b.txt")] == ["b.txt"]
    (tmp_path / "b.txt").write_bytes(b"\xff")
    with pytest.raises(InputError, match="b.txt is not UTF-8"):
        list(read(tmp_path))


def test_wrong_inputs_get_advice(tmp_path):
    for name, advice in [("none.jsonl", "no such file or folder; pass .jsonl"), ("a.csv", "unknown kind '.csv'")]:
        (tmp_path / "a.csv").touch()
        with pytest.raises(InputError, match=advice):
            list(read(tmp_path / name))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"no .txt or .md file"):
        list(read(tmp_path / "empty"))


# Chunks


@settings(deadline=None)
@given(st.text(st.sampled_from("ab .\n!。漢🦙\ud800"), max_size=300), st.integers(16, 60))
def test_chunks_joined_are_the_text_and_none_is_too_long(text, tokens):
    count = counter("o200k_base")
    pieces = list(chunks(text, tokens, count))
    assert "".join(pieces) == text
    assert all(len(p) > 0 and count(p) <= tokens for p in pieces)


def test_chunks_end_where_sentences_end_and_are_filled():
    text = " ".join(f"Sentence {k} is here to stay." for k in range(100))
    pieces = list(chunks(text, 50, WORDS))
    assert all(p.endswith(".") for p in pieces)
    assert all(WORDS(p) == 48 for p in pieces[:-1])


@pytest.mark.parametrize(
    ("text", "first"),
    [("word " * 40 + "\n" + "word " * 40, "word " * 40), ("word " * 90, "word" + " word" * 63)],
    ids=["a line break", "a word"],
)
def test_a_sentence_that_is_too_long_ends_at(text, first):
    assert next(chunks(text, 64, WORDS)) == first


def test_chunking_is_linear():
    text = "no end in sight " * 20_000 + "x" * 300_000
    began = time.process_time()
    assert "".join(chunks(text, 512, counter("o200k_base"))) == text
    assert time.process_time() - began < 20


# Alignment

SMALL = st.lists(st.sampled_from(["a", "b", "c", "A", ",", "."]), max_size=30)


@settings(deadline=None)
@given(SMALL, SMALL)
def test_windowed_pairs_are_pairs(original, compressed):
    pairs = windowed_pairs(original, compressed, 5)
    found = [(c, original[k]) for c, k in zip(compressed, pairs, strict=True) if k >= 0]
    assert len({k for k in pairs if k >= 0}) == len(found)
    assert all(c.lower() == o.lower() for c, o in found)


def test_the_window_bounds_the_search_on_both_sides():
    original = ["a", "x", "x", "b", "x", "x", "a"]
    assert windowed_pairs(original, ["b", "a"], 4).tolist() == [3, 6]  # as near as the other one: the later
    assert windowed_pairs(original, ["b", "a"], 3).tolist() == [-1, 0]
    assert windowed_pairs(original, ["a", "b", "a", "a"], 9).tolist() == [0, 3, 6, -1]


@settings(deadline=None)
@given(SMALL, st.data())
def test_exact_alignment_labels_every_word_of_a_deletion(original, data):
    keep = data.draw(st.lists(st.booleans(), min_size=len(original), max_size=len(original)))
    compressed = [w for w, k in zip(original, keep, strict=True) if k]
    assert kept_units(original, compressed).sum() == len(compressed)
    found = compare(original, compressed)
    assert found.exact == found.teacher == len(compressed)
    assert found.units - found.same >= 2 * found.moved


def test_windowed_labels_can_be_in_an_impossible_order():
    original = ["the", "cat", "saw", "the", "dog", "and", "the", "cat", "ran"]
    found = compare(original, ["the", "cat", "saw", "the", "dog", "cat", "ran"])
    assert (found.exact, found.moved, found.backward) == (7, 0, 0)
    found = compare(["a", "b", "a", "c", "b"], ["c", "a"])
    assert found.backward == 1 and found.exact == 1


@settings(deadline=None)
@given(st.text("ab ,", max_size=40), st.data())
def test_kept_spans_cover_kept_units_and_no_dropped_one(text, data):
    places = units(text)
    keep = np.array(data.draw(st.lists(st.booleans(), min_size=len(places), max_size=len(places))), bool)
    spans = kept_spans(places, keep)
    covered = [any(s <= a and b <= e for s, e in spans) for a, b in places]
    assert covered == keep.tolist()
    assert spans == sorted(spans)


# Quality


def test_measures_by_hand():
    keep = np.array([True, True, False, False])
    found = measure(["The", "cat", "sat", "down"], ["cat", "the", "purred", "Sat"], keep)
    assert (found.vr, found.hr, found.mr, found.ag) == (0.25, 0.75, 0.5, 0.25)
    assert measure(["a"], [], np.array([False])).vr == 1  # the paper leaves it open; nothing said, nothing faithful


@settings(deadline=None)
@given(SMALL, SMALL)
def test_measures_are_in_range(original, compressed):
    found = measure(original, compressed, kept_units(original, compressed))
    assert 0 <= found.vr <= 1 and 0 <= found.mr <= 1
    assert found.ag == pytest.approx(found.hr - found.mr) and found.ag >= 0


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=50),
    st.floats(0, 99),
    st.floats(0, 99),
)
def test_filters_never_drop_more_than_their_share(measures, vr, ag):
    found = choose(*np.array(measures).T, Drop(vr, ag))
    n = len(measures)
    assert found.dropped_vr <= vr / 100 * n + 1e-6
    assert found.dropped_ag <= ag / 100 * (n - found.dropped_vr) + 1e-6
    assert found.passed.sum() == n - found.dropped_vr - found.dropped_ag > 0


def test_the_papers_shares():
    vr, ag = np.arange(200) / 200, np.arange(200)[::-1] / 200
    found = choose(vr, ag, Drop())
    assert (found.dropped_vr, found.dropped_ag) == (10, 19)  # 5 % of 200, 10 % of 190
    assert not found.passed[-10:].any() and not found.passed[:19].any()


def test_perfect_examples_all_pass():
    assert choose(np.zeros(99), np.zeros(99), Drop()).passed.all()


@pytest.mark.parametrize("share", [{"vr": 100}, {"ag": -1}])
def test_wrong_shares(share):
    with pytest.raises(InputError, match=r"percentage in \[0, 100\)"):
        Drop(**share)


# Answers


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("", "empty"),
        (" \n", "empty"),
        ("<passage>\n</passage>", "empty"),
        (f"\n{TEXT} ", "identical"),
        ("I'm sorry, but I can't help with that.", "refusal"),
        ("I’m sorry.", "refusal"),
        ("Sorry, no.", "refusal"),
        ("I cannot assist with this request.", "refusal"),
        ("As an AI language model, I", "refusal"),
        (TEXT * 3, "twice as long"),
    ],
)
def test_answers_that_are_no_compression(said, reason):
    with pytest.raises(Unusable, match=reason):
        compression(TEXT, answer(said))


def test_answers_that_are_cut_off_or_filtered():
    with pytest.raises(Unusable, match="cut off"):
        compression(TEXT, answer("cat sat", "length"))
    with pytest.raises(Unusable, match="filtered"):
        compression(TEXT, answer("", "content_filter"))


def test_a_text_that_apologises_is_no_refusal():
    assert compression("I'm sorry, I can't come to it.", answer("I'm sorry, can't come.")) == "I'm sorry, can't come."


def test_the_passages_frame_is_not_part_of_the_answer():
    assert compression(TEXT, answer("<passage>\ncat sat\n</passage>")) == "cat sat"


def test_the_teacher_is_asked_about_a_given_question_with_its_known_answer():
    compress, ask = requests(Document("i", TEXT, "s", "Where did the cat sit?", "on the mat"), questions=True)
    assert TEXT in compress[1]["content"] and "Where" not in compress[1]["content"]
    assert "Where did the cat sit?" in ask[1]["content"] and "on the mat\n</known_answer>" in ask[1]["content"]
    assert len(requests(Document("i", TEXT, "s"), questions=False)) == 1


def question(**changes):
    data = {"question": "Where?", "answer": "the mat", "evidence": ["The cat sat on the mat in the sun."]}
    return answer("```json\n" + json.dumps(data | changes) + "\n```")


def test_a_question_with_verbatim_evidence():
    assert asked(Document("i", TEXT, "s"), question()) == Asked("Where?", "the mat", ((0, 34),))


def test_evidence_may_differ_in_white_space_only():
    text = "One.\nThe cat\n  sat. Two."
    found = asked(Document("i", text, "s"), question(answer="cat sat", evidence=["The cat sat."]))
    assert text[slice(*found.evidence[0])] == "The cat\n  sat."
    assert found.answer == "cat\n  sat"


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (question(evidence=["The cat lay on the mat."]), "evidence not verbatim"),
        (question(evidence=["The cat sat on the mat in the sun.", "A dog barked."]), "evidence not verbatim"),
        (question(evidence=[]), "no evidence"),
        (question(answer="a mat"), "answer not verbatim"),
        (question(answer=""), "no answer"),
        (question(question=" "), "no question"),
        (question(question=None), "not the JSON asked for"),
        (question(evidence="The cat lay"), "evidence not verbatim"),
        (answer("Where? On the mat."), "not the JSON asked for"),
        (answer("[1]"), "not the JSON asked for"),
        (answer('{"question": "Wh', "length"), "cut off"),
    ],
)
def test_questions_that_cannot_be_used(said, reason):
    with pytest.raises(Unusable, match=reason):
        asked(Document("i", TEXT, "s"), said)


def test_a_given_question_that_the_passage_does_not_answer_is_an_example_too():
    passage = Document("i", TEXT, "s", "Who is the mayor?")
    assert asked(passage, question(answer="", evidence=[])) == Asked("Who is the mayor?", "", ())


# End to end


def test_a_data_set_with_report_and_picture(ten, tmp_path):
    report, examples, seen = taught(ten, tmp_path / "out.jsonl")
    assert len(examples) == len(seen) == report["written"] == 10
    first = examples[0]
    assert list(first) == [*("id", "text", "compressed", "spans", "rate", "vr", "hr", "mr", "ag", "source", "teacher")]
    assert (first["id"], first["source"], first["teacher"]) == ("t0#0", "in.jsonl", "standin")
    assert [first["text"][s:e] for s, e in first["spans"]] == [
        *("cat sat", "mat", "sun.", "0 metres", "dog,", "dog", "asleep.")
    ]
    assert 0 < first["rate"] < 1 and first["vr"] == first["ag"] == 0 and first["hr"] == first["mr"]
    assert json.loads((tmp_path / "out.report.json").read_text()) == report
    assert report["measures"]["rate"]["mean"] == pytest.approx(np.mean([e["rate"] for e in examples]))
    assert sum(report["measures"]["vr"]["histogram"]["counts"]) == 10
    assert (tmp_path / "out.report.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        *("in.jsonl", "out.cache.sqlite", "out.jsonl", "out.report.json", "out.report.png")
    ]


def test_every_kind_of_bad_answer_is_named_and_left_out(ten, tmp_path):
    script = ["ok", "refusal", "empty", "identical", "cut", "filtered", "400", "500", "truncated", "dropped", "ok"]
    report, examples, seen = taught(ten, tmp_path / "out.jsonl", script)
    assert report["left_out"] == {
        "refusal": 1,
        "empty": 1,
        "identical": 1,
        "cut off": 1,
        "filtered by the endpoint": 1,
        "failed request": 1,
    }
    assert [e["id"] for e in examples] == ["t0#0", "t7#0", "t8#0", "t9#0"]
    assert len(seen) == 13  # three were retried
    assert "the passage is too long" in report["errors_first"][0]
    assert report["paid_now"]["requests"] == 9


def test_invented_words_are_counted_are_no_spans_and_go_first(ten, tmp_path):
    _, examples, _ = taught(ten, tmp_path / "all.jsonl", ["ok", "invented"])
    assert examples[1]["vr"] > 0.3 and "zebras" in examples[1]["compressed"]
    assert examples[1]["spans"] == examples[0]["spans"]
    report, examples, _ = taught(ten, tmp_path / "most.jsonl", ["ok", "invented"], drop=Drop(10, 10))
    assert report["dropped"] == {"vr": 1, "ag": 0}
    assert "t1#0" not in {e["id"] for e in examples} and len(examples) == 9


def test_question_aware_examples(ten, tmp_path):
    job = Job(ten, questions=True)
    report, examples, seen = taught(ten, tmp_path / "out.jsonl", ["ok", "ok", "ok", "not-json", "ok", "invented"], job)
    assert len(seen) == 20
    assert examples[0]["question"] == "Which word is the longest?"
    assert examples[0]["evidence"] == ["The cat sat on the mat in the sun."]
    assert examples[0]["evidence_spans"] == [[0, 34]]
    assert examples[0]["answer"] in examples[0]["text"]
    assert "question" not in examples[1] and "question" not in examples[2]
    assert report["questions"] == 8
    assert report["questions_left_out"] == {"not the JSON asked for": 1, "evidence not verbatim": 1}


def test_questions_of_the_input_are_used(tmp_path):
    source = lines(tmp_path / "in.jsonl", [{"text": TEXT, "question": f"Which {w}?"} for w in ("metres", "zebra")])
    _, examples, _ = taught(source, tmp_path / "out.jsonl", job=Job(source, questions=True))
    assert [e["question"] for e in examples] == ["Which metres?", "Which zebra?"]
    assert examples[0]["evidence"][0].startswith("It was 3.5 metres") and examples[0]["answer"] == "metres"
    assert examples[1]["evidence"] == [] and examples[1]["answer"] == ""


def test_long_texts_are_taught_in_chunks_of_which_none_is_lost(tmp_path):
    text = " ".join(TEXT.replace("3.5", str(k)) for k in range(30)) + "\n\n  \n"
    source = lines(tmp_path / "in.jsonl", [{"text": text}, {"text": "  "}, {"text": ""}])
    _, examples, _ = taught(source, tmp_path / "out.jsonl", job=Job(source, tokens=100))
    assert "".join(e["text"] for e in examples) == text
    assert [e["id"] for e in examples] == [f"in-1#{k}" for k in range(len(examples))]


def test_any_text_goes_through(tmp_path):
    odd = ["\ud800 the x", "漢字。" * 30, "\x00 the \x01", "the " * 600, "🦙" * 300, "a\u2028b the c"]
    source = lines(tmp_path / "in.jsonl", [{"text": t} for t in odd])
    _, examples, _ = taught(source, tmp_path / "out.jsonl", job=Job(source, tokens=100))
    for example in examples:
        assert all(0 <= s < e <= len(example["text"]) for s, e in example["spans"])


def test_a_second_run_pays_nothing_and_writes_the_same(ten, tmp_path):
    script = ["ok", "refusal", "invented"]
    _, _, seen = taught(ten, tmp_path / "out.jsonl", script)
    before = (tmp_path / "out.jsonl").read_bytes()
    report, _, again = taught(ten, tmp_path / "out.jsonl", ["500"] * 9)
    assert (len(seen), len(again), report["paid_now"]["requests"]) == (10, 0, 0)
    assert (tmp_path / "out.jsonl").read_bytes() == before


def test_failed_requests_are_asked_again_by_the_next_run(ten, tmp_path):
    taught(ten, tmp_path / "out.jsonl", ["ok", "400"])
    report, examples, seen = taught(ten, tmp_path / "out.jsonl")
    assert len(seen) == 1 and len(examples) == 10 and report["left_out"] == {}


def test_killed_and_run_again_nothing_is_paid_twice(tmp_path):
    source = lines(tmp_path / "in.jsonl", [{"text": TEXT.replace("3.5", str(k))} for k in range(40)])
    out = tmp_path / "out.jsonl"
    with Teacher(["slow"] * 40) as teacher:
        command = [sys.executable, "-m", "laconic.cli", "distill", source, out, "--teacher", teacher.url]
        command += ["--teacher-model", "standin", "--concurrency", "2"]
        running = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while len(teacher.seen) < 6 and time.monotonic() < deadline:
            time.sleep(0.01)
        os.kill(running.pid, signal.SIGKILL)
        running.wait()
        assert not out.exists()
        time.sleep(0.35)  # what was under way is answered, to nobody
        asked_before = len(teacher.seen)
    _, examples, seen = taught(source, out)
    assert len(examples) == 40
    assert asked_before + len(seen) <= 42  # the two that were on their way


def test_unusable_answers_only_are_an_error_that_counts_them(ten, tmp_path):
    with pytest.raises(EndpointError, match="no answer of standin can be used: 10 refusal; try another model"):
        taught(ten, tmp_path / "out.jsonl", ["refusal"] * 10)
    assert json.loads((tmp_path / "out.report.json").read_text())["left_out"] == {"refusal": 10}
    assert not (tmp_path / "out.jsonl").exists()


def test_a_teacher_that_gives_out_says_how_to_go_on(ten, tmp_path):
    with pytest.raises(EndpointError, match="quota .* used up.*run it again to go on"):
        taught(ten, tmp_path / "out.jsonl", ["ok", "ok", "quota"])
    _, examples, seen = taught(ten, tmp_path / "out.jsonl")
    assert len(examples) == 10 and len(seen) <= 8


def test_the_plan_counts_what_is_still_to_be_asked(ten, tmp_path):
    with Teacher() as teacher, Endpoint(teacher.url, "m", concurrency=1, cache=tmp_path / "c") as endpoint:
        everything = plan(Job(ten), endpoint)
        assert (everything.chunks, everything.requests, everything.cached) == (10, 10, 0)
        endpoint.complete(requests(Document("t0", TEXT.replace("3.5", "0"), "s"), questions=False)[0])
        rest = plan(Job(ten), endpoint)
        assert (rest.cached, rest.tokens_in) == (1, everything.tokens_in * 9 // 10)
        assert plan(Job(ten, questions=True), endpoint).requests == 20
        assert len(teacher.seen) == 1
    assert Prices(1.0, 10.0).cost(500_000, 100_000) == 1.5


# Command line


def command(capfd, *args):
    status = main(["distill", *map(str, args)])
    out, err = capfd.readouterr()
    return status, out, err


def test_the_command(capfd, ten, tmp_path):
    out = tmp_path / "out.jsonl"
    with Teacher() as teacher:
        options = ("--teacher", teacher.url, "--teacher-model", "m", "--price-in", 1, "--price-out", 2)
        status, printed, err = command(capfd, ten, out, *options, "--dry-run")
        assert (status, err, teacher.seen) == (0, "", [])
        assert printed.startswith("10 chunks, 10 requests: about ") and ", cost about " in printed
        assert list(tmp_path.iterdir()) == [ten]
        status, printed, err = command(capfd, ten, out, *options, "--questions")
        assert (status, printed) == (0, "")
        assert "10 examples of 10 chunks" in err and "10 with questions" in err and "paid 20 requests" in err
        status, printed, _ = command(capfd, ten, out, *options, "--dry-run")
        assert "(10 answered before): about 0 tokens in, 0 out, cost about 0.00" in printed
    assert len(out.read_text().splitlines()) == 10


def test_errors_are_one_line_and_cost_nothing(capfd, ten, tmp_path, monkeypatch):
    broken = lines(tmp_path / "broken.jsonl", [{"text": TEXT}, "{\n"])
    with Teacher(key="right") as teacher:
        options = ("--teacher", teacher.url, "--teacher-model", "m")
        out = tmp_path / "out.jsonl"
        for args, status, advice in [
            ((ten, out, *options), 1, "set LACONIC_API_KEY or OPENAI_API_KEY"),
            ((ten, out, "--teacher", "localhost", "--teacher-model", "m"), 2, "not a URL"),
            ((ten, out, "--teacher", "http://127.0.0.1:9", "--teacher-model", "m"), 1, "that the server runs"),
            ((ten, ten, *options), 2, "is the input"),
            ((ten, tmp_path, *options), 2, "is a folder"),
            ((broken, out, *options), 2, "line 2 is not JSON"),
            ((ten, out, *options, "--text-field", "body"), 2, "line 1 has no text in 'body'"),
            ((ten, out, *options, "--text-field", "body", "--broken", "skip"), 2, "10 broken records, the first"),
            ((ten, out, *options, "--tokens", "5"), 2, "16 tokens or more"),
            ((ten, out, *options, "--drop-vr", "100"), 2, "percentage"),
            ((ten, out, *options, "--concurrency", "0"), 2, "concurrency must be 1 or more"),
            ((ten, out), 2, "--teacher"),
        ]:
            found = command(capfd, *args)
            assert (found[0], found[1]) == (status, "")
            assert advice in found[2].splitlines()[-1]
        assert teacher.seen == []
        monkeypatch.setenv("LACONIC_API_KEY", "right")
        assert command(capfd, broken, out, *options, "--broken", "skip")[0] == 0
    assert json.loads((tmp_path / "out.report.json").read_text())["broken_records"] == 1


def test_the_recipe_for_a_stand_in_runs(tmp_path, ten):
    recipe = Path(__file__).parents[1] / "recipes" / "standin_teacher.py"
    with subprocess.Popen([sys.executable, recipe, "--port", "0"], stdout=subprocess.PIPE, text=True) as server:
        try:
            url = server.stdout.readline().split()[2].rstrip(",")
            with Endpoint(url, "m") as endpoint:
                passage = Document("i", TEXT, "s")
                assert endpoint.complete(requests(passage, questions=False)[0]).text.startswith("cat sat mat sun.")
        finally:
            server.terminate()


@pytest.mark.parametrize("out", [[".", []], ["o.jsonl", ["--cache", "o.jsonl"]]])
def test_an_output_that_would_destroy_something_is_refused(tmp_path, monkeypatch, capsys, out):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in.txt").write_text("One two three.")
    args = ["in.txt", out[0], "--teacher", "http://127.0.0.1:9", "--teacher-model", "m", *out[1], "--dry-run"]
    assert main(["distill", *args]) == 2
    assert capsys.readouterr().err.count("\n") == 1
