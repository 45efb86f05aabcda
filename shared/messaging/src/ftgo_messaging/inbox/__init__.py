"""The inbox: which message ids a consumer has handled, recorded in the transaction of the effect."""
