CREATE TABLE alembic_version (
    version_num character varying(32) NOT NULL
);
CREATE TABLE consumer_replicas (
    id uuid NOT NULL,
    first_name text NOT NULL,
    last_name text NOT NULL,
    status text NOT NULL,
    version integer NOT NULL
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
CREATE TABLE idempotency_keys (
    key text NOT NULL,
    consumer_id uuid NOT NULL,
    fingerprint text NOT NULL,
    order_id uuid NOT NULL,
    order_total numeric(12,2) NOT NULL,
    at timestamp with time zone NOT NULL
);
CREATE TABLE order_history (
    order_id uuid NOT NULL,
    version integer NOT NULL,
    state text NOT NULL,
    at timestamp with time zone NOT NULL,
    rejection json
);
CREATE TABLE orders (
    id uuid NOT NULL,
    consumer_id uuid NOT NULL,
    restaurant_id uuid NOT NULL,
    state text NOT NULL,
    line_items json NOT NULL,
    order_total numeric(12,2) NOT NULL,
    delivery_time timestamp with time zone NOT NULL,
    delivery_address json NOT NULL,
    fingerprint text NOT NULL,
    revision json,
    rejection json,
    version integer NOT NULL
);
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
CREATE TABLE restaurant_replicas (
    id uuid NOT NULL,
    name text NOT NULL,
    menu json NOT NULL,
    version integer NOT NULL
);
CREATE TABLE saga_instances (
    saga_id uuid NOT NULL,
    type text NOT NULL,
    definition_version integer NOT NULL,
    state text NOT NULL,
    step text NOT NULL,
    data json NOT NULL,
    awaited_command uuid,
    deadline timestamp with time zone NOT NULL,
    attempts integer NOT NULL,
    history json NOT NULL,
    finished boolean NOT NULL,
    version integer NOT NULL
);
INSERT INTO alembic_version VALUES ('0001');
INSERT INTO consumer_replicas VALUES ('0197a3c0-0000-7000-8000-0000000000c1', 'Ada', 'Lovelace', 'ACTIVE', 1);
INSERT INTO dead_letters OVERRIDING SYSTEM VALUE VALUES (1, 'order.replies', '0197a3c0-0000-7000-8000-000000000003', 'order.replies', 0, 7, '\x61206b6579', '[]', '\x7b7d', 'ValueError: a bug of that time', '2026-01-01 12:00:00+00');
INSERT INTO idempotency_keys VALUES ('0197a3c0-0000-7000-8000-0000000000c1 k', '0197a3c0-0000-7000-8000-0000000000c1', 'f1', '0197a3c0-0000-7000-8000-00000000000a', 61.70, '2026-01-01 12:00:00+00');
INSERT INTO order_history VALUES ('0197a3c0-0000-7000-8000-00000000000a', 1, 'APPROVAL_PENDING', '2026-01-01 12:00:00+00', NULL);
INSERT INTO order_history VALUES ('0197a3c0-0000-7000-8000-00000000000a', 2, 'APPROVED', '2026-01-01 12:00:01+00', NULL);
INSERT INTO orders VALUES ('0197a3c0-0000-7000-8000-00000000000a', '0197a3c0-0000-7000-8000-0000000000c1', '0197a3c0-0000-7000-8000-0000000000e1', 'APPROVED', '[{"menu_item_id":"1","name":"Chicken Vindaloo","price":"12.34","quantity":5}]', 61.70, '2030-01-01 18:00:00+00', '{"street1":"1 High St","street2":null,"city":"Oakland","state":"CA","zip":"94619"}', 'f1', NULL, NULL, 2);
INSERT INTO outbox OVERRIDING SYSTEM VALUE VALUES (1, '0197a3c0-0000-7000-8000-000000000001', 'order.events', '0197a3c0-0000-7000-8000-00000000000a', 3, '[]', '\x7b7d');
INSERT INTO processed_messages VALUES ('order.replies', '0197a3c0-0000-7000-8000-000000000002', '2026-01-01 12:00:00+00');
INSERT INTO relay_lease VALUES (3, 'a relay that has gone', 7, '2026-01-01 12:00:00+00');
INSERT INTO restaurant_replicas VALUES ('0197a3c0-0000-7000-8000-0000000000e1', 'Ajanta', '[{"id":"1","name":"Chicken Vindaloo","price":"12.34"}]', 1);
INSERT INTO saga_instances VALUES ('0197a3c0-0000-7000-8000-0000000000f1', 'CreateOrder', 1, 'RUNNING', 'create-ticket', '{}', '0197a3c0-0000-7000-8000-0000000000d1', '2026-01-01 12:00:30+00', 1, '[]', false, 1);
SELECT pg_catalog.setval('dead_letters_id_seq', 1, true);
SELECT pg_catalog.setval('outbox_position_seq', 1, true);
ALTER TABLE ONLY alembic_version ADD CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num);
ALTER TABLE ONLY consumer_replicas ADD CONSTRAINT consumer_replicas_pkey PRIMARY KEY (id);
ALTER TABLE ONLY dead_letters ADD CONSTRAINT dead_letters_pkey PRIMARY KEY (id);
ALTER TABLE ONLY idempotency_keys ADD CONSTRAINT idempotency_keys_pkey PRIMARY KEY (key);
ALTER TABLE ONLY order_history ADD CONSTRAINT order_history_pkey PRIMARY KEY (order_id, version);
ALTER TABLE ONLY orders ADD CONSTRAINT orders_pkey PRIMARY KEY (id);
ALTER TABLE ONLY outbox ADD CONSTRAINT outbox_pkey PRIMARY KEY ("position");
ALTER TABLE ONLY processed_messages ADD CONSTRAINT processed_messages_pkey PRIMARY KEY (consumer, message_id);
ALTER TABLE ONLY relay_lease ADD CONSTRAINT relay_lease_pkey PRIMARY KEY (shard);
ALTER TABLE ONLY restaurant_replicas ADD CONSTRAINT restaurant_replicas_pkey PRIMARY KEY (id);
ALTER TABLE ONLY saga_instances ADD CONSTRAINT saga_instances_pkey PRIMARY KEY (saga_id);
CREATE INDEX orders_of_consumer ON orders USING btree (consumer_id, id);
CREATE INDEX saga_instances_overdue ON saga_instances USING btree (deadline) WHERE (NOT finished);
