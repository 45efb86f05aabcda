"""The house style of a service: settings, logging, database, health, problem+json."""
