"""Augmentation: :func:`make_views` of a batch of images, and :class:`ViewTransform` for a ``Dataset`` of your own."""

from frossl.views.recipes import VIEWS, View
from frossl.views.transform import ViewTransform, make_views

__all__ = ["VIEWS", "View", "ViewTransform", "make_views"]
