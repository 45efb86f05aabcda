"""Our murmur2 against that of the client library: another partition for a key would break its order."""

from aiokafka.partitioner import murmur2 as reference
from ftgo_messaging.transports.lanes import hash_of_key, murmur2
from hypothesis import given
from hypothesis import strategies as st


@given(st.binary(max_size=80))
def test_the_hash_is_that_of_the_client(data: bytes) -> None:
    assert murmur2(data) == reference(data)


@given(st.text(max_size=40))
def test_a_key_falls_into_the_partition_of_the_default_partitioner(key: str) -> None:
    assert hash_of_key(key) % 12 == (reference(key.encode()) & 0x7FFFFFFF) % 12
