"""Bearer tokens of administrators: signed JWTs, checked against a public key from a file.

Nothing about a token is taken from the token itself: neither the algorithm nor the key. Issuer, audience, subject and
time of expiry must be there and right.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey
from joserfc.jwt import JWTClaimsRegistry
from starlette.exceptions import HTTPException

ALGORITHMS = ["ES256"]
_LEEWAY_SECONDS = 5


class Unauthorized(HTTPException):
    """No token, or one that does not hold. Not told which: that would help only whoever guesses."""

    slug = "unauthorized"

    def __init__(self) -> None:
        super().__init__(401, "A valid bearer token is needed.", {"WWW-Authenticate": "Bearer"})


class Forbidden(HTTPException):
    slug = "forbidden"

    def __init__(self, scope: str) -> None:
        challenge = f'Bearer error="insufficient_scope", scope="{scope}"'
        super().__init__(403, f"The token lacks the scope {scope}.", {"WWW-Authenticate": challenge})


def read_public_key(path: Path) -> ECKey:
    """The key of a JWK file. Raises ValueError with a sentence for anything but a public P-256 key."""
    try:
        key = ECKey.import_key(json.loads(path.read_text()))
    except (OSError, ValueError, KeyError, JoseError) as error:
        raise ValueError(f"{path} is no JWK of a P-256 key: {error}") from None
    if key.is_private:
        raise ValueError(f"{path} holds a private key: give the service the public part only")
    if key.curve_name != "P-256":
        raise ValueError(f"{path} holds a key on {key.curve_name}: {ALGORITHMS[0]} needs P-256")
    return key


class Bearer:
    """Checks tokens of one issuer for one audience."""

    def __init__(self, key: ECKey, issuer: str, audience: str) -> None:
        self._key = key
        self._claims = JWTClaimsRegistry(
            leeway=_LEEWAY_SECONDS,
            iss={"essential": True, "value": issuer},
            aud={"essential": True, "value": audience},
            exp={"essential": True},
            sub={"essential": True},
        )

    def needs(self, scope: str) -> Callable[..., str]:
        """A dependency that lets only tokens with this scope through, and gives their subject."""

        def check(given: Annotated[HTTPAuthorizationCredentials | None, Depends(_scheme)]) -> str:
            claims = self._check(given.credentials if given is not None else "")
            if scope not in str(claims.get("scope", "")).split():
                raise Forbidden(scope)
            return str(claims["sub"])

        return check

    def _check(self, token: str) -> dict[str, Any]:
        try:
            claims = jwt.decode(token, self._key, algorithms=ALGORITHMS).claims
            self._claims.validate(claims)
        except (JoseError, ValueError, TypeError) as error:
            raise Unauthorized from error
        return claims


_scheme = HTTPBearer(auto_error=False, bearerFormat="JWT")
