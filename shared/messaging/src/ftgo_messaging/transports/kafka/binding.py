"""CloudEvents' binding for Kafka."""

PREFIX = "ce_"
