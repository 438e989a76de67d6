"""Signed verdicts: what a registry says that it measured, checked with its public keys."""

from __future__ import annotations

import json

from nirvana.errors import InvalidSignature
from nirvana.errors import JsonObject as Json

ALGORITHM = "Ed25519"  # RFC 9864
TYPE = "nirvana-verdict"
VERSION = 1


def check_signature(signed: Json, keys: Json) -> Json:
    """Return the statement of a signed verdict: `type`, `version`, `registry` and `evaluation`.

    Needs the extra `signatures` (joserfc).

    Args:
        signed: a JWS in flattened JSON (RFC 7515, 7.2.2), as `…/verifications/{id}/signed` gives it.
        keys: the registry's public keys (RFC 7517), as /.well-known/jwks.json gives them. Whom they belong to
            is for the reader to know: a signature proves no more than that one of them made it.

    Raises:
        InvalidSignature: it is none, was changed, was made by another key, or says no verdict.
    """
    from joserfc import jws
    from joserfc.errors import JoseError
    from joserfc.jwk import KeySet

    parts = [signed.get(name) for name in ("protected", "payload", "signature")]
    if len(signed) != len(parts) or not all(isinstance(part, str) for part in parts):
        raise InvalidSignature(f"expected payload, protected and signature, found {sorted(signed)}")
    try:
        known = KeySet.import_key_set({"keys": keys["keys"]})
        compact = ".".join(map(str, parts))
        statement = json.loads(jws.deserialize_compact(compact, known, algorithms=[ALGORITHM]).payload)
    except (JoseError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise InvalidSignature(f"no key of the registry signed this: {error}") from None
    kind = (statement.get("type"), statement.get("version")) if isinstance(statement, dict) else None
    if kind != (TYPE, VERSION):
        raise InvalidSignature(f"what is signed is {kind}, expected {(TYPE, VERSION)}")
    return dict(statement)
