"""What the benchmarks' command lines refuse."""

import pytest

pytest.importorskip("torch")

from benchmarks.__main__ import main


@pytest.mark.parametrize(
    "command",
    [
        "edges --rounds 0",
        "edges --pictures 0",
        "masks --pictures -1",
        "scaling --images 0",
        "scaling --rounds 0",
        "scaling --servers 0",
        "soak --minutes 0",
        "throughput --batch 1 0",
        "tiles --pictures 0",
        "tiles --rounds 0",
        "training --batch-size 0",
    ],
)
def test_counts_are_more_than_0(command: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as ended:
        main(command.split())
    assert ended.value.code == 2
    _, option, *_, count = command.split()
    assert f"argument {option}: {count} is not more than 0" in capsys.readouterr().err
