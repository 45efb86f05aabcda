"""The brokers that `ftgo` can start beside Kafka: a module each, with its server as a process. ``kinds`` lists them."""
