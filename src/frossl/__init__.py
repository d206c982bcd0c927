"""Self-supervised pretraining of image encoders with many views, around the FroSSL objective.

``from frossl.losses import frossl`` needs torch only; ``from frossl import pretrain, Config, load_encoder`` is
the rest.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from frossl.nn.encoder import load_encoder
    from frossl.runs.config import Config
    from frossl.train.embed import embed
    from frossl.train.evaluate import evaluate_run
    from frossl.train.explore import explore
    from frossl.train.predict import predict
    from frossl.train.pretrain import pretrain

__version__ = "0.1.0"

_PLACES = {
    "Config": "frossl.runs.config",
    "pretrain": "frossl.train.pretrain",
    "evaluate_run": "frossl.train.evaluate",
    "load_encoder": "frossl.nn.encoder",
    "embed": "frossl.train.embed",
    "explore": "frossl.train.explore",
    "predict": "frossl.train.predict",
}
__all__ = ["Config", "__version__", "embed", "evaluate_run", "explore", "load_encoder", "predict", "pretrain"]


def __getattr__(name: str) -> Any:
    """The names above on first use, so that those who want the losses do not wait for the trainer."""
    if name not in _PLACES:
        raise AttributeError(f"module 'frossl' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
