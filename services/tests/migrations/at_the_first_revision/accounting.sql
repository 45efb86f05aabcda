CREATE TABLE account_entries (
    consumer_id uuid NOT NULL,
    version integer NOT NULL,
    type text NOT NULL,
    amount numeric(12,2) NOT NULL,
    change numeric(12,2) NOT NULL,
    order_id uuid,
    at timestamp with time zone NOT NULL
);
CREATE TABLE accounts (
    consumer_id uuid NOT NULL,
    credit_limit numeric(12,2) NOT NULL,
    authorized numeric(12,2) NOT NULL,
    state text NOT NULL,
    version integer NOT NULL
);
CREATE TABLE alembic_version (
    version_num character varying(32) NOT NULL
);
CREATE TABLE authorizations (
    order_id uuid NOT NULL,
    id uuid NOT NULL,
    consumer_id uuid NOT NULL,
    amount numeric(12,2) NOT NULL,
    state text NOT NULL
);
CREATE TABLE dead_letters (
    id bigint NOT NULL,
    consumer text NOT NULL,
    message_id text,
    channel text NOT NULL,
    partition integer NOT NULL,
    "position" bigint NOT NULL,
    key bytea,
    headers json NOT NULL,
    body bytea,
    error text NOT NULL,
    failed_at timestamp with time zone DEFAULT now() NOT NULL
);
ALTER TABLE dead_letters ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY;
CREATE TABLE outbox (
    "position" bigint NOT NULL,
    message_id uuid NOT NULL,
    channel text NOT NULL,
    key text NOT NULL,
    shard smallint NOT NULL,
    headers json NOT NULL,
    body bytea NOT NULL
)
WITH (autovacuum_vacuum_scale_factor='0', autovacuum_vacuum_threshold='2000', autovacuum_vacuum_insert_scale_factor='0', autovacuum_vacuum_cost_delay='0');
ALTER TABLE outbox ALTER COLUMN "position" ADD GENERATED ALWAYS AS IDENTITY;
CREATE TABLE processed_messages (
    consumer text NOT NULL,
    message_id uuid NOT NULL,
    processed_at timestamp with time zone DEFAULT now() NOT NULL
);
CREATE TABLE relay_lease (
    shard smallint NOT NULL,
    owner text NOT NULL,
    epoch bigint NOT NULL,
    expires_at timestamp with time zone DEFAULT now() NOT NULL
);
INSERT INTO account_entries VALUES ('0197a3c0-0000-7000-8000-0000000000c1', 1, 'ACCOUNT_OPENED', 1000.00, 0.00, NULL, '2026-01-01 12:00:00+00');
INSERT INTO account_entries VALUES ('0197a3c0-0000-7000-8000-0000000000c1', 2, 'PAYMENT_AUTHORIZED', 61.70, 61.70, '0197a3c0-0000-7000-8000-00000000000a', '2026-01-01 12:00:01+00');
INSERT INTO accounts VALUES ('0197a3c0-0000-7000-8000-0000000000c1', 1000.00, 61.70, 'ENABLED', 2);
INSERT INTO alembic_version VALUES ('0001');
INSERT INTO authorizations VALUES ('0197a3c0-0000-7000-8000-00000000000a', '0197a3c0-0000-7000-8000-0000000000b1', '0197a3c0-0000-7000-8000-0000000000c1', 61.70, 'AUTHORIZED');
INSERT INTO dead_letters OVERRIDING SYSTEM VALUE VALUES (1, 'order.replies', '0197a3c0-0000-7000-8000-000000000003', 'order.replies', 0, 7, '\x61206b6579', '[]', '\x7b7d', 'ValueError: a bug of that time', '2026-01-01 12:00:00+00');
INSERT INTO outbox OVERRIDING SYSTEM VALUE VALUES (1, '0197a3c0-0000-7000-8000-000000000001', 'order.events', '0197a3c0-0000-7000-8000-00000000000a', 3, '[]', '\x7b7d');
INSERT INTO processed_messages VALUES ('order.replies', '0197a3c0-0000-7000-8000-000000000002', '2026-01-01 12:00:00+00');
INSERT INTO relay_lease VALUES (3, 'a relay that has gone', 7, '2026-01-01 12:00:00+00');
SELECT pg_catalog.setval('dead_letters_id_seq', 1, true);
SELECT pg_catalog.setval('outbox_position_seq', 1, true);
ALTER TABLE ONLY account_entries ADD CONSTRAINT account_entries_pkey PRIMARY KEY (consumer_id, version);
ALTER TABLE ONLY accounts ADD CONSTRAINT accounts_pkey PRIMARY KEY (consumer_id);
ALTER TABLE ONLY alembic_version ADD CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num);
ALTER TABLE ONLY authorizations ADD CONSTRAINT authorizations_pkey PRIMARY KEY (order_id);
ALTER TABLE ONLY dead_letters ADD CONSTRAINT dead_letters_pkey PRIMARY KEY (id);
ALTER TABLE ONLY outbox ADD CONSTRAINT outbox_pkey PRIMARY KEY ("position");
ALTER TABLE ONLY processed_messages ADD CONSTRAINT processed_messages_pkey PRIMARY KEY (consumer, message_id);
ALTER TABLE ONLY relay_lease ADD CONSTRAINT relay_lease_pkey PRIMARY KEY (shard);
