"""Images from a name, a folder or Parquet files: see :func:`open_data`."""

from frossl.data.arrays import from_tensors
from frossl.data.open import open_data
from frossl.data.options import DataOptions
from frossl.data.records import DATASETS, Record
from frossl.data.types import Dataset, LazySequence, Split

__all__ = ["DATASETS", "DataOptions", "Dataset", "LazySequence", "Record", "Split", "from_tensors", "open_data"]
