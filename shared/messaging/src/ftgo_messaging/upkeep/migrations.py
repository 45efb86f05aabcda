"""How the library's tables came to be: the statements that a service's migrations run, one constant for each change.

A constant is named by its change and is never edited once a database may have run it: the tables as they are today
are declared in ``outbox.table``, ``consumer.tables`` and ``sagas.instance``, and a database gets there by going through
all changes in turn. A new change is a new constant here and a new revision in every service::

    def upgrade() -> None:
        for statement in DEAD_LETTER_STATES:
            op.execute(statement)

The previous release goes on reading and writing while and after a change runs: new columns have defaults, and nothing
is dropped or renamed.
"""

FIRST_TABLES = (
    """
    CREATE TABLE outbox (
        position bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        message_id uuid NOT NULL,
        channel text NOT NULL,
        key text NOT NULL,
        shard smallint NOT NULL,
        headers json NOT NULL,
        body bytea NOT NULL
    ) WITH (
        autovacuum_vacuum_scale_factor = 0,
        autovacuum_vacuum_threshold = 2000,
        autovacuum_vacuum_insert_scale_factor = 0,
        autovacuum_vacuum_cost_delay = 0
    )
    """,
    """
    CREATE TABLE relay_lease (
        shard smallint PRIMARY KEY,
        owner text NOT NULL,
        epoch bigint NOT NULL,
        expires_at timestamptz NOT NULL DEFAULT now()
    )
    """,
    """
    CREATE TABLE processed_messages (
        consumer text NOT NULL,
        message_id uuid NOT NULL,
        processed_at timestamptz NOT NULL DEFAULT now(),
        PRIMARY KEY (consumer, message_id)
    )
    """,
    """
    CREATE TABLE dead_letters (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        consumer text NOT NULL,
        message_id text,
        channel text NOT NULL,
        partition integer NOT NULL,
        position bigint NOT NULL,
        key bytea,
        headers json NOT NULL,
        body bytea,
        error text NOT NULL,
        failed_at timestamptz NOT NULL DEFAULT now()
    )
    """,
)

SAGA_INSTANCES = (
    """
    CREATE TABLE saga_instances (
        saga_id uuid PRIMARY KEY,
        type text NOT NULL,
        definition_version integer NOT NULL,
        state text NOT NULL,
        step text NOT NULL,
        data json NOT NULL,
        awaited_command uuid,
        deadline timestamptz NOT NULL,
        attempts integer NOT NULL,
        history json NOT NULL,
        finished boolean NOT NULL,
        version integer NOT NULL
    )
    """,
    "CREATE INDEX saga_instances_overdue ON saga_instances (deadline) WHERE NOT finished",
)
"""For services that have sagas."""

# From here to LOG_TAILING with IF NOT EXISTS: there was a time when the first revision created whatever was declared
# that day, so a database may have all this already.

DEAD_LETTER_STATES = (
    "ALTER TABLE dead_letters ADD COLUMN IF NOT EXISTS state text NOT NULL DEFAULT 'DEAD'",
    "ALTER TABLE dead_letters ADD COLUMN IF NOT EXISTS attempts integer NOT NULL DEFAULT 1",
    "ALTER TABLE dead_letters ADD COLUMN IF NOT EXISTS parks_key boolean NOT NULL DEFAULT false",
    "ALTER TABLE dead_letters ADD COLUMN IF NOT EXISTS resolved_at timestamptz",
    "CREATE INDEX IF NOT EXISTS dead_letters_parked ON dead_letters (consumer, channel, key, id) "
    "WHERE parks_key AND resolved_at IS NULL",
    "CREATE INDEX IF NOT EXISTS dead_letters_to_redrive ON dead_letters (consumer, id) WHERE state = 'REDRIVE'",
    "CREATE INDEX IF NOT EXISTS dead_letters_resolved ON dead_letters (resolved_at) WHERE resolved_at IS NOT NULL",
    "CREATE INDEX IF NOT EXISTS dead_letters_origin ON dead_letters (channel, partition, position)",
)
"""A dead letter has a state and a number of attempts, and may keep the later messages of its key waiting."""

LOG_TAILING = (
    "CREATE TABLE IF NOT EXISTS relay_position (slot text PRIMARY KEY, server text NOT NULL, lsn bigint NOT NULL)",
    # There is no IF NOT EXISTS for a publication.
    """
    DO $$ BEGIN
        CREATE PUBLICATION outbox_inserts FOR TABLE outbox WITH (publish = 'insert');
    EXCEPTION WHEN duplicate_object THEN NULL;
    END $$
    """,
)
"""What a relay that tails the transaction log needs."""

ANY_RECORD = (
    # By the hash of the key: an entry of an index has 2.7 kB at most, a key of Kafka may have a megabyte.
    "DROP INDEX dead_letters_parked",
    "CREATE INDEX dead_letters_parked ON dead_letters (consumer, channel, sha256(key), id) "
    "WHERE parks_key AND resolved_at IS NULL",
    "CREATE INDEX dead_letters_unresolved ON dead_letters (consumer, state) WHERE resolved_at IS NULL",
    # What the previous release writes has no sources, and that means all of them.
    "ALTER TABLE processed_messages ADD COLUMN sources text NOT NULL DEFAULT ''",
)
"""Nothing that a record holds makes its dead letter impossible, and a message id counts together with its source."""

ORIGINS = (
    "ALTER TABLE dead_letters ADD COLUMN origin text",
    "ALTER TABLE dead_letters ALTER COLUMN partition DROP NOT NULL",
    "ALTER TABLE dead_letters ALTER COLUMN position DROP NOT NULL",
    "CREATE INDEX dead_letters_by_origin ON dead_letters (origin)",
)
"""A dead letter names where its record stands in one word that every broker can give. The previous release writes its
partition and position instead, and both releases read both."""

LANE_LEASES = (
    """
    CREATE TABLE lane_lease (
        consumer text NOT NULL,
        lane text NOT NULL,
        owner text NOT NULL,
        epoch bigint NOT NULL,
        PRIMARY KEY (consumer, lane)
    )
    """,
    """
    CREATE TABLE lane_member (
        consumer text NOT NULL,
        member text NOT NULL,
        wants text[] NOT NULL,
        expires_at timestamptz NOT NULL,
        PRIMARY KEY (consumer, member)
    )
    """,
)
"""Who reads which lanes, for brokers that do not decide it themselves."""

RELAY_GENERATIONS = ("ALTER TABLE relay_lease ADD COLUMN generation bigint NOT NULL DEFAULT 0",)
"""By which configuration of brokers a shard is published, so that nobody publishes it by an older one."""
