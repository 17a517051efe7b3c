"""Whether the Hugging Face Hub can be reached: asked once, so that a machine without a network does not wait through
the retries of every file.
"""

from __future__ import annotations

import os
import socket
import sys
from urllib.parse import urlsplit
from urllib.request import getproxies

from huggingface_hub import constants

WAIT_S = 3.0  # for an answer


def use_cache_if_unreachable() -> None:
    """Without an answer of the Hub, this process and its workers use what was fetched before, as HF_HUB_OFFLINE=1 does,
    and a note says so. Behind a proxy nothing is asked.
    """
    if constants.HF_HUB_OFFLINE or getproxies():
        return
    address = urlsplit(constants.ENDPOINT)
    port = address.port or (80 if address.scheme == "http" else 443)
    try:
        socket.create_connection((str(address.hostname), port), timeout=WAIT_S).close()
    except OSError as error:
        print(
            f"note: {address.hostname} cannot be reached ({error.strerror or error}); what was fetched before is used.",
            file=sys.stderr,
        )
        os.environ["HF_HUB_OFFLINE"] = "1"
        constants.HF_HUB_OFFLINE = True
        if (library := sys.modules.get("datasets.config")) is not None:
            library.HF_HUB_OFFLINE = library.HF_DATASETS_OFFLINE = True  # type: ignore[attr-defined]
