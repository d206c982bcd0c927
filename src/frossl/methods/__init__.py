"""Methods, one file each: a frozen ``Config`` beside a module that maps backbone features to a :class:`Loss`.

A method is an ``nn.Module`` with a nested ``Config``, built as ``Method(config, features)`` and called as
``method(h_VNF) -> Loss``. It knows nothing of the training loop; all its state is in its ``state_dict``.
"""

from __future__ import annotations

from typing import Any

from frossl.core.registry import Registry

METHODS: Registry[Any] = Registry("method")

from frossl.methods import frossl  # noqa: E402, F401  (registers itself)
