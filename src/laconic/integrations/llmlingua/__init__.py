"""A drop-in for `llmlingua.PromptCompressor`: same methods, same parameters, same keys in the results.

    from laconic.integrations.llmlingua import PromptCompressor

laconic does the work: spans of the original, one budget that is kept, facts whole. What each parameter means here is in
docs/dropin.md. With `use_llmlingua2=True, legacy=True` the decisions and strings are those of llmlingua 0.2.2, its bugs
included (`laconic.legacy`). A parameter that the package would silently ignore is refused unless it has its default.
"""

from laconic.integrations.llmlingua.compressor import PromptCompressor

__all__ = ["PromptCompressor"]
