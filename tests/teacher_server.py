"""The stand-in teacher of the recipes, for tests."""

from __future__ import annotations

import importlib.util
from pathlib import Path

_spec = importlib.util.spec_from_file_location(
    "standin_teacher", Path(__file__).parents[1] / "recipes" / "standin_teacher.py"
)
assert _spec and _spec.loader
_module = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_module)

Teacher = _module.Teacher
