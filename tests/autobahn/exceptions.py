"""Where a case of Autobahn's is not taken as it stands, and why. One that is not needed is an error.

A case is named by its id, or several by a prefix that ends in `*`.
"""

# Not run.
LEFT_OUT = {
    "9.*": "they measure how fast messages up to 16 MiB are echoed; Herald takes 64 KiB and echoes nothing",
    "12.*": "permessage-deflate, which Herald does not offer: notifications are small, and it costs memory",
    "13.*": "permessage-deflate with its options, as 12.*",
}

# Run, but with another end: the close code that Herald's own rules ask for.
ENDS_OTHERWISE = {
    "1.2.*": (1003, "clients of Herald send text alone: a binary message is refused with 1003 (RFC 6455 7.4.1)"),
    "7.1.6": (1009, "its first message of 256 KiB is over the contract's limit of 64 KiB"),
}

# Run, and closed with the right code, but later than Autobahn likes best.
LATER = {
    "6.4.3": "the invalid byte comes in the middle of a frame, and the library checks UTF-8 by frame "
    "(at most 64 KiB); RFC 6455 8.1 says no when, and Autobahn calls it non-strict",
    "6.4.4": "as 6.4.3",
}
