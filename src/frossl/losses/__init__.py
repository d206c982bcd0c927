"""Objectives as pure functions of projections: ``loss(z_VND, **options) -> Loss(total, terms)``."""

from frossl.losses.frossl import FroSSLLoss, frossl

__all__ = ["FroSSLLoss", "frossl"]
