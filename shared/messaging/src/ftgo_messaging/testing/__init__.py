"""What the tests of a service use: an in-memory unit of work, conversations with a saga, waiting with a deadline."""
