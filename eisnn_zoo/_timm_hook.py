"""Registers our models with timm: at once where timm is imported already, else as soon as it has been."""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.util
import sys

MODULE = f"{__package__}.eisnn"  # timm lists models by the last part of this name


def install() -> None:
    if "timm.models" in sys.modules:
        importlib.import_module(MODULE)
    else:
        sys.meta_path.insert(0, _AfterTimm())


class _AfterTimm(importlib.abc.MetaPathFinder):
    """Waits for ``timm.models``, lets the ordinary finders load it, and imports our registrations after it."""

    def find_spec(self, name, path=None, target=None):
        if name != "timm.models":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def exec_module(module):
            execute(module)
            importlib.import_module(MODULE)

        spec.loader.exec_module = exec_module
        return spec
