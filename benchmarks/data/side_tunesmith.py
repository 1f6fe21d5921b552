"""Our side: the same files to a frozen snapshot, by the recipe's own data part. `python side_tunesmith.py orders.json`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tunesmith.data import DataConfig, freeze
from tunesmith.store import Store


def main() -> None:
    """Freeze, and say how many rows are left."""
    orders = json.loads(Path(sys.argv[1]).read_text())
    config = DataConfig.model_validate(
        {
            "sources": [{"path": str(Path(orders["rows"]) / "*.jsonl")}],
            "clean": [{"length": {"min_characters": 20}}, "exact_duplicates", "near_duplicates"],
            "split": {"validation": 0.01, "test": 0.01},
        }
    )
    snapshot = freeze(config, folder=Path(orders["work"]), store=Store(Path(orders["out"])))
    print(json.dumps({"kept": sum(snapshot.splits.values())}))


if __name__ == "__main__":
    main()
