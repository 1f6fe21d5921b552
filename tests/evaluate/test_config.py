import subprocess
import sys

import pytest
from pydantic import ValidationError

from tunesmith.evaluate import EvaluateConfig


@pytest.mark.parametrize("wrong", [{"max_rows": 0}, {"metrics": ["rogue"]}, {"metrics": []}, {"rows": 3}, {"seed": -1}])
def test_wrong_settings_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        EvaluateConfig.model_validate(wrong)


def test_every_setting_is_explained() -> None:
    assert all(setting.description for setting in EvaluateConfig.model_fields.values())


def test_the_room_loads_neither_torch_nor_anything_heavy() -> None:
    program = (
        "import sys, tunesmith.evaluate as room; assert 'numpy' not in sys.modules\n"
        "[getattr(room, name) for name in room.__all__]\n"
        "heavy = {'torch', 'sacrebleu', 'scipy', 'transformers', 'sqlalchemy'} & set(sys.modules); assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
