"""Bad input of all kinds, by the million: `make fuzz`.

A target is a function of bytes that gives them to one of our parsers and asserts what the parser promises: either an
answer that keeps its contract, or one of our own errors that says where and what. Three drivers make the bytes:
mutations of seeds, Hypothesis where structure matters, and libFuzzer by its coverage of our code where
`requirements-fuzz.txt` is installed. What they found stays in `tests/corpus`, and every test run replays it.
"""
