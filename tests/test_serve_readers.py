"""Which texts of a request are parts, in all three protocols. Expected values are written by hand."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from laconic.serve.anthropic import messages
from laconic.serve.openai import chat, responses
from laconic.serve.parts import newest_user, turns
from laconic.serve.rewrite import READERS
from serving import PROTOCOLS, body, calls, tool

IMAGE = {"type": "image_url", "image_url": {"url": "data:x"}}


def parts(request):
    return [(p.path, p.role, p.kind, p.text, p.fixed, p.tool) for m in request.messages for p in m.parts]


def test_chat():
    call = {"id": "c1", "type": "function", "function": {"name": "read", "arguments": '{"a": "b"}'}}
    custom = {"id": "c2", "type": "custom", "custom": {"name": "shell", "input": "ls"}}
    request = {
        "messages": [
            {"role": "system", "content": "S"},
            {"role": "developer", "content": [{"type": "text", "text": "D"}]},
            {
                "role": "user",
                "name": "ann",
                "content": [{"type": "text", "text": "U"}, IMAGE, {"type": "new", "text": "?"}],
            },
            {"role": "assistant", "content": "A", "tool_calls": [call, custom], "refusal": None},
            {"role": "tool", "tool_call_id": "c1", "content": "T1"},
            {"role": "tool", "tool_call_id": "c2", "content": [{"type": "text", "text": "T2"}]},
            {"role": "function", "name": "old", "content": "F"},
            {"role": "critic", "content": "C"},
            {"role": "user", "content": "V"},
        ]
    }
    assert parts(chat(request)) == [
        (("messages", 2, "content", 0, "text"), "user", "user", "U", "", ""),
        (("messages", 4, "content"), "tool", "tool", "T1", "", "read"),
        (("messages", 5, "content", 0, "text"), "tool", "tool", "T2", "", "shell"),
        (("messages", 6, "content"), "tool", "tool", "F", "", "old"),
        (("messages", 8, "content"), "user", "user", "V", "", ""),
    ]


def test_responses():
    request = {
        "instructions": "S",
        "input": [
            {"role": "developer", "content": "D"},
            {"role": "user", "content": "U"},
            {
                "type": "message",
                "role": "user",
                "content": [{"type": "input_text", "text": "V"}, {"type": "input_file"}],
            },
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "A"}]},
            {"type": "reasoning", "summary": [{"type": "summary_text", "text": "R"}], "encrypted_content": "x"},
            {"type": "function_call", "call_id": "c1", "name": "read", "arguments": "{}"},
            {"type": "custom_tool_call", "call_id": "c2", "name": "shell", "input": "ls"},
            {"type": "function_call_output", "call_id": "c1", "output": "T1"},
            {"type": "custom_tool_call_output", "call_id": "c2", "output": [{"type": "input_text", "text": "T2"}]},
            {"type": "computer_call_output", "call_id": "c3", "output": {"type": "computer_screenshot"}},
            {"type": "brand_new", "text": "?"},
        ],
    }
    assert parts(responses(request)) == [
        (("input", 1, "content"), "user", "user", "U", "", ""),
        (("input", 2, "content", 0, "text"), "user", "user", "V", "", ""),
        (("input", 7, "output"), "tool", "tool", "T1", "", "read"),
        (("input", 8, "output", 0, "text"), "tool", "tool", "T2", "", "shell"),
    ]
    assert parts(responses({"input": "U"})) == [(("input",), "user", "user", "U", "", "")]


def test_messages():
    cited = {"enabled": True}
    request = {
        "system": [{"type": "text", "text": "S", "cache_control": {"type": "ephemeral"}}],
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "document", "title": "T", "source": {"type": "text", "media_type": "x", "data": "D1"}},
                    {"type": "document", "source": {"type": "content", "content": [{"type": "text", "text": "D2"}]}},
                    {"type": "document", "source": {"type": "content", "content": "D3"}},
                    {"type": "document", "source": {"type": "base64", "data": "QQ=="}},
                    {"type": "document", "source": {"type": "text", "data": "D4"}, "citations": cited},
                    {"type": "search_result", "source": "u", "title": "t", "content": [{"type": "text", "text": "R"}]},
                    {"type": "text", "text": "U"},
                    {"type": "image", "source": {"type": "base64", "data": "QQ=="}},
                ],
            },
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "H", "signature": "x"},
                    {"type": "text", "text": "A"},
                    {"type": "tool_use", "id": "t1", "name": "read", "input": {"content": "I"}},
                    {"type": "server_tool_use", "id": "s1", "name": "web_search", "input": {}},
                    {"type": "web_search_tool_result", "tool_use_id": "s1", "content": [{"type": "text", "text": "W"}]},
                ],
            },
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "t1", "content": "T1"},
                    {
                        "type": "tool_result",
                        "tool_use_id": "t2",
                        "is_error": True,
                        "content": [{"type": "text", "text": "T2"}, {"type": "image"}],
                    },
                    {
                        "type": "tool_result",
                        "tool_use_id": "t1",
                        "content": [
                            {"type": "search_result", "content": [{"type": "text", "text": "T3"}], "citations": cited},
                            {"type": "document", "source": {"type": "text", "data": "T4"}},
                        ],
                    },
                    {"type": "tool_result", "tool_use_id": "t1"},
                ],
            },
            {"role": "user", "content": "V"},
        ],
    }
    first, third = ("messages", 0, "content"), ("messages", 2, "content")
    assert parts(messages(request)) == [
        ((*first, 0, "source", "data"), "user", "document", "D1", "", ""),
        ((*first, 1, "source", "content", 0, "text"), "user", "document", "D2", "", ""),
        ((*first, 2, "source", "content"), "user", "document", "D3", "", ""),
        ((*first, 4, "source", "data"), "user", "document", "D4", "citations", ""),
        ((*first, 5, "content", 0, "text"), "user", "document", "R", "", ""),
        ((*first, 6, "text"), "user", "user", "U", "", ""),
        ((*third, 0, "content"), "tool", "tool", "T1", "", "read"),
        ((*third, 1, "content", 0, "text"), "tool", "tool", "T2", "error", ""),
        ((*third, 2, "content", 0, "content", 0, "text"), "tool", "document", "T3", "citations", "read"),
        ((*third, 2, "content", 1, "source", "data"), "tool", "document", "T4", "", "read"),
        (("messages", 3, "content"), "user", "user", "V", "", ""),
    ]


@pytest.mark.parametrize("read", [chat, responses, messages])
@pytest.mark.parametrize("request_", [{}, {"messages": "x", "input": 3}, {"messages": None, "input": None}])
def test_what_is_no_request_of_the_protocol(read, request_):
    assert read(request_) is None


CALLS = ["tool_calls", "id", "function", "custom", "name", "call_id", "tool_call_id", "tool_use_id", "output"]
FIELDS = ["role", "type", "content", "text", "source", "data", "citations", "previous_response_id", "input", *CALLS]
junk = st.recursive(
    st.none()
    | st.integers()
    | st.sampled_from(["user", "tool", "assistant", "text", "tool_result", "document", "content", "message"])
    | st.sampled_from(["function_call_output", "function_call", "input_text", "search_result", "tool_use"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(FIELDS),
            inner,
            max_size=5,
        )
    ),
    max_leaves=25,
)


@pytest.mark.parametrize("read", [chat, responses, messages])
@given(entries=st.lists(junk, max_size=5), more=junk)
def test_any_json_is_read_and_every_part_is_where_it_says(read, entries, more):
    request = {"messages": entries, "input": entries, "previous_response_id": more}
    for message in read(request).messages:
        for part in message.parts:
            found = request
            for step in part.path:
                found = found[step]
            assert found == part.text
    turns(read(request))


def key(read, request):
    return turns(read(request))[-1].key


def test_turns_are_what_stands_between_the_models_words():
    texts = [("user", "a"), ("user", "b"), ("assistant", "x"), ("tool", "c"), ("assistant", "y"), ("user", "d")]
    request = chat({"messages": [{"role": role, "content": text} for role, text in texts]})
    assert [([p.text for p in t.parts], t.answered) for t in turns(request)] == [
        (["a", "b"], True),
        (["c"], True),
        (["d"], False),
    ]
    assert newest_user(request).parts[0].text == "d"


def test_the_beginning_of_an_answer_at_the_end_answers_nothing_yet():
    request = messages({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "{"}]})
    assert [t.answered for t in turns(request)] == [False]


def test_a_key_stands_for_all_that_was_said_before():
    def request(*said):
        return {"messages": [{"role": "assistant" if t == "!" else "user", "content": t} for t in said]}

    kept = [request("a"), request("b"), request("a", "b"), request("b", "a"), request("a", "!", "b"), request("ab")]
    assert len({key(chat, r) for r in kept}) == len(kept)
    assert key(chat, kept[0]) != key(messages, kept[0])
    assert turns(chat(request("a", "!", "b")))[0].key == key(chat, request("a"))
    previous = [{"input": "a", "previous_response_id": p} for p in (None, "r1", "r2")]
    assert len({key(responses, r) for r in previous}) == 3


MARK = {"cache_control": {"type": "ephemeral"}}


def test_a_key_does_not_change_with_what_clients_change_between_requests():
    said = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "x"}, {"role": "user", "content": "b"}]
    plain = key(messages, {"messages": said})
    marked = json.loads(json.dumps(said))
    marked[0]["content"] = [{"type": "text", "text": "a", **MARK}]
    marked[1]["content"] = [{"type": "text", "text": "x "}]
    assert key(messages, {"messages": marked}) == plain
    timed = [{"role": "system", "content": "It is 12:00."}, *said]
    assert key(chat, {"messages": timed}) == key(chat, {"messages": said})


def test_a_key_tells_tools_apart():
    def request(name):
        call = {"id": "c", "function": {"name": name}}
        return {
            "messages": [
                {"role": "assistant", "tool_calls": [call]},
                {"role": "tool", "tool_call_id": "c", "content": "x"},
            ]
        }

    assert key(chat, request("read")) != key(chat, request("write"))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_an_id_that_is_used_again_changes_nothing_before(protocol):
    said = [calls(protocol, "read"), tool(protocol, "x"), calls(protocol, "write"), tool(protocol, "x")]
    request = READERS[protocol](json.loads(body(protocol, said)))
    assert [p.tool for m in request.messages for p in m.parts] == ["read", "write"]
    early = READERS[protocol](json.loads(body(protocol, said[:2])))
    assert turns(early)[0].key == turns(request)[0].key
