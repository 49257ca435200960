"""Takes all memory while it is imported, and tells how much it got."""

hoard = []
try:
    while True:
        hoard.append(bytearray(2**24))
except MemoryError:
    taken = len(hoard) * 2**4
    hoard.clear()
    raise MemoryError(f"after {taken} MiB") from None
