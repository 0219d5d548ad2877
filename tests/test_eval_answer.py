"""The reader's windows, and answers from an endpoint."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy as np
import pytest

from laconic.errors import LaconicError, ModelError
from laconic.eval.answer import EndpointAnswerer, Reader, best_span
from laconic.eval.data import Example
from laconic.eval.kinds import kind
from tiny import BERT_SPECIALS, SIZES, randomize, wordpiece

WORDS = [
    "alpha",
    "beta",
    "gamma",
    "delta",
    "epsilon",
    "zeta",
    "eta",
    "theta",
    "iota",
    "kappa",
    "lamda",
    "mu",
    "nu",
    "xi",
]


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    """A random BERT for question answering with windows of 48 tokens (overlap of 12)."""
    from tokenizers.processors import TemplateProcessing
    from transformers import BertConfig, BertForQuestionAnswering

    folder = tmp_path_factory.mktemp("reader")
    tokenizer = wordpiece([" ".join(WORDS) + " needle ?"] * 20, 200)
    marks = [(t, tokenizer.token_to_id(t)) for t in ("[CLS]", "[SEP]")]
    pair = "[CLS] $A [SEP] $B:1 [SEP]:1"
    tokenizer.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", pair=pair, special_tokens=marks)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = BertConfig(**SIZES, vocab_size=tokenizer.get_vocab_size(), max_position_embeddings=64, pad_token_id=0)
    model = BertForQuestionAnswering(config)
    randomize(model, 0)
    model.save_pretrained(folder)
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 48, **BERT_SPECIALS}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return Reader(folder)


def text(n, seed=0):
    return " ".join(np.random.default_rng(seed).choice(WORDS, n))


def asked(n):
    return [Example(str(k), "", f"which is {WORDS[k]} ?") for k in range(n)]


def test_the_window_is_the_tokenizers(reader):
    assert reader.window == 48


def test_an_answer_is_found_in_whatever_window_it_is(reader, monkeypatch):
    def rigged(part):
        """Start and end logits that point at the word needle, as a trained model would."""
        needle = reader._tokenizer.convert_tokens_to_ids("needle")
        found = [(np.array(w.ids) == needle).astype(np.float32) for w in part]
        return found, found

    monkeypatch.setattr(reader, "_logits", rigged)
    for place in (0, 30, 31, 60, 199):
        words = text(200).split()
        words[place] = "needle"
        assert reader.answer(" ".join(words), "which ?") == "needle"


def test_no_word_of_the_question_is_an_answer(reader, monkeypatch):
    monkeypatch.setattr(reader, "_logits", lambda part: ([np.arange(len(w.ids), 0, -1.0) for w in part],) * 2)
    assert reader.answer("beta gamma", "alpha ?") == "beta"  # the earliest word of the context, not of the question


def test_answers_are_pieces_of_the_context_and_do_not_depend_on_the_batch(reader):
    contexts = [text(n, seed) for seed, n in enumerate((3, 250, 40, 90, 1))]
    together = reader.answers(contexts, asked(5))
    assert together == [reader.answer(c, e.question) for c, e in zip(contexts, asked(5), strict=True)]
    assert all(a and a in c for a, c in zip(together, contexts, strict=True))


def test_the_answer_is_the_best_span_of_all_windows(reader):
    context, question = text(120, 7), "which is beta ?"
    best = (-np.inf, "")
    for window in reader._windows([context], [question]):
        (start,), (end,) = reader._logits([window])
        for s in np.flatnonzero(window.inside):
            for e in range(s, min(s + 30, len(start))):
                if window.inside[e]:
                    piece = context[window.offsets[s][0] : window.offsets[e][1]]
                    best = max(best, (start[s] + end[e] - start[0] - end[0], piece))
    assert reader.answer(context, question) == best[1]


def test_an_empty_context_has_no_answer(reader):
    assert reader.answers(["", " \n"], asked(2)) == ["", ""]


def test_a_question_longer_than_the_window_is_cut(reader):
    assert reader.answer("alpha beta", text(500)) in ("alpha", "beta", "alpha beta")


def test_best_span_is_at_most_thirty_tokens():
    start, end = np.zeros(50, np.float32), np.zeros(50, np.float32)
    start[2], end[40], end[31] = 5, 5, 4
    assert best_span(start, end, np.arange(50) > 0) == (9, (2, 31))


def test_a_folder_without_a_reader_is_refused(tmp_path):
    with pytest.raises(ModelError, match=r"holds no reader; pass the folder of a checkpoint"):
        Reader(tmp_path)


class _Model(BaseHTTPRequestHandler):
    """Answers with the last word of the prompt's first line; refuses prompts that say so."""

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append(body)
        prompt = body["messages"][0]["content"]
        refused = "refuse" in prompt
        answer = {"choices": [{"message": {"content": prompt.split("\n")[0].split()[-1]}, "finish_reason": "stop"}]}
        data = json.dumps({"error": {"message": "too long"}} if refused else answer).encode()
        self.send_response(400 if refused else 200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    server = HTTPServer(("127.0.0.1", 0), _Model)
    server.asked = []
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def test_an_endpoint_is_asked_with_the_compressed_context_and_errors_stay_with_their_example(server):
    from laconic.endpoint import Endpoint

    with Endpoint(f"http://127.0.0.1:{server.server_port}", "m", retries=0) as endpoint:
        answerer = EndpointAnswerer(endpoint, kind("qa"))
        answers = answerer.answers(["It was Ann", "refuse", "It was Bob"], asked(3))
    assert answers[0] == "Ann" and answers[2] == "Bob"
    assert isinstance(answers[1], LaconicError) and "too long" in str(answers[1])
    first = min(server.asked, key=lambda body: "Ann" not in body["messages"][0]["content"])
    assert first["temperature"] == 0 and first["max_tokens"] == kind("qa").max_tokens
    assert "which is alpha ?" in first["messages"][0]["content"]
