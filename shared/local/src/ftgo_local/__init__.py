"""The embedded platform and the ftgo command line: real PostgreSQL and Kafka without Docker."""
