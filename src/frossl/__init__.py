"""Self-supervised pretraining of image encoders with many views, around the FroSSL objective.

``frossl.pretrain("path/to/images")`` trains, evaluates and reports; ``import frossl.losses`` needs torch only.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from frossl.commands.library import pretrain
    from frossl.nn.encoder import load_encoder
    from frossl.train.embed import embed
    from frossl.train.evaluate import evaluate_run
    from frossl.train.explore import explore
    from frossl.train.predict import predict

__version__ = "0.1.0"

_PLACES = {
    "pretrain": "frossl.commands.library",
    "evaluate_run": "frossl.train.evaluate",
    "load_encoder": "frossl.nn.encoder",
    "embed": "frossl.train.embed",
    "explore": "frossl.train.explore",
    "predict": "frossl.train.predict",
}
__all__ = ["__version__", "embed", "evaluate_run", "explore", "load_encoder", "predict", "pretrain"]


def __getattr__(name: str) -> Any:
    """The names above on first use, so that those who want the losses do not wait for the trainer."""
    if name not in _PLACES:
        raise AttributeError(f"module 'frossl' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
