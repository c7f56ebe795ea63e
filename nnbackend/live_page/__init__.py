"""The live page: a local web page on which a network learns step by step, on the real engine.

A `Session` trains in its own thread; `app` answers the browser. Nothing in the engine knows of it.
"""
