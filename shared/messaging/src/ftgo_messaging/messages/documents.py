"""Documents: "this is how it is", handed to whom it may concern. What the receiver does with one is its own business.

A command says what to do, an event what has happened; a document only carries data: a price list, a day's report.
"""

import msgspec


class Document(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Base of all documents. Unknown fields are ignored on receipt, so that a newer sender may add some."""
