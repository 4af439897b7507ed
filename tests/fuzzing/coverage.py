"""`python -m tests.fuzzing.coverage`: inputs for one target by libFuzzer, which sees what of our code they reach."""

import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(
    include=["app"], exclude=[f"app.detectors.{path.stem}" for path in Path("app/detectors").glob("kernels_*.py")]
):
    from tests.fuzzing.inputs import BYTES, LONGEST
    from tests.fuzzing.targets import TARGETS

_LONGEST_WORD = 60


def main() -> None:
    """Arguments: the target, inputs, seconds, seed, and the folder of findings. libFuzzer ends the process."""
    name, inputs, seconds, seed, findings = sys.argv[1:]
    target = TARGETS[name]
    corpus = Path(findings) / f"{name}.corpus"
    corpus.mkdir()
    words = corpus / "words"
    for number, data in enumerate(target.seeds()):
        (corpus / f"{number}").write_bytes(data)
    tokens = (
        "".join(f"\\x{byte:02x}" for byte in token)
        for token in (*BYTES, *target.tokens)
        if 0 < len(token) < _LONGEST_WORD
    )
    words.write_text("".join(f'"{token}"\n' for token in tokens))
    options = {
        "runs": inputs,
        "max_total_time": seconds,
        "seed": max(int(seed), 1),  # 0 is any
        "max_len": LONGEST,
        "timeout": 20,
        "rss_limit_mb": 4_096,
        "artifact_prefix": f"{findings}/{name}-",
        "dict": words,
        "print_final_stats": 1,
    }

    def check(data: bytes) -> None:
        target.check(data)

    atheris.Setup([sys.argv[0], *(f"-{key}={value}" for key, value in options.items()), str(corpus)], check)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
