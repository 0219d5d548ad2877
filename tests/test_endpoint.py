"""Endpoint: what it does when the other side does not do what it should."""

from __future__ import annotations

import random
import sqlite3
import subprocess
import sys
import threading
import time

import pytest

from laconic.endpoint import Completion, Endpoint, _retry_after
from laconic.errors import EndpointError, InputError, MissingExtraError
from teacher_server import Teacher

KEY = "sk-not-to-be-seen"


def ask(text="The cat sat."):
    return [{"role": "system", "content": "Shorten."}, {"role": "user", "content": f"<passage>\n{text}\n</passage>"}]


@pytest.fixture(autouse=True)
def no_key(monkeypatch):
    monkeypatch.delenv("LACONIC_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


@pytest.fixture
def waits(monkeypatch):
    """Seconds that would have been waited; nothing is."""
    found = []

    def note(self, seconds, stop):
        if stop.is_set():
            raise EndpointError("given up", fatal=True)
        found.append(round(seconds, 2))

    monkeypatch.setattr(Endpoint, "_wait", note)
    monkeypatch.setattr(random, "uniform", lambda a, b: b)
    return found


@pytest.mark.parametrize(
    ("base", "address"),
    [
        ("http://h:1", "http://h:1/v1/chat/completions"),
        ("http://h:1/", "http://h:1/v1/chat/completions"),
        ("http://h:1/v1", "http://h:1/v1/chat/completions"),
        ("http://h:1/v1/chat/completions", "http://h:1/v1/chat/completions"),
        ("https://h/api", "https://h/api/v1/chat/completions"),
        ("https://h/v1beta/openai/", "https://h/v1beta/openai/chat/completions"),
    ],
)
def test_base_urls(base, address):
    with Endpoint(base, "m") as endpoint:
        assert endpoint.url == address


@pytest.mark.parametrize(
    "url",
    [
        "localhost:8000",
        "ftp://h",
        "",
        "http://h:x",
        "http://[",
        f"user:{KEY}@h",
        f"https://user:{KEY}@h",
        f"https://h?key={KEY}",
    ],
)
def test_bad_urls_get_advice_and_show_no_key(url):
    with pytest.raises(InputError, match="pass for example|LACONIC_API_KEY") as caught:
        Endpoint(url, "m")
    assert KEY not in str(caught.value)


@pytest.mark.parametrize("setting", [{"concurrency": 0}, {"retries": -1}, {"per_minute": 0}, {"timeout": 0}])
def test_bad_settings_name_the_value(setting):
    with pytest.raises(InputError, match=f"{next(iter(setting))} must be"):
        Endpoint("http://h", "m", **setting)


def test_an_answer():
    with Teacher() as teacher, Endpoint(teacher.url, "m") as endpoint:
        answer = endpoint.complete(ask(), max_tokens=7)
    assert answer == Completion("cat sat.", 100, 2, "stop", cached=False)
    assert teacher.seen == [{"model": "m", "messages": ask(), "max_tokens": 7, "temperature": 0.0}]


def test_answers_come_in_the_order_of_the_requests():
    texts = [f"The number {k}." for k in range(20)]
    with Teacher(["slow", "ok", "ok", "slow"]) as teacher, Endpoint(teacher.url, "m") as endpoint:
        assert [a.text for a in endpoint.complete_many(map(ask, texts))] == [f"number {k}." for k in range(20)]


def test_requests_are_drawn_as_needed():
    drawn = []
    with Teacher() as teacher, Endpoint(teacher.url, "m", concurrency=2) as endpoint:
        answers = endpoint.complete_many(drawn.append(k) or ask(str(k)) for k in range(1000))
        next(answers)
        answers.close()
    assert len(drawn) <= 8
    assert len(teacher.seen) <= 8


def test_requests_run_at_the_same_time():
    with Teacher(["slow"] * 4) as teacher, Endpoint(teacher.url, "m", concurrency=4) as endpoint:
        next(endpoint.complete_many(ask(str(k)) for k in range(4)))
        assert len(teacher.seen) == 4


@pytest.mark.parametrize("trouble", ["500", "429", "truncated", "dropped", "html", "no-choices"])
def test_passing_trouble_is_retried(waits, trouble):
    with Teacher([trouble, trouble]) as teacher, Endpoint(teacher.url, "m") as endpoint:
        assert endpoint.complete(ask()).text == "cat sat."
        assert len(teacher.seen) == 3


def test_slow_answers_time_out_and_are_asked_again(waits):
    with Teacher(["slow"]) as teacher, Endpoint(teacher.url, "m", timeout=0.1) as endpoint:
        assert endpoint.complete(ask()).text == "cat sat."
        assert len(teacher.seen) == 2


def test_waits_double(waits):
    with (
        Teacher(["500"] * 4) as teacher,
        Endpoint(teacher.url, "m", retries=3) as endpoint,
        pytest.raises(EndpointError, match="no answer in 4 tries: 500 the server had an error"),
    ):
        endpoint.complete(ask())
    assert [w for w in waits if w] == [1, 2, 4]


def test_retry_after_holds_for_all_requests():
    with Teacher(["429"]) as teacher, Endpoint(teacher.url, "m") as endpoint:
        began = time.monotonic()
        endpoint.complete(ask())
        endpoint.complete(ask("other"))
        assert time.monotonic() - began >= 0.05


def test_retry_after_is_seconds_or_a_date():
    assert _retry_after("2.5") == 2.5
    assert _retry_after("Wed, 21 Oct 2015 07:28:00 GMT") == 0
    assert _retry_after("soon") is None
    assert _retry_after(None) is None


def test_a_limit_for_the_day_ends_the_run(waits):
    with (
        Teacher(["429-long"]) as teacher,
        Endpoint(teacher.url, "m") as endpoint,
        pytest.raises(EndpointError, match="asks to wait 86400 s .*run again"),
    ):
        list(endpoint.complete_many([ask()]))
    assert len(teacher.seen) == 1


def test_pace(waits, monkeypatch):
    monkeypatch.setattr(time, "monotonic", lambda: 0.0)
    with Teacher() as teacher, Endpoint(teacher.url, "m", per_minute=30) as endpoint:
        for _ in range(3):
            endpoint.complete(ask())
    assert waits == [0, 2, 4]


def test_a_wrong_key_ends_the_run_and_stays_secret(waits):
    with (
        Teacher(key="another") as teacher,
        Endpoint(teacher.url, "m", key=KEY, concurrency=1) as endpoint,
        pytest.raises(EndpointError, match="refuses the key .401.*set LACONIC_API_KEY or OPENAI_API_KEY") as caught,
    ):
        list(endpoint.complete_many(ask(str(k)) for k in range(50)))
    assert caught.value.fatal
    assert KEY not in str(caught.value) and KEY not in repr(vars(endpoint)["_client"].headers)


def test_a_missing_key_says_so():
    with (
        Teacher(key=KEY) as teacher,
        Endpoint(teacher.url, "m") as endpoint,
        pytest.raises(EndpointError, match="a request without a key .401"),
    ):
        endpoint.complete(ask())


def test_the_key_comes_from_the_environment_ours_first(monkeypatch):
    with Teacher(key=KEY) as teacher:
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        with Endpoint(teacher.url, "m") as endpoint:
            endpoint.complete(ask())
        monkeypatch.setenv("OPENAI_API_KEY", "another")
        monkeypatch.setenv("LACONIC_API_KEY", f"{KEY}\n")
        with Endpoint(teacher.url, "m") as endpoint:
            endpoint.complete(ask())


def test_a_damaged_key_is_refused_unseen():
    with pytest.raises(InputError, match="copy it again") as caught:
        Endpoint("http://h", "m", key=f"{KEY}\nx")
    assert KEY not in str(caught.value)


def test_used_up_quota_ends_the_run_at_once(waits):
    with (
        Teacher(["quota"] * 9) as teacher,
        Endpoint(teacher.url, "m", concurrency=1) as endpoint,
        pytest.raises(EndpointError, match="quota .* is used up .*add credit"),
    ):
        list(endpoint.complete_many(ask(str(k)) for k in range(50)))
    assert len(teacher.seen) <= 4


def test_a_request_that_is_refused_fails_alone_and_is_not_retried(waits):
    with Teacher(["ok", "400", "ok"]) as teacher, Endpoint(teacher.url, "m", concurrency=1) as endpoint:
        first, second, third = endpoint.complete_many(ask(str(k)) for k in range(3))
    assert (first.text, third.text) == ("0", "2")
    assert "400: the passage is too long" in str(second)
    assert not second.fatal
    assert len(teacher.seen) == 3


def test_a_wrong_model_ends_the_run(waits):
    with (
        Teacher(["404"]) as teacher,
        Endpoint(teacher.url, "no-model") as endpoint,
        pytest.raises(EndpointError, match="check the address and the model's name 'no-model'"),
    ):
        list(endpoint.complete_many([ask()]))


def test_nobody_there_ends_the_run_soon(waits):
    with Teacher() as teacher:
        url = teacher.url
    with (
        Endpoint(url, "m", concurrency=1) as endpoint,
        pytest.raises(
            EndpointError, match="no answer in 3 tries.*check the address and that the server runs"
        ) as caught,
    ):
        list(endpoint.complete_many([ask()] * 50))
    assert caught.value.fatal


def test_ten_failures_in_a_row_end_the_run(waits):
    with (
        Teacher(["500"], again=True) as teacher,
        Endpoint(teacher.url, "m", retries=0, concurrency=1) as endpoint,
        pytest.raises(EndpointError, match="10 requests in a row failed; the last: .*500"),
    ):
        list(endpoint.complete_many(ask(str(k)) for k in range(50)))


def test_refused_requests_end_the_run_only_at_its_start(waits):
    with Teacher(["ok", *["400"] * 12]) as teacher, Endpoint(teacher.url, "m", concurrency=1) as endpoint:
        answers = list(endpoint.complete_many(ask(str(k)) for k in range(14)))
        assert [isinstance(a, EndpointError) for a in answers] == [False, *[True] * 12, False]
    with (
        Teacher(["400"] * 12) as teacher,
        Endpoint(teacher.url, "m", concurrency=1) as endpoint,
        pytest.raises(EndpointError, match="10 requests in a row failed; the last: .*400"),
    ):
        list(endpoint.complete_many(ask(str(k)) for k in range(50)))


def test_settings_that_a_model_does_not_know_are_left_out(waits):
    with Teacher(["no-temperature", "no-max-tokens"], again=True) as teacher, Endpoint(teacher.url, "m") as endpoint:
        for _ in range(3):
            assert endpoint.complete(ask(), max_tokens=9).text == "cat sat."
    assert teacher.seen[-1].keys() == {"model", "messages", "max_completion_tokens"}
    assert teacher.seen[-1]["max_completion_tokens"] == 9


@pytest.mark.parametrize("behaviour", ["refusal-field", "empty", "filtered"])
def test_an_answer_without_text_is_an_answer(behaviour):
    with Teacher([behaviour]) as teacher, Endpoint(teacher.url, "m") as endpoint:
        answer = endpoint.complete(ask())
    assert answer.text == ("I cannot assist with that." if behaviour == "refusal-field" else "")
    assert answer.finish == ("content_filter" if behaviour == "filtered" else "stop")


def test_lone_surrogates_can_be_sent_and_kept(tmp_path):
    with Teacher() as teacher, Endpoint(teacher.url, "m", cache=tmp_path / "c") as endpoint:
        assert endpoint.complete(ask("The \ud800.")).text == "\ud800."
        assert endpoint.complete(ask("The \ud800.")).cached


# Cache


def test_an_answer_is_paid_once(tmp_path):
    cache = tmp_path / "new" / "answers.sqlite"
    with Teacher() as teacher:
        with Endpoint(teacher.url, "m", cache=cache) as endpoint:
            assert endpoint.cached(ask()) is None
            first = endpoint.complete(ask())
        with Endpoint("http://elsewhere", "m", cache=cache) as endpoint:  # the URL does not matter
            assert endpoint.complete(ask()) == endpoint.cached(ask()) == Completion(**{**vars(first), "cached": True})
        with Endpoint(teacher.url, "m", cache=cache) as endpoint:
            assert not endpoint.complete(ask(), temperature=1.0).cached
            assert not endpoint.complete(ask(), max_tokens=5).cached
        with Endpoint(teacher.url, "n", cache=cache) as endpoint:
            assert not endpoint.complete(ask()).cached
    assert len(teacher.seen) == 4


def test_equal_requests_at_the_same_time_are_paid_once(tmp_path):
    with Teacher(["slow"]) as teacher, Endpoint(teacher.url, "m", cache=tmp_path / "c") as endpoint:
        answers = list(endpoint.complete_many([ask()] * 10))
    assert len(teacher.seen) == 1
    assert sorted(a.cached for a in answers) == [False] + [True] * 9


def test_errors_and_broken_answers_are_not_kept(tmp_path, waits):
    with Teacher(["400", "truncated"]) as teacher, Endpoint(teacher.url, "m", cache=tmp_path / "c") as endpoint:
        with pytest.raises(EndpointError):
            endpoint.complete(ask())
        assert endpoint.complete(ask()).text == "cat sat."


def test_answers_on_their_way_are_kept_when_the_caller_stops(tmp_path):
    with Teacher(["ok", "slow", "slow"]) as teacher, Endpoint(teacher.url, "m", cache=tmp_path / "c") as endpoint:
        answers = endpoint.complete_many(ask(str(k)) for k in range(40))
        next(answers)
        answers.close()
        kept = sum(endpoint.cached(ask(str(k))) is not None for k in range(40))
        assert kept == len(teacher.seen)


def test_processes_share_a_cache(tmp_path):
    code = (
        "import sys; from pathlib import Path; from laconic.endpoint import Endpoint\n"
        "with Endpoint(sys.argv[1], 'm', cache=Path(sys.argv[2])) as endpoint:\n"
        "    ask = lambda k: [{'role': 'user', 'content': f'<passage>\\n{k}\\n</passage>'}]\n"
        "    list(endpoint.complete_many(ask(k) for k in range(100)))"
    )
    with Teacher() as teacher:
        command = [sys.executable, "-c", code.replace("'user'", "'system', 'content': ''}, {'role': 'user'")]
        running = [subprocess.Popen([*command, teacher.url, str(tmp_path / "c")]) for _ in range(3)]
        assert [p.wait() for p in running] == [0, 0, 0]
    database = sqlite3.connect(tmp_path / "c")
    assert database.execute("SELECT count(*) FROM answers").fetchone() == (100,)
    database.close()


def test_a_file_that_is_no_cache_is_left_alone_and_nothing_is_asked(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("not a database, but long enough to be looked at" * 50)
    before = path.read_bytes()
    with Teacher() as teacher, Endpoint(teacher.url, "m", cache=path) as endpoint:
        for use in (endpoint.cached, endpoint.complete):
            with pytest.raises(InputError, match="cannot be the cache of answers .*pass another path"):
                use(ask())
    assert path.read_bytes() == before
    assert teacher.seen == []


def test_the_key_is_in_no_file(tmp_path):
    with Teacher() as teacher, Endpoint(teacher.url, "m", key=KEY, cache=tmp_path / "c") as endpoint:
        endpoint.complete(ask())
    assert not any(KEY.encode() in f.read_bytes() for f in tmp_path.iterdir())


def test_without_httpx_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "httpx", None)
    with pytest.raises(MissingExtraError, match=r"laconic\[distill\]"):
        Endpoint("http://h", "m")


def test_no_thread_stays():
    before = threading.active_count()
    with Teacher() as teacher, Endpoint(teacher.url, "m") as endpoint:
        list(endpoint.complete_many(ask(str(k)) for k in range(20)))
    time.sleep(0.05)
    assert threading.active_count() <= before + 1
