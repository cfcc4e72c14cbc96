"""Reads what `t2l train plot RUN --tensorboard` wrote with TensorBoard's own reader and compares it with the run's metrics.

    pip install tensorboard
    python interop/tensorboard_events.py RUN
"""

import json
import sys
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


def main() -> None:
    run = Path(sys.argv[1])
    events = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0}).Reload()
    expected: dict[str, list[tuple[int, float]]] = {}
    for line in (run / "metrics.jsonl").read_text().splitlines():
        entry = json.loads(line)
        step = entry.pop("step")
        for name, value in entry.items():
            expected.setdefault(name, []).append((step, value))
    assert sorted(events.Tags()["scalars"]) == sorted(expected), events.Tags()
    count = 0
    for name, points in expected.items():
        found = [(e.step, e.value) for e in events.Scalars(name)]
        assert len(found) == len(points), name
        for (step, value), (found_step, found_value) in zip(points, found):
            assert step == found_step and abs(value - found_value) <= 1e-6 * abs(value), (name, step)
            count += 1
    print(f"{count} values of {len(expected)} curves are as in metrics.jsonl")


main()
