"""The plain API: it answers like the library, refuses with advice, and is what its description says."""

from __future__ import annotations

import copy
import json
import threading
from types import SimpleNamespace

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance
from starlette.applications import Starlette
from starlette.testclient import TestClient

import laconic
from laconic.serve import api, openapi
from laconic.serve.page import routes

TEXT = "Please note that the meeting of the board was moved to 14:30 on Friday, because the hall is not free."
ASKED = {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": TEXT}]}


@pytest.fixture(scope="module")
def compressor():
    return laconic.load()


@pytest.fixture(scope="module")
def app(compressor):
    return Starlette(routes=routes(SimpleNamespace(compressor=compressor)))


@pytest.fixture(scope="module")
def client(app):
    with TestClient(app) as made:
        yield made


def post(client, **fields):
    return client.post("/v1/compress", json=fields)


def raw(client, body):
    return client.post("/v1/compress", content=body, headers={"content-type": "application/json"})


def advice(response, status):
    """The message of a refusal."""
    assert response.status_code == status, response.text
    assert list(response.json()) == ["error"]
    return response.json()["error"]["message"]


def same(answer, result):
    """Is the answer the result of the library, but for the time it took?"""
    expected = json.loads(json.dumps(result.to_dict()))
    return {**answer, "seconds": 0} == {**expected, "seconds": 0}


@pytest.mark.parametrize("budget", [{}, {"rate": 0.4}, {"rate": 1}, {"tokens": 9}, {"tokens": 9.0}, {"threshold": 0.5}])
def test_a_text_is_compressed_as_by_the_library(client, compressor, budget):
    answer = post(client, text=TEXT, **budget)
    assert answer.status_code == 200 and answer.headers["cache-control"] == "no-store"
    options = {name: int(value) if name == "tokens" else value for name, value in budget.items()}
    assert same(answer.json(), compressor.compress(TEXT, **options))
    assert answer.json()["text"] == "".join(TEXT[s:e] for s, e in answer.json()["spans"])


def test_messages_come_back_with_the_spans_of_each_text(client, compressor):
    answer = post(client, **ASKED, newest=True, rate=0.4).json()
    assert same(answer, compressor.compress(ASKED["messages"], newest=True, rate=0.4))
    system, user = answer["parts"]
    assert system == {"path": [0, "content"], "fixed": True, "spans": [[0, 9]]}
    assert answer["messages"][1]["content"] == "".join(TEXT[s:e] for s, e in user["spans"]) != TEXT
    assert post(client, **ASKED, rate=0.4).json()["messages"] == ASKED["messages"]


def test_documents_share_one_budget(client, compressor):
    asked = {"documents": ["It rains.", "Ann bakes bread."], "question": "Who bakes?", "tokens": 5}
    answer = post(client, **asked, method="bm25").json()
    assert same(answer, laconic.load(method="bm25").compress_documents(**asked))
    assert (answer["text"], answer["dropped"]) == ("Ann bakes bread.", [0])


@pytest.mark.parametrize("method", api.METHODS)
def test_every_method_answers(client, method):
    answer = post(client, text=TEXT, method=method, counter="words").json()
    assert answer["method"] == method and answer["counter"] == "words" and answer["tokens_after"] <= 10


def test_the_servers_own_compressor_is_used_for_what_it_is(compressor):
    own = api._compressor(compressor, {"method": "llmlingua2", "model": "laconic-small", "counter": "words"})
    assert own.scorer is compressor.scorer and own.counter.name == "words"
    assert api._compressor(compressor, {"model": "laconic-nano"}).scorer.model == "laconic-nano"
    tfidf = laconic.load(method="tfidf")
    assert api._compressor(tfidf, {}) is not compressor and api._compressor(tfidf, {}).scorer.name == "tfidf"


def test_scores_tell_the_strength_of_every_unit(client):
    units = post(client, text=TEXT, rate=0.5, scores=True).json()["units"]
    ends, scores = zip(*units, strict=True)
    assert list(ends) == sorted(set(ends)) and ends[-1] == len(TEXT) and all(0 <= s <= 1 for s in scores)
    assert len(post(client, **ASKED, scores=True).json()["units"]) == 2
    assert "units" not in post(client, text=TEXT).json()


def test_a_question_and_protected_text_are_heeded(client):
    answer = post(client, text=TEXT, rate=0.3, question="When?", protect=["note that", r"\p{Lu}riday"]).json()
    assert "note that" in answer["text"] and "Friday" in answer["text"]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "pass one of text, messages, documents"),
        ({"text": "a", "documents": []}, "got text and documents"),
        ({"text": 5}, "text must be a string"),
        ({"text": None}, "leave it out"),
        ({"text": "a", "color": 1}, "there is no field 'color'"),
        ({"text": "a", "rate": 0.5, "tokens": 3}, "one budget at a time"),
        ({"text": "a", "rate": 33}, "did you mean tokens=33"),
        ({"text": "a", "rate": 10**400}, "rate must be in"),
        ({"text": "a", "rate": True}, "rate must be a number"),
        ({"text": "a", "tokens": 0}, "1 or more"),
        ({"text": "a", "threshold": -(10**400)}, "threshold must be in"),
        ({"documents": ["a"], "threshold": 0.5}, "pass rate or tokens"),
        ({"documents": "a"}, "list of str"),
        ({"documents": ["a", 1]}, "document 1 must be a str"),
        ({"messages": [{"content": "a"}]}, "message 0 must be a mapping with a role"),
        ({"messages": {"role": "user"}}, "messages must be a list"),
        ({"messages": "Hello."}, "pass a plain text as text"),
        ({"text": "a", "newest": True}, "newest is for messages"),
        ({"messages": [], "newest": 1}, "newest must be true or false"),
        ({"text": "a", "method": "llmlingua"}, "method must be one of llmlingua2, bm25"),
        ({"text": "a", "method": ["bm25"]}, "method must be one of"),
        ({"text": "a", "model": "/etc"}, "model must be one of laconic-small"),
        ({"text": "a", "method": "tfidf", "model": "laconic-nano"}, "leave model out"),
        ({"text": "a", "counter": "/etc/passwd"}, "counter must be one of o200k_base"),
        ({"text": "a", "method": "tfidf", "question": "who?"}, "tfidf does not read questions"),
        ({"text": "a", "question": 5}, "question must be a str"),
        ({"text": "a", "protect": "x"}, "protect takes a list"),
        ({"text": "a", "protect": ["("]}, "regular expressions, got '('"),
        ({"text": "a", "protect": ["(" * 500 + ")" * 500]}, "protect takes regular expressions"),
        ({"text": "a", "protect": ["a{9999999999}"]}, "protect takes regular expressions"),
        ({"text": "a", "protect": ["a" * 1001]}, "1000 characters"),
        ({"text": "a", "\ud800": 1}, "there is no field"),
    ],
)
def test_a_wrong_value_is_refused_with_advice(client, fields, words):
    message = advice(raw(client, json.dumps(fields)), 422)
    assert words in message and len(message) < 350


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "not JSON"),
        (b'{"text": ', "not JSON"),
        (b'{"text": "a", "rate": NaN}', "not JSON"),
        (b'{"text": "\xff"}', "not UTF-8"),
        (b"[1]", "must be an object"),
        (b"[" * 99999, "nested deeper"),
        (b'{"messages": [{"role": "user", "more": ' + b"[" * 200 + b"]" * 200 + b"}]}", "nested deeper"),
        (b'{"messages": [{"role": "user", "more": 1e999}]}', "too large"),
        (b'{"text": "a", "tokens": ' + b"1" * 5000 + b"}", "not JSON"),
    ],
)
def test_a_body_that_cannot_be_read_is_refused(client, body, words):
    assert words in advice(raw(client, body), 400)


def test_large_bodies_and_other_media_are_refused(client, monkeypatch):
    assert "application/json" in advice(client.post("/v1/compress", content=b"{}"), 415)
    monkeypatch.setattr(api, "LARGEST", 100)
    assert "larger than 100 bytes" in advice(post(client, text="a" * 100), 413)
    assert post(client, text="a" * 80).status_code == 200


@pytest.mark.parametrize("text", ["", " \n\t", "\x00", "\ud800 and \udfff then \ud83d", "a" * 5000, "😀 " * 300])
def test_odd_texts_get_a_result(client, text):
    answer = raw(client, json.dumps({"text": text, "scores": True})).json()
    assert answer["text"] == "".join(text[s:e] for s, e in answer["spans"])


def test_a_regular_expression_that_takes_for_ever_is_stopped(client, monkeypatch):
    monkeypatch.setattr(api, "_PATIENCE", 0.1)
    asked = {"text": "a" * 60 + " b c d", "rate": 0.2, "method": "lead", "protect": ["(a|aa)+$"] * 9}
    assert "pass simpler expressions" in advice(post(client, **asked), 422)


def test_when_too_many_wait_one_more_is_asked_to_come_back(compressor, monkeypatch):
    monkeypatch.setattr(api, "_WAITING", 1)
    going, go_on = threading.Semaphore(0), threading.Event()

    class Slow:
        counter = compressor.counter

        def compress(self, text, **options):
            going.release()
            assert go_on.wait(30)
            return laconic.load(method="lead").compress(text, **options)

    monkeypatch.setattr(api, "_compressor", lambda default, fields: default)
    with TestClient(Starlette(routes=routes(SimpleNamespace(compressor=Slow())))) as client:
        answers = []
        threads = [threading.Thread(target=lambda: answers.append(post(client, text=TEXT))) for _ in range(4)]
        for thread in threads:
            thread.start()
        assert going.acquire(timeout=30) and going.acquire(timeout=30)  # as many as run at once
        for thread in threads:
            thread.join(0.2)  # of the others one waits; the answer of the last is there
        go_on.set()
        for thread in threads:
            thread.join(30)
    assert sorted(a.status_code for a in answers) == [200, 200, 200, 503]
    refused = next(a for a in answers if a.status_code == 503)
    assert int(refused.headers["retry-after"]) > 0 and "try again" in advice(refused, 503)


def test_the_description_names_every_field_and_path(client):
    document = client.get("/openapi.json").json()
    assert set(document["paths"]) == {"/v1/compress", "/v1/ledger", "/healthz", "/metrics"}
    requests = [s for name, s in document["components"]["schemas"].items() if name.endswith("Request")]
    assert {name for schema in requests for name in schema["properties"]} == set(api.FIELDS)


def described(narrow=False):
    """Our path of the description; narrow: without what no schema says (which expressions are right, who reads)."""
    document = copy.deepcopy(openapi.description())
    document["paths"] = {"/v1/compress": document["paths"]["/v1/compress"]}
    if narrow:
        for name in ("TextRequest", "MessagesRequest", "DocumentsRequest"):
            schema = document["components"]["schemas"][name]
            schema["properties"]["protect"]["items"] = {"type": "string", "pattern": "^[a-z .]{0,9}$"}
            schema["dependentSchemas"]["question"] = {"properties": {"method": {"enum": ["llmlingua2", "bm25"]}}}
    return schemathesis.openapi.from_dict(document)


WHOLE, NARROW = described(), described(narrow=True)
NARROW.config.generation.update(modes=[GenerationMode.POSITIVE])
bounded = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


@WHOLE.parametrize()
@bounded
def test_the_api_keeps_what_its_description_promises(app, case):
    case.call_and_validate(app=app, excluded_checks=[positive_data_acceptance])


@NARROW.parametrize()
@bounded
def test_what_the_description_allows_is_done(app, case):
    case.call_and_validate(app=app)
