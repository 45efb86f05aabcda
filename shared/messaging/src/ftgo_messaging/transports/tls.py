"""Encrypted connections: whom we trust, and what an untrusted certificate is told as.

Trusted are the authorities of this system, or those of the file that the variable SSL_CERT_FILE names (OpenSSL's own).
The name in the certificate has to be that of the URL. Clients do not show a certificate of theirs.
"""

import ssl

from ftgo_messaging.transports.port import BrokerRefuses


def trusting() -> ssl.SSLContext:
    """Made for each connection: a certificate that was renewed needs no restart."""
    return ssl.create_default_context()


def untrusted(error: BaseException | None, where: str) -> BrokerRefuses | None:
    """What a failed connection means, when it was for the certificate; None otherwise."""
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return BrokerRefuses(
                f"The certificate of {where} is not trusted ({error.verify_message}): let SSL_CERT_FILE name a file "
                "with the authority that has signed it, and the URL the host that stands in it."
            )
        error = error.__cause__ or error.__context__
    return None
