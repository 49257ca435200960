"""HDF5 weights from elsewhere, checked against the file's own size before Keras reads them.

Keras allocates what a header declares: 11.8 kB can ask for gigabytes. A data set must lie whole in the file.
"""

from __future__ import annotations

import math
import os
from typing import IO

import h5py

from locex.artefacts.archive import MAX_RATIO
from locex.errors import InvalidModel

_FILTERS = {h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32}


def count_elements(file: IO[bytes], name: str) -> int:
    """Return the number of elements in all data sets, or raise `InvalidModel` if they are not what the file holds."""
    size = file.seek(0, os.SEEK_END)
    try:
        with h5py.File(file, "r") as content:
            return _counted(content, name, size)
    except (OSError, RuntimeError, ValueError, KeyError, TypeError) as error:
        raise InvalidModel(
            f"{name} in the artefact is corrupt HDF5: {error}", remedy="save the model again, and upload it"
        ) from error


def _counted(content: h5py.File, name: str, size: int) -> int:
    # nothing may be raised while h5py visits
    links: list[str] = []
    found: list[h5py.Dataset] = []
    content.visititems_links(lambda path, link: None if isinstance(link, h5py.HardLink) else links.append(path))
    if links:
        raise _refused(f"{links[0]!r} in {name}", "is a link to elsewhere")
    content.visititems(lambda _, one: found.append(one) if isinstance(one, h5py.Dataset) else None)
    for data in found:
        _require_whole(data, f"{data.name!r} in {name}", size)
    stored = sum(data.id.get_storage_size() for data in found)
    if stored > size:
        raise _refused(name, f"declares {stored} bytes of data in a file of {size}")
    return sum(math.prod(data.shape) for data in found)


def _require_whole(data: h5py.Dataset, name: str, size: int) -> None:
    if data.shape is None or data.dtype.kind not in "fiub" or data.external or data.is_virtual:
        raise _refused(name, "holds no plain numbers")
    declared = math.prod(data.shape) * data.dtype.itemsize
    stored, offset = data.id.get_storage_size(), data.id.get_offset()
    if data.chunks is None:
        fits = stored == declared and (declared == 0 or (offset is not None and offset + stored <= size))
        # compact data lie in the header itself and have no offset
        fits = fits or (offset is None and 0 < stored == declared <= size)
    else:
        plist = data.id.get_create_plist()
        filters = {plist.get_filter(index)[0] for index in range(plist.get_nfilters())}
        chunk = math.prod(data.chunks) * data.dtype.itemsize
        fits = filters <= _FILTERS and max(declared, chunk) <= MAX_RATIO * stored and stored <= size
    if not fits:
        raise _refused(name, f"declares {declared} bytes, which the file of {size} bytes does not hold")


def _refused(name: str, fault: str) -> InvalidModel:
    return InvalidModel(f"{name} {fault}", remedy="save the model again with Keras, and upload that file unchanged")
