"""Every format is read from small files, and what is broken is refused by its place."""

from __future__ import annotations

import gzip
import json
from hashlib import sha256

import pytest

from laconic.errors import InputError
from laconic.eval import tasks
from laconic.eval.data import Example, sample
from laconic.train.split import held_out


def write(path, records):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(r) + "\n" for r in records))
    return str(path)


def loaded(name, path):
    return list(tasks.load(name, str(path)))


def squad(title, paragraphs=12):
    def paragraph(k):
        text = f"Fact {k} opens. The town of No{k}ton has {k} mills."
        answers = [
            {"text": f"No{k}ton", "answer_start": text.index(f"No{k}ton")},
            {"text": "the town", "answer_start": 0},
        ]
        return {"context": text, "qas": [{"id": f"{title}-{k}", "question": f"Which town, {k}?", "answers": answers}]}

    return {"title": title, "paragraphs": [paragraph(k) for k in range(paragraphs)]}


def test_articles_are_ten_paragraphs_of_held_out_ones(tmp_path):
    assert held_out("Normans") and not held_out("Kenya")
    path = tmp_path / "squad.json"
    path.write_text(json.dumps({"data": [squad("Normans"), squad("Kenya")]}))
    examples = loaded("articles", path)
    assert [e.id for e in examples] == [f"Normans-{k}" for k in range(10)]  # two paragraphs make no context
    assert examples[3].context.count("\n\n") == 9
    assert examples[3].answers == ("No3ton", "the town")
    assert [p.strip() for p in examples[3].evidence] == ["The town of No3ton has 3 mills."]
    assert {e.group for e in examples} == {"Normans/0"}


def test_nq20_keeps_the_held_out_half_and_the_sentences_with_an_answer(tmp_path):
    docs = [{"title": "A", "text": "No.", "gold": False}, {"title": "B", "text": "One. It is Wimpy.", "gold": True}]
    questions = [f"who is it, {k}?" for k in range(8)]
    path = write(tmp_path / "nq.jsonl", [{"question": q, "answers": ["wimpy"], "docs": docs} for q in questions])
    examples = loaded("nq20", path)
    assert [e.question for e in examples] == [q for q in questions if int(sha256(q.encode()).hexdigest(), 16) % 2 == 0]
    assert examples[0].context == "A\nNo.\n\nB\nOne. It is Wimpy.\n\n"
    assert [p.strip() for p in examples[0].evidence] == ["It is Wimpy."]


def test_twohop_shuffles_the_documents_the_same_way_every_time(tmp_path):
    record = {"_id": "7", "title_a": "A", "para_a": ["One.", " Two."], "title_b": "B", "para_b": ["Three."]}
    record |= {"question": "?", "answer": "two", "supporting_facts": [[1], [0]]}
    record["distractors"] = [[f"D{k}", ["Other."], 1.5] for k in range(6)]
    path = tmp_path / "twohop.json"
    path.write_text(json.dumps([record]))
    (example,) = loaded("twohop", path)
    assert example.evidence == (" Two.", "Three.")
    assert "A\nOne. Two.\n\n" in example.context and not example.context.startswith("A\n")
    assert example == loaded("twohop", path)[0]


def test_gsm8k_puts_solved_problems_before_the_question(tmp_path):
    solved = [{"question": f"Q{k}?", "answer": f"2*{k}=<<2*{k}={2 * k}>>{2 * k}\n#### {2 * k}"} for k in range(9)]
    write(tmp_path / "gsm8k/train.jsonl", solved)
    write(tmp_path / "gsm8k/test.jsonl", [{"question": "Last?", "answer": "x\n#### 1,000"}])
    (example,) = loaded("gsm8k", tmp_path / "gsm8k")
    assert example.context.count("Question: ") == tasks.SHOTS
    assert "<<" not in example.context and "2*3=6\nThe answer is 6." in example.context + "2*3=6\nThe answer is 6."
    assert (example.question, example.answers) == ("Last?", ("1,000",))


def test_bbh_pairs_questions_with_their_prompt(tmp_path):
    (tmp_path / "bbh").mkdir()
    (tmp_path / "cot-prompts").mkdir()
    (tmp_path / "bbh/navigate.json").write_text(json.dumps({"examples": [{"input": "Go?", "target": "Yes"}]}))
    (tmp_path / "cot-prompts/navigate.txt").write_text("canary\n-----\nDecide.\n\nQ: one\nA: No")
    (example,) = loaded("bbh", tmp_path)
    assert example == Example("navigate/0", "Decide.\n\nQ: one\nA: No\n\n", "Go?", ("Yes",), group="navigate")


def test_longbench_and_multi_news_from_a_gzipped_file(tmp_path):
    record = {"_id": "x", "context": "C", "input": "", "answers": ["S"], "dataset": "multi_news", "all_classes": None}
    path = tmp_path / "news.jsonl.gz"
    path.write_bytes(gzip.compress(json.dumps(record).encode()))
    for name in ("longbench", "multi_news"):
        (example,) = loaded(name, path)
        assert (example.id, example.context, example.question, example.answers) == ("x", "C", None, ("S",))


def test_zeroscrolls_takes_the_document_out_of_the_input(tmp_path):
    text = "Read this.\n\nDOCUMENT\n\nQuestion: why?"
    record = {"id": "a", "pid": "a_0", "input": text, "output": "so", "document_start_index": 12}
    record |= {"document_end_index": 20, "query_start_index": 22, "query_end_index": len(text)}
    (example,) = loaded("zeroscrolls", write(tmp_path / "qasper/validation.jsonl", [record]))
    assert (example.context, example.question) == ("DOCUMENT", "Question: why?")
    assert example.meta == {"dataset": "qasper", "instruction": "Read this."}


def test_meetingbank_has_an_example_for_every_question(tmp_path):
    pairs = [{"question": "Who?", "answer": "Ann"}, {"question": "When?", "answer": "Monday"}]
    path = tmp_path / "meetingbank.json"
    path.write_text(json.dumps({"3": {"idx": 3, "prompt": "Ann spoke.", "QA_pairs": pairs}}))
    assert [(e.id, e.group, e.answers) for e in loaded("meetingbank", path)] == [
        ("3/0", "3", ("Ann",)),
        ("3/1", "3", ("Monday",)),
    ]


def test_qmsum_evidence_is_the_turns_of_the_query(tmp_path):
    turns = [{"speaker": s, "content": c} for s, c in (("A", "Hello ."), ("B", "Cats ."), ("A", "Dogs ."))]
    specific = [{"query": "Pets?", "answer": "Cats, dogs.", "relevant_text_span": [["1", "2"]]}]
    record = {"meeting_id": "m", "meeting_transcripts": turns, "specific_query_list": specific}
    record["general_query_list"] = [{"query": "All?", "answer": "Pets."}]
    whole, pets = loaded("qmsum", write(tmp_path / "qmsum.jsonl", [record]))
    assert whole.evidence == () and pets.evidence == ("B: Cats .\nA: Dogs .\n",)
    assert pets.evidence[0] in pets.context


def test_keep_carries_the_teachers_text(tmp_path):
    record = {"id": "p", "text": "A b.", "compressed": "b.", "spans": [[2, 4]]}
    (example,) = loaded("keep", write(tmp_path / "dev.jsonl", [record]))
    assert example == Example("p", "A b.", group="p", meta={"compressed": "b."})


def test_a_broken_line_is_refused_by_its_number(tmp_path):
    good = {"id": "p", "text": "A", "compressed": "A", "question": "?", "answer": "A", "evidence": []}
    path = write(tmp_path / "dev.jsonl", [good])
    for line, message in (("{", r"dev.jsonl:2 is not JSON"), ('{"id": "q"}', r"dev.jsonl:2 lacks 'text'")):
        (tmp_path / "dev.jsonl").write_text(json.dumps(good) + "\n" + line)
        with pytest.raises(InputError, match=message):
            loaded("keep", path)


def test_a_record_of_another_shape_is_refused_by_its_place(tmp_path):
    path = tmp_path / "meetingbank.json"
    path.write_text(json.dumps([["not", "an", "object"]]))
    with pytest.raises(InputError, match=r"record 1 is malformed"):
        loaded("meetingbank", path)


@pytest.mark.parametrize(
    ("name", "content"),
    [("articles", {"data": [{"x": 1}]}), ("twohop", 5), ("nq20", [{"question": "q0", "docs": [], "answers": "Bob"}])],
)
def test_a_file_of_another_format_is_refused_not_misread(tmp_path, name, content):
    (tmp_path / "data.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"data\.json"):
        loaded(name, tmp_path / "data.json")


@pytest.mark.parametrize(
    ("name", "path", "message"),
    [
        ("nosuch", "x", "no task 'nosuch'; there are keep, teacher"),
        ("nq20", "/nonexistent", "no file or folder /nonexistent"),
        ("nq20", "hf:org/name", "hf:org/name is not of the form"),
    ],
)
def test_wrong_names_and_paths_are_refused(name, path, message):
    with pytest.raises(InputError, match=message):
        tasks.load(name, path)


def test_a_hub_path_asks_the_hub_for_one_file(tmp_path, monkeypatch):
    hub = pytest.importorskip("huggingface_hub")
    asked = []
    path = write(tmp_path / "dev.jsonl", [])
    monkeypatch.setattr(hub, "hf_hub_download", lambda *args, **options: asked.append((args, options)) or path)
    assert loaded("keep", "hf:org/name/data/dev.jsonl") == []
    assert asked == [(("org/name", "data/dev.jsonl"), {"repo_type": "dataset"})]


def test_a_sample_is_seeded_in_order_and_without_repeats():
    everything = [Example(str(k), "c") for k in range(100)]
    chosen = sample(everything, 10)
    assert chosen == sample(everything, 10) != sample(everything, 10, seed=1)
    assert [int(e.id) for e in chosen] == sorted({int(e.id) for e in chosen})
    assert sample(everything, None) == sample(everything, 1000) == everything
    for wrong, message in (([everything[0]] * 2, "same id"), ([], "no example")):
        with pytest.raises(InputError, match=message):
            sample(wrong, None)
