"""What is known of each broker beforehand. Everything that can be measured or tested is not here.

A broker, or an emulation of one, is one entry of ``FACTS``: it is then measured by ``make brokers``, and has its column
and its rows in ``docs/brokers.md``.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Said:
    """A statement of who makes it, and where it stands; not tried here."""

    text: str
    source: str


@dataclass(frozen=True)
class Facts:
    """``queue``, ``topic``: how the adapter realises the two kinds of channel. ``again``: how what a dead member had in
    hand comes again. ``setting``: with what the disk is concerned, in the server that is started here.

    ``emulation``: of what program, where the broker itself cannot run here. It gets no latency, throughput or
    persistence cell: that would say something of the emulation only, and be read as the broker's.

    ``tests``, ``suite``: the file in shared/messaging/tests/integration without ``test_`` and ``.py``, and its class,
    where the file is not called as the broker, or has several of these classes."""

    name: str
    title: str
    queue: str
    topic: str
    again: str
    languages: Said
    standards: Said
    disk: Said
    setting: str
    emulation: str = ""
    tests: str = ""
    suite: str = ""

    @property
    def heading(self) -> str:
        return f"{self.title}, emulated by {self.emulation}" if self.emulation else self.title


_CONFLUENT = "https://docs.confluent.io/cloud/current/api-docs/client-overview.html"
_RABBITMQ_TOOLS = "https://www.rabbitmq.com/client-libraries/devtools"
_ACTIVEMQ = "https://activemq.apache.org/components/classic/documentation/features-overview"
_NATS_DISK = "https://docs.nats.io/nats-concepts/jetstream"
_AWS_SDKS = "https://aws.amazon.com/developer/tools/"
_SQS = "https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-resilience.html"
_SQS_API = "https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/Welcome.html"

FACTS = {
    facts.name: facts
    for facts in (
        Facts(
            "kafka",
            "Kafka",
            queue="a topic, its partitions are the lanes; one group",
            topic="the same topic; a group for each consumer",
            again="from the group's offset, when the group has given the partition to another member",
            languages=Said("Java; C/C++, Go, Python, .NET, JavaScript by its vendor", _CONFLUENT),
            standards=Said("a protocol of its own", "https://kafka.apache.org/protocol"),
            disk=Said(
                "leaves it to the system, and relies on replicas",
                "https://kafka.apache.org/documentation/#appvsosflush",
            ),
            setting="as it comes",
        ),
        Facts(
            "rabbitmq",
            "RabbitMQ",
            queue="a direct exchange; a classic queue for each lane, with a single active consumer",
            topic="the same exchange; a queue for each consumer and lane",
            again="by the broker, when the connection is closed or misses heartbeats",
            languages=Said("Java, .NET, Erlang by its makers; most others by the community", _RABBITMQ_TOOLS),
            standards=Said("AMQP 0.9.1 and 1.0; MQTT, STOMP by plugins", "https://www.rabbitmq.com/docs/protocols"),
            disk=Said("classic queues are not replicated", "https://www.rabbitmq.com/docs/classic-queues"),
            setting="persistent messages, classic queues",
        ),
        Facts(
            "activemq",
            "ActiveMQ Classic",
            queue="a virtual topic for each lane; an exclusive queue behind it",
            topic="the same virtual topics; a queue for each consumer and lane",
            again="by the broker, when the connection is closed or misses heartbeats",
            languages=Said("Java, C, C++, C#, Ruby, Perl, Python, PHP", _ACTIVEMQ),
            standards=Said("JMS 1.1 and 2.0, STOMP, AMQP 1.0, MQTT, OpenWire", _ACTIVEMQ),
            disk=Said("the journal is written through by default", "https://activemq.apache.org/kahadb"),
            setting="KahaDB as it comes",
        ),
        Facts(
            "valkey",
            "Valkey Streams",
            queue="a stream for each lane; one group, of which only the position is used",
            topic="the same streams; a group for each consumer",
            again="from the group's position, when another member has the lease of the lane",
            languages=Said("most", "https://valkey.io/topics/introduction"),
            standards=Said("RESP, which Redis speaks", "https://valkey.io/topics/protocol"),
            disk=Said("never, each second or always, as it is set", "https://valkey.io/topics/persistence"),
            setting="`appendonly yes`, `appendfsync always`",
        ),
        Facts(
            "nats",
            "NATS JetStream",
            queue="a stream with a subject for each lane; a durable for each lane",
            topic="the same stream; a durable for each consumer and lane",
            again="by the broker, when the durable is reset by who has the lease of the lane",
            languages=Said("Go, C, Java, JavaScript, Python, Rust, .NET and others", "https://nats.io"),
            standards=Said("a protocol of its own", "https://docs.nats.io/reference/nats-protocols"),
            disk=Said("each two minutes by default, not before it confirms", _NATS_DISK),
            setting="`sync_interval: 5s`",
        ),
        Facts(
            "sqs",
            "Amazon SQS",
            queue="a FIFO queue for each lane, with one message group",
            topic="such queues for each consumer, to which the sender sends; no SNS",
            again="from the queue, when its visibility time is over",
            languages=Said("C++, Go, Java, JavaScript, Kotlin, .NET, PHP, Python, Ruby, Rust, Swift", _AWS_SDKS),
            standards=Said("an API of its own over HTTP", _SQS_API),
            disk=Said("redundantly, on several servers", _SQS),
            setting="in memory",
            emulation="ElasticMQ",
            tests="aws_sqs",
            suite="TestSuite",
        ),
        Facts(
            "direct",
            "none: HTTP",
            queue="POST to the one member that has the lane",
            topic="POST to a member of each consumer",
            again="from the sender's outbox, to the member that has the lease of the lane",
            languages=Said("any with HTTP", "https://www.rfc-editor.org/rfc/rfc9110"),
            standards=Said(
                "HTTP/1.1, batches of CloudEvents",
                "https://github.com/cloudevents/spec/blob/v1.0/http-protocol-binding.md",
            ),
            disk=Said("the databases of both sides", "https://www.postgresql.org/docs/current/wal-reliability.html"),
            setting="PostgreSQL as it comes: `fsync` on",
        ),
    )
}
