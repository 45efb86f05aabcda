"""The receiving side: handlers written for one message, run by the batch, each effect exactly once."""
