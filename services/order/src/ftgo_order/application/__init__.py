"""The use cases of the order service. HTTP and the sagas end here; the unit of work keeps what they decide."""
