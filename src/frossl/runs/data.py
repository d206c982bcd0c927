"""The images of a run, opened in one way by everyone who needs them."""

from __future__ import annotations

import dataclasses

from frossl.core.types import any_known
from frossl.data import Dataset, open_data
from frossl.data.options import Log, quiet
from frossl.evals.extract import with_labels
from frossl.methods import find_method
from frossl.runs.config import Config, Images


def open_run_data(images: Images, log: Log = quiet) -> Dataset:
    """The data of a configuration; a split without a single known label counts as unlabelled."""
    data = open_data(images.data, images, log=log)
    splits = any_known(data.train.labels), any_known(data.test.labels)
    if (data.classes and not all(splits)) or (any(splits) and not data.targets):
        note = "labels are not used: one of the splits has none"
        data = dataclasses.replace(data, classes=(), notes=(*data.notes, note))
    return data


def for_training(config: Config, data: Dataset) -> Dataset:
    """What of ``data`` the method of ``config`` trains on: of a supervised one, images that have a label."""
    return with_labels(data) if find_method(config.method).uses_labels and data.classes else data
