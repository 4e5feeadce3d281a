"""A stand-in for the Hugging Face Hub over real HTTP on 127.0.0.1, for the unmodified ``huggingface_hub`` client.

It keeps everything in memory and answers as the Hub does where the client looks: status codes, ``X-Error-Code``,
ETags, redirects of large files to a storage on another origin that takes signed links alone. It is not the Hub: no Xet
(run the client with ``HF_HUB_DISABLE_XET=1``), no uploads in several parts, no pull requests, no quotas, one page
of every list.
"""

from loopback.exchange import Cut, Damage, Drip, Meanwhile, Refuse, Rule, Serve, Stall
from loopback.server import ORG, OUTSIDER, READER, UNKNOWN, WRITER, LoopbackHub

__all__ = [
    "ORG",
    "OUTSIDER",
    "READER",
    "UNKNOWN",
    "WRITER",
    "Cut",
    "Damage",
    "Drip",
    "LoopbackHub",
    "Meanwhile",
    "Refuse",
    "Rule",
    "Serve",
    "Stall",
]
