"""Texts that break things: strategies shared by the property tests."""

from __future__ import annotations

from hypothesis import strategies as st

FRAGMENTS = [
    "the", "cat", "sat", "on", "a", "mat", "and", "does", "not", "know", "why", *",.!?;:()'\"-",
    "don't", "3.75", "1,000", "$1,000.50", "50%", "2024-01-02T03:04:05Z", "v1.2.3", "snake_case", "a.b.c", "x=1",
    "https://example.com/a?b=c#d", "me@example.com", "/usr/local/bin", "C:\\Users\\me", "state-of-the-art", "U.S.",
    "我们", "今天", "去", "北京", "。", "，", "不", "ひらがな", "カタカナ", "한국어", "９月", "ＡＢＣ", "：", "ภาษาไทย",
    "e\u0301", "a\u0308\u0323", "हिन्दी", "שלום", "مرحبا", "\u200f", "\u202e", "👨\u200d👩\u200d👧", "👍🏽", "🇩🇪", "1️⃣",
    "\u200b", "\u200d", "\ufeff", "\ud800", "\udc00", "\x00", "\x1b[31m", "\u0301", "ﬁ", "ǅ", "²", "Ⅷ", "\u00ad",
    "\n", "\n\n", "\r\n", "\t", "  ", "    ", "\u00a0", "\u3000", "\u2028", "\v", "\n\n\n",
    "# ", "- ", "1. ", "> ", "```", "```python\n", "| a | b |", "|---|---|", "**", "`code`", "<b>", "</b>", "<br/>",
    '{"a": 1, "b": [1, 2, {"c": null}]}', "[]", "{", "}", "KEY=value", "ERROR", "INFO", "@@ -1,2 +1,2 @@", "+x", "-y",
    "Traceback (most recent call last):", '  File "a.py", line 1, in f', "ValueError: no", "USER: ", "...", "a" * 70,
]  # fmt: skip

words = st.lists(st.sampled_from(FRAGMENTS), max_size=40).flatmap(
    lambda parts: st.lists(st.sampled_from(["", " ", " ", "\n"]), min_size=len(parts), max_size=len(parts)).map(
        lambda gaps: "".join(p + g for p, g in zip(parts, gaps, strict=True))
    )
)
characters = st.text(st.characters(), max_size=60)  # every code point, lone surrogates too
texts = st.one_of(words, words, characters)
