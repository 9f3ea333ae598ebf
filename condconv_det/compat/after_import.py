"""Mends a module as soon as somebody imports it, so that nobody else has to.

To import mmdet takes twice the time that PyTorch takes; who wants a layer alone needs none of it.
"""

import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

Mend = Callable[[ModuleType], None]


def after_import(name: str, mend: Mend) -> None:
    """Calls `mend` with a module once its own code has run; at once if it has.

    Args:
        name: of the module, in full.
        mend: imports nothing that may be waiting for this very module.
    """
    if name in sys.modules:
        mend(sys.modules[name])
    else:
        _FINDER.mends[name].append(mend)


class _MendingFinder(MetaPathFinder):
    """Finds modules that are to be mended where the other finders find them."""

    def __init__(self) -> None:
        self.mends: dict[str, list[Mend]] = defaultdict(list)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in self.mends:
            return None
        others = (finder for finder in sys.meta_path if finder is not self)
        found = (finder.find_spec(fullname, path, target) for finder in others)
        spec = next(filter(None, found), None)
        if spec is not None and spec.loader is not None:
            run = spec.loader.exec_module

            def run_and_mend(module: ModuleType) -> None:
                run(module)
                for mend in self.mends.pop(fullname, ()):
                    mend(module)

            spec.loader.exec_module = run_and_mend
        return spec


_FINDER = _MendingFinder()
sys.meta_path.insert(0, _FINDER)
