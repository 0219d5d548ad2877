"""The proxy: what of a request is compressed, decided once, replayed for ever; its network, its page, its commands.

`Rewriter` (rewrite.py) takes the bytes of a request and gives back those to send; docs/serve.md says what it changes.
"""
