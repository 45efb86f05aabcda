"""The parts of the conformance suite: see ``testing.transport_suite``."""
