"""The peer's side: read, filter, MinHash in its four stages, write. `python side_datatrove.py orders.json`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.dedup import MinhashDedupBuckets, MinhashDedupCluster, MinhashDedupFilter, MinhashDedupSignature
from datatrove.pipeline.dedup.minhash import MinhashConfig
from datatrove.pipeline.filters import LambdaFilter
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.writers import JsonlWriter
from datatrove.utils.hashing import HashConfig


def adapt(_: Any, data: dict[str, Any], path: str, id_in_file: int) -> dict[str, Any]:
    """A row as datatrove's document: one text, with what it was made of kept beside it."""
    text = data["prompt"] + "\n" + data["completion"]
    return {"text": text, "id": f"{path}/{id_in_file}", "metadata": data}


def is_long_enough(document: Any) -> bool:
    """The filter of both sides."""
    return bool(len(document.text) >= 20)


def main() -> None:
    """Run the four stages one after another, each with a task per file on all cores."""
    orders = json.loads(Path(sys.argv[1]).read_text())
    tasks, work = orders["num_files"], Path(orders["work"])
    config = MinhashConfig(hash_config=HashConfig(precision=64))

    def run(pipeline: list[Any], *, tasks: int, name: str) -> None:
        LocalPipelineExecutor(
            pipeline=pipeline, tasks=tasks, workers=orders["cores"], logging_dir=str(work / "logs" / name)
        ).run()

    rows = [JsonlReader(orders["rows"], glob_pattern="*.jsonl", adapter=adapt, compression=None)]
    kept = [*rows, LambdaFilter(is_long_enough)]
    signatures, buckets, removed = (str(work / name) for name in ("signatures", "buckets", "removed"))
    run([*kept, MinhashDedupSignature(signatures, config=config)], tasks=tasks, name="signatures")
    run([MinhashDedupBuckets(signatures, buckets, config=config)], tasks=config.num_buckets, name="buckets")
    run([MinhashDedupCluster(buckets, removed, config=config)], tasks=1, name="cluster")
    run([*kept, MinhashDedupFilter(removed), JsonlWriter(orders["out"], compression=None)], tasks=tasks, name="filter")


if __name__ == "__main__":
    main()
