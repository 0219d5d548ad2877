"""What is changed in a request, what never, and that what was sent is sent again."""

from __future__ import annotations

import dataclasses
import itertools
import json
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import laconic
import serving
from laconic.errors import InputError
from laconic.serve.decisions import Decisions
from laconic.serve.guard import Deadline
from laconic.serve.report import REASONS, WHOLE
from laconic.serve.rewrite import Rewriter
from laconic.serve.rules import Rules
from serving import POISON, PROTOCOLS, Fickle, body, calls, entries, long, says, tool, user

RULES = Rules(floor=20)
every = pytest.mark.parametrize("protocol", PROTOCOLS)


@pytest.fixture
def decisions(tmp_path):
    with Decisions(tmp_path / "decisions.sqlite") as made:
        yield made


@pytest.fixture
def rewriter(decisions):
    return Rewriter(Fickle(), RULES, decisions)


def reasons(rewritten):
    return [part.reason for part in rewritten.report.parts]


def text_of(entry):
    """The one text of a message or item."""
    found = entry.get("output", entry.get("content"))
    if isinstance(found, list):
        found = found[0].get("text", found[0].get("content"))
    return found


def changes(before, after, path=()):
    """Paths where two parsed values differ; only strings may."""
    if isinstance(before, dict) and isinstance(after, dict) and list(before) == list(after):
        return [p for key in before for p in changes(before[key], after[key], (*path, key))]
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        return [p for k in range(len(before)) for p in changes(before[k], after[k], (*path, k))]
    if type(before) is type(after) and before == after:
        return []
    assert isinstance(before, str) and isinstance(after, str), path
    return [path]


@every
def test_a_long_result_of_a_tool_is_compressed_at_first_sight(rewriter, protocol):
    said = [user(protocol, long("u")), calls(protocol), tool(protocol, long("t")), tool(protocol, "ok")]
    rewritten = rewriter.rewrite(protocol, body(protocol, said, tools=[{"description": long("d")}]), {})
    sent = entries(protocol, rewritten.body)
    assert sent[:2] == said[:2] and sent[3] == said[3]
    assert text_of(sent[2]).endswith("t18 t19") and text_of(sent[2]).startswith("#")
    assert reasons(rewritten) == ["sent", "compressed", "short"]
    report = rewritten.report
    assert (report.tokens_before, report.tokens_after, report.saved) == (121, 82, 39)
    assert report.to_dict()["tokens_after"] == 82 and report.to_dict()["parts"][1]["tokens_after"] == 21


@every
def test_what_was_sent_is_sent_again_and_the_newest_turn_stays_as_it_was(rewriter, protocol):
    said = [user(protocol, long("u")), calls(protocol), tool(protocol, long("t"))]
    first = entries(protocol, rewriter.rewrite(protocol, body(protocol, said), {}).body)
    said += [says(protocol, "a"), user(protocol, long("v")), says(protocol, long("b")), user(protocol, "and?")]
    rewritten = rewriter.rewrite(protocol, body(protocol, said), {"x-laconic-rate": "0.1"})
    second = entries(protocol, rewritten.body)
    assert second[:3] == first and second[3:] == said[3:]
    assert reasons(rewritten) == ["sent", "compressed", "sent", "newest"]
    assert [part.new for part in rewritten.report.parts] == [False, False, True, True]


@every
def test_a_history_that_is_not_known_was_sent_by_others(rewriter, protocol):
    said = [user(protocol, long("u")), calls(protocol), tool(protocol, long("t")), says(protocol, "a")]
    original = body(protocol, [*said, user(protocol, long("v"))])
    rewritten = rewriter.rewrite(protocol, original, {})
    assert rewritten.body is original
    assert reasons(rewritten) == ["sent", "sent", "newest"]
    assert not rewriter.compressor.calls


@every
def test_what_the_user_said_before_is_compressed_for_the_question(rewriter, protocol):
    question = "Thanks.\n\nWho signed it?"
    said = [user(protocol, long("u")), tool(protocol, long("t")), user(protocol, question)]
    rewritten = rewriter.rewrite(protocol, body(protocol, said), {})
    assert reasons(rewritten) == ["compressed", "compressed", "newest"]
    asked = {text: options["question"] for text, options in rewriter.compressor.calls}
    assert asked == {long("u"): "Who signed it?", long("t"): None}  # a tool answers its call, not the user


@pytest.mark.parametrize(
    ("rules", "reads", "newest"),
    [(Rules(floor=20, question=False), True, "Why?"), (RULES, False, "Why?"), (RULES, True, "Do it. See x.org/?a=b")],
)
def test_no_question_is_read_where_there_is_none(decisions, rules, reads, newest):
    rewriter = Rewriter(Fickle(reads_question=reads), rules, decisions)
    rewriter.rewrite("chat", body("chat", [user("chat", long("u")), user("chat", newest)]), {})
    assert [options["question"] for _, options in rewriter.compressor.calls] == [None]


def test_each_conversation_keeps_the_question_its_document_was_first_sent_with(rewriter):
    def sent(*said):
        rewritten = rewriter.rewrite("chat", body("chat", said), {})
        return entries("chat", rewritten.body)[0]["content"]

    document = user("chat", long("d"))
    one, two = [document, user("chat", "Who?")], [document, user("chat", "When?")]
    first = [sent(*one), sent(*two)]
    assert first[0] != first[1]
    assert {options["question"] for _, options in rewriter.compressor.calls} == {"Who?", "When?"}
    more = [says("chat", "x"), user("chat", "Where?")]
    assert [sent(*one, *more), sent(*two, *more)] == first


def test_the_newest_turn_may_be_compressed_where_the_rules_say_so(decisions):
    rewriter = Rewriter(Fickle(), Rules(floor=20, parts=("newest",)), decisions)
    said = [user("chat", long("u")), user("chat", long("v"))]
    assert reasons(rewriter.rewrite("chat", body("chat", said), {})) == ["off", "compressed"]


@every
def test_a_turn_that_grows_before_it_is_answered_keeps_what_was_sent(rewriter, protocol):
    said = [user(protocol, long("u")), tool(protocol, long("t"))]
    first = rewriter.rewrite(protocol, body(protocol, said), {})
    assert reasons(first) == ["newest", "compressed"]
    said += [tool(protocol, long("s")), user(protocol, "go")]
    second = rewriter.rewrite(protocol, body(protocol, said), {})
    assert reasons(second) == ["newest", "compressed", "compressed", "newest"]
    assert [part.new for part in second.report.parts] == [False, False, True, True]
    assert entries(protocol, second.body)[:2] == entries(protocol, first.body)
    said += [says(protocol, "a"), user(protocol, "more")]
    third = entries(protocol, rewriter.rewrite(protocol, body(protocol, said), {}).body)
    assert third[:4] == entries(protocol, second.body)


def test_markers_of_the_cache_may_wander(rewriter):
    mark = {"cache_control": {"type": "ephemeral"}}

    def said(old, new):
        result = {"type": "tool_result", "tool_use_id": "c1", "content": long("t"), **old}
        first = {"role": "user", "content": [result, {"type": "text", "text": "go", **old}]}
        return [first, says("messages", "a"), {"role": "user", "content": [{"type": "text", "text": "on", **new}]}]

    first = entries("messages", rewriter.rewrite("messages", body("messages", said(mark, {})[:1]), {}).body)
    second = entries("messages", rewriter.rewrite("messages", body("messages", said({}, mark)), {}).body)
    assert first[0]["content"][0]["content"] == second[0]["content"][0]["content"] != long("t")
    assert second[2] == said({}, mark)[2]


@pytest.mark.parametrize("text", [f"<laconic-keep>{long('t')}</laconic-keep>"])
def test_a_tag_leaves_a_part_alone(rewriter, text):
    original = body("chat", [tool("chat", text)])
    rewritten = rewriter.rewrite("chat", original, {})
    assert (rewritten.body, reasons(rewritten)) == (original, ["tag"])


@every
def test_what_was_retrieved_is_not_compressed_again(rewriter, protocol):
    said = [calls(protocol, "laconic_retrieve"), tool(protocol, long("t"))]
    assert reasons(rewriter.rewrite(protocol, body(protocol, said), {})) == ["tool"]


def test_errors_and_cited_documents_stay(rewriter):
    content = [
        {"type": "tool_result", "tool_use_id": "c", "is_error": True, "content": long("t")},
        {"type": "document", "source": {"type": "text", "data": long("d")}, "citations": {"enabled": True}},
        {"type": "document", "source": {"type": "text", "data": long("e")}},
        {"type": "text", "text": long("u")},
    ]
    original = body("messages", [{"role": "user", "content": content}])
    rewritten = rewriter.rewrite("messages", original, {})
    assert reasons(rewritten) == ["error", "citations", "compressed", "newest"]
    assert changes(json.loads(original), json.loads(rewritten.body)) == [
        ("messages", 0, "content", 2, "source", "data")
    ]


def test_one_budget_is_shared_by_what_is_new(decisions):
    rewriter = Rewriter(Fickle(), RULES, decisions)
    said = [tool("chat", long("t", 90)), tool("chat", long("s", 30)), tool("chat", "short")]
    rewriter.rewrite("chat", body("chat", said), {"x-laconic-tokens": "40"})
    assert [options["tokens"] for _, options in rewriter.compressor.calls] == [30, 10]
    fits = rewriter.rewrite("chat", body("chat", [tool("chat", long("r", 40))]), {"x-laconic-tokens": "40"})
    assert reasons(fits) == ["fits"]


def test_rate_and_protected_expressions_reach_the_compressor(decisions):
    rewriter = Rewriter(Fickle(), Rules(floor=20, protect=("t1",)), decisions)
    rewriter.rewrite("chat", body("chat", [tool("chat", long("t"))]), {"x-laconic-rate": "0.25"})
    assert rewriter.compressor.calls == [(long("t"), {"question": None, "protect": ("t1",), "rate": 0.25})]


@pytest.mark.parametrize(
    ("kept", "gain", "reason"),
    [
        (20, 0.1, "compressed"),
        (54, 0.1, "compressed"),
        (55, 0.1, "gain"),
        (60, 0, "gain"),
        (61, 0, "gain"),
        (0, 0, "empty"),
    ],
)
def test_a_part_changes_only_where_it_is_worth_it(decisions, kept, gain, reason):
    compressor = Fickle()
    compressor.compress = lambda text, **_: type("C", (), {"text": "x " * kept, "tokens_after": kept})
    original = body("chat", [tool("chat", long("t", 60))])
    rewritten = Rewriter(compressor, Rules(floor=20, gain=gain), decisions).rewrite("chat", original, {})
    assert reasons(rewritten) == [reason]
    assert (rewritten.body == original) == (reason != "compressed")
    assert rewritten.report.tokens_after == (kept if reason == "compressed" else 60)


def test_a_compressor_that_fails_fails_no_request(rewriter):
    said = [tool("chat", long(POISON)), tool("chat", long("t"))]
    for _ in range(2):
        rewritten = rewriter.rewrite("chat", body("chat", said), {})
        assert reasons(rewritten) == ["failed", "compressed"]
        assert entries("chat", rewritten.body)[0] == said[0]
    assert len(rewriter.compressor.calls) == 2  # it is not tried again: the part was sent


def test_bypass_sends_the_request_as_it_came_and_remembers_what_was_sent(rewriter):
    said = [tool("chat", long("t"))]
    first = rewriter.rewrite("chat", body("chat", said), {})
    said += [says("chat", "a"), tool("chat", long("s"))]
    original = body("chat", said)
    bypassed = rewriter.rewrite("chat", original, {"X-Laconic-Bypass": "1"})
    assert bypassed.body is original and bypassed.report.whole == "bypass"
    said += [says("chat", "b"), tool("chat", long("r"))]
    third = rewriter.rewrite("chat", body("chat", said), {})
    sent = entries("chat", third.body)
    assert sent[0] == entries("chat", first.body)[0] and sent[1:4] == said[1:4] and sent[4] != said[4]
    assert reasons(third) == ["compressed", "bypass", "compressed"]


def test_what_was_too_late_is_left_alone_for_ever_whoever_comes_first(decisions):
    """A server that runs out of time asks again without any, while the first thread is still at work."""
    slow, original, answers = Fickle(), body("chat", [tool("chat", long("t"))]), []
    compress = slow.compress

    def interrupted(text, **options):
        answers.append(Rewriter(Fickle(), RULES, decisions).rewrite("chat", original, {}, Deadline(0)))
        return compress(text, **options)

    slow.compress = interrupted
    late = Rewriter(slow, RULES, decisions).rewrite("chat", original, {})
    assert answers[0].body == late.body == original
    assert reasons(answers[0]) == reasons(late) == ["late"]


def test_without_time_what_was_decided_is_replayed(rewriter):
    said = [tool("chat", long("t"))]
    first = rewriter.rewrite("chat", body("chat", said), {})
    again = rewriter.rewrite("chat", body("chat", [*said, says("chat", "a"), tool("chat", long("s"))]), {}, Deadline(0))
    assert entries("chat", again.body)[0] == entries("chat", first.body)[0]
    assert reasons(again) == ["compressed", "late"]


def test_who_gives_up_waiting_has_the_last_word(rewriter):
    """The thread's work is dropped, even if nothing else was written down since."""
    original, deadline = body("chat", [tool("chat", long("t"))]), Deadline()
    rewriter.compressor.meanwhile = deadline.claim
    dropped = rewriter.rewrite("chat", original, {}, deadline)
    assert (dropped.body, dropped.report.whole) == (original, "late")
    later = body("chat", [tool("chat", long("t")), says("chat", "a"), user("chat", "on")])
    assert rewriter.rewrite("chat", later, {}).body == later


def test_a_thread_that_has_written_down_what_is_to_be_sent_is_waited_for(rewriter):
    deadline = Deadline()
    assert reasons(rewriter.rewrite("chat", body("chat", [tool("chat", long("t"))]), {}, deadline)) == ["compressed"]
    assert not deadline.claim()


def test_a_deadline_leaves_alone_what_is_not_compressed_by_then(decisions):
    """Parts before stay compressed; a compressor that reports its progress is stopped in the middle."""

    class Slow(Fickle):
        def compress(self, text, *, progress, **options):
            if "s1" in text:
                deadline._end = 0.0
                progress(1)
            return super().compress(text, progress=progress, **options)

    deadline = Deadline()
    said = [tool("chat", long(name)) for name in "tsr"]
    rewritten = Rewriter(Slow(), RULES, decisions).rewrite("chat", body("chat", said), {}, deadline)
    assert reasons(rewritten) == ["compressed", "late", "late"]


@every
def test_what_the_upstream_rejects_is_whole_from_then_on_and_what_it_accepted_stays(rewriter, protocol):
    said = [tool(protocol, long("t"))]
    first = entries(protocol, rewriter.rewrite(protocol, body(protocol, said), {}).body)
    said += [tool(protocol, long("s")), user(protocol, "go")]
    rejected = rewriter.rewrite(protocol, body(protocol, said), {})
    assert reasons(rejected) == ["compressed", "compressed", "newest"]
    rewriter.withdraw(rejected)
    for more in ([], [says(protocol, "a"), user(protocol, "on")]):
        again = rewriter.rewrite(protocol, body(protocol, said + more), {})
        assert reasons(again)[:3] == ["compressed", "rejected", "newest"]
        assert entries(protocol, again.body)[:3] == [*first, *said[1:3]]
        assert not again.undo


def test_only_what_is_new_can_be_withdrawn(rewriter):
    original = body("chat", [tool("chat", long("t"))])
    first = rewriter.rewrite("chat", original, {})
    assert first.undo and not rewriter.rewrite("chat", original, {}).undo
    assert not rewriter.rewrite("chat", body("chat", [user("chat", "hi")]), {}).undo


def test_workers_that_decide_at_the_same_moment_end_with_one(tmp_path):
    workers, rounds, sent = 6, 5, [[] for _ in range(5)]
    together = threading.Barrier(workers)

    class Waiting(Fickle):
        def compress(self, text, **options):
            together.wait(60)  # so that nobody finds what another one decided
            return super().compress(text, **options)

    def work():
        with Decisions(tmp_path / "decisions.sqlite") as decisions:
            rewriter = Rewriter(Waiting(), RULES, decisions)
            for k in range(rounds):
                said = [tool("chat", long(f"t{k}")), user("chat", long("u")), user("chat", f"Who is {k}?")]
                sent[k].append(rewriter.rewrite("chat", body("chat", said), {}).body)
            assert len(rewriter.compressor.calls) == 2 * rounds

    threads = [threading.Thread(target=work) for _ in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [len(bodies) for bodies in sent] == [workers] * rounds
    assert [len(set(bodies)) for bodies in sent] == [1] * rounds


def test_the_original_comes_back_by_the_id_of_the_report(rewriter, decisions):
    rewritten = rewriter.rewrite("chat", body("chat", [tool("chat", long("t")), tool("chat", "no")]), {})
    compressed, left = rewritten.report.parts
    assert decisions.restore(compressed.id) == long("t")
    assert left.id == ""


def test_the_report_holds_no_contents(rewriter):
    said = [user("chat", long("secret")), tool("chat", long("secret")), user("chat", "secret?")]
    rewritten = rewriter.rewrite("chat", body("chat", said), {"x-laconic-rate": "0.4"})
    assert "secret" not in json.dumps(rewritten.report.to_dict())
    assert {part.reason for part in rewritten.report.parts} <= REASONS.keys()


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (b"", "malformed"),
        (b"\xff\xfe", "encoding"),
        (b"[" * 200 + b"]" * 200, "deep"),
        (b'"' + b"x" * 2000 + b'"', "large"),
        (b"[]", "foreign"),
        (b'{"prompt": "x"}', "foreign"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
@every
def test_what_cannot_be_read_is_forwarded_as_it_came(decisions, protocol, wrong, why):
    rewritten = Rewriter(Fickle(), Rules(largest=1000), decisions).rewrite(protocol, wrong, {"x-laconic-rate": "7"})
    assert rewritten.body is wrong and rewritten.report.whole == why and why in WHOLE
    assert len(rewritten.report.notes) == 1


def test_a_protocol_that_is_unknown_is_the_callers_mistake(rewriter):
    with pytest.raises(InputError, match="protocol must be one of chat, responses, messages, got 'x'"):
        rewriter.rewrite("x", b"{}", {})


@every
@settings(max_examples=200, deadline=None)
@given(
    data=st.binary() | st.text().map(str.encode) | st.from_regex(rb'\{"(messages|input)": ?\[[\[\]{}",:0-9a-z]*\]\}')
)
def test_any_bytes_are_answered(protocol, data):
    rewriter = Rewriter(Fickle(), RULES, Forgetful())
    assert rewriter.rewrite(protocol, data, {}).body == data


class Forgetful:
    """A store that knows nothing and cannot be written."""

    def turns(self, keys):
        return {}

    verdicts = turns

    def settle(self, turns, verdicts):
        raise InputError("the disk is full")


def test_without_a_store_that_can_be_written_nothing_new_changes():
    original = body("chat", [tool("chat", long("t")), user("chat", "x")])
    rewritten = Rewriter(Fickle(), RULES, Forgetful()).rewrite("chat", original, {})
    assert rewritten.body is original and reasons(rewritten) == ["store", "newest"]


def test_a_full_disk_still_replays(decisions, rewriter):
    said = [tool("chat", long("t"))]
    first = rewriter.rewrite("chat", body("chat", said), {})
    decisions.settle = Forgetful().settle
    said += [tool("chat", long("s"))]
    second = rewriter.rewrite("chat", body("chat", said), {})
    assert entries("chat", second.body) == [*entries("chat", first.body), said[1]]
    assert reasons(second) == ["compressed", "store"]


def test_a_store_that_cannot_be_read_changes_nothing(tmp_path):
    path = tmp_path / "decisions.sqlite"
    path.write_bytes(b"damaged" * 1000)
    original = body("chat", [tool("chat", long("t"))])
    rewritten = Rewriter(Fickle(), RULES, Decisions(path)).rewrite("chat", original, {})
    assert rewritten.body is original and rewritten.report.whole == "store"


def test_a_real_compressor_reads_the_question(decisions):
    rewriter = Rewriter(laconic.load(method="bm25"), Rules(floor=20, rate=0.2), decisions)
    facts = "It rained in Lisbon all day. Ann bakes bread in Oslo. The train was late again. Bo reads old maps. " * 2
    said = [user("chat", facts), user("chat", "Who bakes bread?")]
    rewritten = rewriter.rewrite("chat", body("chat", said), {})
    assert entries("chat", rewritten.body)[0]["content"].startswith("Ann bakes bread in Oslo.")


# Growing conversations

TEXTS = {
    "short": "yes",
    "long": long("w"),
    "other": long("o"),
    "question": f"{long('q')}\n\nWho was it?",
    "tagged": f"<laconic-keep> {long('k')}",
    "poison": long(POISON),
    "awkward": long('é"\\\n\ud800'.replace("\n", "\\n")) + " \u2028 \x00",
}
RULEBOOK = [
    RULES,
    Rules(floor=1, gain=0),
    Rules(floor=20, parts=("tool",), rate=0.9),
    Rules(floor=20, question=False, skip_tools=("*",)),
    Rules(floor=20, bypass=True),
    Rules(floor=20, tokens=30),
]
HEADERS = [{"x-laconic-rate": "0.1"}, {"x-laconic-bypass": "1"}, {"x-laconic-question": "off"}]
names = st.sampled_from(["long", "other", "question", *TEXTS])
messages = st.tuples(st.sampled_from(["user", "tool", "tool"]), names) | st.tuples(
    st.just("model"), st.sampled_from(["short", "long"])
)  # "long": a call, with the id that all calls have
conversation = st.integers(0, 1)
steps = st.fixed_dictionaries(
    {
        "in": conversation,
        "say": st.lists(messages, min_size=1, max_size=5),
        "fork": st.sampled_from([False, False, False, True]),
        "restart": st.sampled_from([False, False, False, True]),
        "rules": st.just(0) | st.integers(0, len(RULEBOOK) - 1),
        "headers": st.just({}) | st.just({}) | st.sampled_from(HEADERS),
        "fate": st.sampled_from(["sent"] * 5 + ["late", "given up", "rejected"]),
    }
)


@dataclasses.dataclass
class Sent:
    """A request that was sent: what was said, the bytes of each of its messages, and whether it was bypassed."""

    said: tuple
    raw: list
    bypassed: bool

    def begins(self, said):
        """Does this begin as `said`, whatever the model's words were? Then what comes next, else None."""
        mine, theirs = heard(self.said), heard(said)
        return (mine[len(theirs) :] or ["end"])[0] if mine[: len(theirs)] == theirs else None


def heard(said):
    """The messages, with "model" for each run of the model's words."""
    runs = itertools.groupby(said, key=lambda message: message[0] == "model")
    return [item for model, run in runs for item in (["model"] if model else run)]


@every
@settings(max_examples=150, deadline=None)
@given(steps=st.lists(steps, min_size=4, max_size=14), loose=st.booleans(), ascii=st.booleans())
def test_bytes_that_were_sent_never_change(tmp_path_factory, protocol, steps, loose, ascii):
    path = tmp_path_factory.mktemp("store") / "decisions.sqlite"
    stores = [Decisions(path), Decisions(path)]
    conversations, sent = [(), ()], []
    separators = (" ,", " : ") if loose else (",", ":")

    def raw(message):
        text = json.dumps(entry(protocol, *message), separators=separators, ensure_ascii=ascii)
        return text.replace("\ud800", "\\ud800").encode()

    for count, step in enumerate(steps):
        if step["restart"]:
            stores[0].close()
        if step["fork"]:
            conversations[step["in"]] = conversations[1 - step["in"]]
        conversations[step["in"]] += tuple(step["say"])
        said = conversations[step["in"]]
        head = b'{ "model" :"m", "%s": [' % serving.entry_key(protocol).encode()
        pieces = [raw(message) for message in said]
        original = head + b",\n".join(pieces) + b'], "n":1.00 }'
        rules, deadline = RULEBOOK[step["rules"]], Deadline(0 if step["fate"] == "late" else 60)
        impatient = deadline.claim if step["fate"] == "given up" else bool
        rewriter = Rewriter(Fickle(impatient), rules, stores[count % 2])
        rewritten = rewriter.rewrite(protocol, original, step["headers"], deadline)
        if rewritten.report.whole == "late":  # the thread's work is dropped, and this is what is sent
            rewritten = rewriter.rewrite(protocol, original, step["headers"], Deadline(0))
        if step["fate"] == "rejected":
            rewriter.withdraw(rewritten)
            rewritten = rewriter.rewrite(protocol, original, step["headers"])
        this = Sent(said, split(rewritten.body, head, len(said)), rewritten.report.whole == "bypass")
        check_never(this, pieces)
        for k, earlier in enumerate(sent):
            check_prefix(earlier, this, sent[:k])
        sent.append(this)
    for store in stores:
        store.close()


def entry(protocol, role, name):
    if role == "model":
        return calls(protocol) if name == "long" else says(protocol, TEXTS[name])
    return (user if role == "user" else tool)(protocol, TEXTS[name])


def split(sent, head, count):
    """The bytes of each message, where the client's separators stand between them."""
    assert sent.startswith(head) and sent.endswith(b'], "n":1.00 }')
    text, position, found = sent.decode(), len(head), []
    for k in range(count):
        _, end = json.JSONDecoder().raw_decode(text, position)
        found.append(text[position:end].encode())
        assert k == count - 1 or text[end : end + 2] == ",\n"
        position = end + 2
    return found


def check_never(this, pieces):
    """The model's words, the newest user turn, marked, short and failing texts are the client's own bytes."""
    users = [k for k, (role, _) in enumerate(this.said) if role == "user"]
    for k, (role, name) in enumerate(this.said):
        if role == "model" or k == (users or [-1])[-1] or name in ("tagged", "poison", "short") or this.bypassed:
            assert this.raw[k] == pieces[k]
        else:
            before, after = json.loads(pieces[k]), json.loads(this.raw[k])
            assert len(changes(before, after)) <= 1
            assert after == before or text_of(after).startswith("#")


def check_prefix(earlier, this, before):
    """A request that continues an earlier one begins with its bytes."""
    n = len(earlier.said)
    if this.bypassed or this.said[:n] != earlier.said:
        return
    turn = max((k + 1 for k in range(n) if earlier.said[k][0] == "model"), default=0)
    grows = this.said[n : n + 1] and this.said[n][0] != "model"
    longer = any(other.begins(earlier.said) not in (None, "end", "model") for other in before)
    for k in range(n):
        if earlier.bypassed and any(other.begins(earlier.said[: k + 1]) for other in before):
            continue  # it was sent as it came in place of what had been sent before
        if k >= turn and grows and longer:
            continue  # the longer turn was sent before the shorter one
        assert this.raw[k] == earlier.raw[k], (k, earlier, this)
