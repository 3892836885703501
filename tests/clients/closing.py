"""Connects as often as it is told, reads on until the end, and tells with which code: aiohttp.

    closing.py <times> <url> [<file of the authority>]
"""

import asyncio
import json
import ssl
import sys

import aiohttp


async def main():
    times, url, *authority = sys.argv[1:]
    trust = ssl.create_default_context(cafile=authority[0]) if authority else None
    async with aiohttp.ClientSession() as session:
        for _ in range(int(times)):
            async with session.ws_connect(url, ssl=trust or True) as socket:
                async for _ in socket:
                    pass
                print(json.dumps({"code": socket.close_code}), flush=True)


asyncio.run(main())
