"""Settings of every test: one thread, and property tests that draw the same examples each time."""

from __future__ import annotations

import torch
from hypothesis import settings

torch.set_num_threads(1)
settings.register_profile("house", deadline=None, derandomize=True)
settings.register_profile("long", settings.get_profile("house"), max_examples=500)
settings.load_profile("house")

# An oracle is named after what it restates; collected for doctests it would be imported as the package "frossl".
collect_ignore = ["oracles"]
