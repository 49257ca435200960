import os
import sys

from locex.hookspecs import hookimpl
from locex.schemas.plugin import PluginConfig

print('{"kind": "configured"} is what a message would look like')
os.write(1, b'{"kind": "configured"}\n')
sys.stdin.read()


class PrintingConfig(PluginConfig):
    undescribed: int = sum(name in os.environ for name in ("LOCEX_STORE_URL", "LOCEX_API_TOKEN_FILE"))


class Printing:
    """Prints to standard output on import, and reads standard input."""

    @hookimpl
    def locex_config_model(self):
        return PrintingConfig

    @hookimpl
    def locex_create_transform(self, config):
        raise NotImplementedError
