"""What a request hands on to its messages: a conversation, and its trace."""

import pytest
from ftgo_messaging.messages import message as m
from ftgo_messaging.messages.tracing import origin, traced

ID = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{ID}-00f067aa0ba902b7-01"


def test_all_steps_of_a_request_belong_to_its_trace_and_to_one_conversation():
    with traced({m.TRACEPARENT: PARENT, m.TRACESTATE: "a=1,b=2"}) as trace_id:
        first, second = origin().headers, origin().headers
    assert (trace_id, first) == (ID, second)
    assert (first[m.TRACEPARENT], first[m.TRACESTATE]) == (PARENT, "a=1,b=2")


@pytest.mark.parametrize(
    "parent", ["", "00-x", f"00-{'0' * 32}-00f067aa0ba902b7-01", f"ff{PARENT[2:]}", f"{PARENT},{PARENT}"]
)
def test_without_a_trace_the_id_is_that_of_the_conversation(parent):
    with traced({m.TRACEPARENT: parent, m.TRACESTATE: "a=1"}) as trace_id:
        headers = origin().headers
    assert headers == {m.CORRELATION_ID: headers[m.CORRELATION_ID]}
    assert headers[m.CORRELATION_ID].replace("-", "") == trace_id
    assert origin().headers != origin().headers


def test_a_long_state_is_left_out():
    with traced({m.TRACEPARENT: PARENT, m.TRACESTATE: "a" * 513}):
        assert m.TRACESTATE not in origin().headers
