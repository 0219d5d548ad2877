"""The proxy: what of a request is compressed, decided once, replayed for ever. docs/serve.md says what it changes.

the core      rewrite     a request's bytes in, the bytes to send out
              openai, anthropic, parts     which texts a request has, whose they are, its turns
              rules, literals, report      what may change; strings replaced in place; what was done and why not
              decisions, guard             what was decided, on disk; bounded time, a queue, rests
the network   proxy, upstreams, connections    a request on its way, and the answer byte for byte
              service, ledger, log, metrics    what the routes share, and what they tell
              app, config, reading, run, cli   routes, settings, processes, `laconic serve`
the page      page, api, openapi, static/      `/` and `POST /v1/compress`
beside it     recorded, replay, replay_cli     `laconic replay`
              restore                          `laconic restore`, `GET /v1/restore/{id}`
"""
