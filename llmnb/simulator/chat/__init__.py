"""The chat completions wire: `POST …/chat/completions` as OpenAI, Gemini's compatible endpoint and ollama speak it.

The same simulated model answers; only how it is asked, how it answers, what it refuses and what it counts is this
wire's own: `models` who serves, `request` what is asked, `prefix_cache` what was read before, `reply` and `wire` the
bytes.
"""
