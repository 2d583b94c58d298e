"""A model leaves: files that other libraries open. Called, as `rk.export(...)`, the package is export.export."""

import sys
from types import ModuleType
from typing import Any


class _Package(ModuleType):
    """Python binds `resnetkit.export` to the package when any module of it is imported first, so it can be called."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        from resnetkit.export.export import export

        return export(*args, **kwargs)


sys.modules[__name__].__class__ = _Package
