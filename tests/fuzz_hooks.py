"""What schemathesis cannot know by itself: ticket files, good ones and broken ones."""

from __future__ import annotations

import schemathesis
from hypothesis import strategies as st

from nirvana.format.ticket import MEDIA_TYPE
from tests.factories import make_ticket

FILE = make_ticket().to_bytes()


def _cut(place: int) -> bytes:
    return FILE[:place]


def _flip(place: int) -> bytes:
    return FILE[:place] + bytes([FILE[place] ^ 1]) + FILE[place + 1 :]


PLACES = st.integers(0, len(FILE) - 1)
FILES = st.just(FILE) | st.builds(_cut, PLACES) | st.builds(_flip, PLACES) | st.binary(max_size=100)
schemathesis.openapi.media_type(MEDIA_TYPE, FILES)


@schemathesis.serializer(MEDIA_TYPE)
def serialize_ticket(_context: schemathesis.SerializationContext, value: object) -> bytes:
    """The bytes of a body; of an example its text."""
    return value if isinstance(value, bytes) else str(value).encode()
