"""Models that speak chat completions (OpenAI, Gemini, ollama, and servers like them) behind the same pipeline.

The pipeline speaks Messages, from the cache key to the ledger row. So the translation stands at its very end, where all
parts have done their work: `part` says in the other wire's words what is asked, before it is sent, and refuses what
cannot be said; `transport` sends it through the openai SDK, and gives back what a Messages server would have said
(`answer`, `stream`, `refusal`). No part knows that another wire exists, and none is written twice.
"""
