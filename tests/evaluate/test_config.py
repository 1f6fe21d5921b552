import subprocess
import sys

import pytest
from pydantic import ValidationError

from tunesmith.evaluate import EvaluateConfig
from tunesmith.evaluate.config import CostConfig, EndpointConfig, SearchConfig

OTHER = {"name": "other", "url": "http://127.0.0.1:1/v1", "model": "m"}


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_rows": 0},
        {"metrics": ["rogue"]},
        {"metrics": []},
        {"rows": 3},
        {"seed": -1},
        {"arms": ["five_shot"]},
        {"arms": ["few_shot", "few_shot"]},
        {"endpoints": [OTHER, OTHER]},
        {"endpoints": [OTHER | {"name": "tuned"}]},
        {"endpoints": [OTHER | {"url": "ftp://x"}]},
        {"endpoints": [OTHER | {"key": "sk-secret"}]},
        {"endpoints": [OTHER | {"key_env": "$KEY"}]},
        {"endpoints": [OTHER | {"price_in": -1}]},
        {"costs": {"training": float("inf")}},
        {"search": {"rows": 0}},
    ],
)
def test_wrong_settings_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        EvaluateConfig.model_validate(wrong)


def test_every_setting_is_explained() -> None:
    for config in (EvaluateConfig, EndpointConfig, CostConfig, SearchConfig):
        assert all(setting.description for setting in config.model_fields.values())


def test_the_room_loads_neither_torch_nor_anything_heavy() -> None:
    program = (
        "import sys, tunesmith.evaluate as room; assert 'numpy' not in sys.modules\n"
        "[getattr(room, name) for name in room.__all__]\n"
        "heavy = {'torch', 'sacrebleu', 'scipy', 'transformers', 'sqlalchemy', 'httpx'} & set(sys.modules); assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
