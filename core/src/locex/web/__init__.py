"""The small aiohttp toolkit that services are built with."""
