"""``python -m locex_server.inference.beside``: ``locex`` in a process that ends when the one that started it does."""

from locex.cli.shell import main
from locex.processes.channel import Channel

if __name__ == "__main__":
    Channel.take().end_with_parent()
    main()
