"""Self-supervised pretraining of image encoders with many views, around the FroSSL objective."""

__version__ = "0.1.0"
