"""What a plugin does when it is used, kind by kind, held against its contract; faults are words for its author."""
