"""Transactional messaging between services: outbox, inbox, commands, replies, events, sagas."""
