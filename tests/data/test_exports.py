import importlib
import subprocess
import sys
import types

import tunesmith.data


def test_exports_are_there_sorted_and_no_modules() -> None:
    assert tunesmith.data.__all__ == sorted(tunesmith.data.__all__)
    # Each verb bears the name of its module, which must not hide it once imported.
    for name in ("clean", "freeze", "pack", "read", "split"):
        importlib.import_module(f"tunesmith.data.{name}")
    assert not any(isinstance(getattr(tunesmith.data, name), types.ModuleType) for name in tunesmith.data.__all__)


def test_importing_the_room_loads_nothing_heavy() -> None:
    heavy = "{'torch', 'transformers', 'tokenizers', 'numpy', 'jinja2', 'sqlalchemy'}"
    code = f"import sys, tunesmith.data; print(sorted({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
