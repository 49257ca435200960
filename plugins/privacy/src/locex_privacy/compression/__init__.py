"""``compression``: updates in fewer bytes, with what was lost added to the next one."""
