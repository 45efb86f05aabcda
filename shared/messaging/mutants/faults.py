"""Faults that a person could make, above all in statements of SQL, where no operator of a tool reaches.

Each names the test that notices it, and it alone is run: whoever breaks the guarantee sees which one it was.
"""

from dataclasses import dataclass
from pathlib import Path

from mutant import LIBRARY, TESTS, Mutant


@dataclass(frozen=True)
class Fault:
    """``old`` stands exactly once in the module, and becomes ``new``. ``test`` is its file and its name."""

    name: str
    module: str
    old: str
    new: str
    test: str

    def mutant(self, root: Path) -> Mutant:
        """Raises ValueError when the module has changed so that the fault no longer has its place."""
        module = LIBRARY / self.module
        code = (root / module).read_text()
        if code.count(self.old) != 1:
            raise ValueError(f"{self.name}: {self.old!r} stands {code.count(self.old)} times in {module}")
        file, name = self.test.split("::")
        return Mutant(module, self.name, code.replace(self.old, self.new), (f"{TESTS / file}.py::{name}",))


_DELIVERY = "integration/test_delivery"
_LETTERS = "integration/test_dead_letters"
_TRANSACTIONS = "integration/test_transactions"
_DATABASE_SAGAS = "integration/test_sagas_database"
_SAGAS = "unit/test_sagas"
_SHARED = "integration/test_one_database"

PLANTED = (
    # -- the outbox and its relays ---------------------------------------------------------------------------------
    Fault(
        "an owner deletes under an old epoch",
        "outbox/delivery.py",
        "ON l.shard = h.shard AND l.epoch = h.epoch ",
        "ON l.shard = h.shard ",
        f"{_DELIVERY}::test_a_shard_that_was_lost_and_won_back_in_between_keeps_its_rows",
    ),
    Fault(
        "rows of lost shards are deleted too",
        "outbox/delivery.py",
        "AND shard IN (SELECT shard FROM mine) ",
        "",
        f"{_DELIVERY}::test_a_shard_that_was_lost_keeps_its_rows_and_the_others_go",
    ),
    Fault(
        "a delete does not wait for a take-over that is under way",
        "outbox/delivery.py",
        "ORDER BY l.shard FOR SHARE OF l), ",
        "), ",
        f"{_DELIVERY}::test_a_delete_waits_for_a_take_over_that_is_under_way",
    ),
    Fault(
        "the lease is not asked before sending",
        "outbox/delivery.py",
        "if not self._lease.sure:\n                # A pause",
        "if False:\n                # A pause",
        f"{_DELIVERY}::test_an_owner_that_was_paused_for_longer_than_its_lease_sends_nothing",
    ),
    Fault(
        "the lease is lost while Kafka takes its time, and the sending goes on",
        "outbox/delivery.py",
        "if any(self._lease.held.get(shard) != epoch for shard, epoch in before.items()):",
        "if False:",
        f"{_DELIVERY}::test_a_shard_that_is_lost_while_kafka_takes_its_time_cuts_the_sending_off",
    ),
    Fault(
        "what the broker has not acknowledged is deleted",
        "outbox/delivery.py",
        "(failed if key in blocked else done).append(row)",
        "done.append(row)",
        f"{_TRANSACTIONS}::test_a_refused_key_stays_and_others_flow",
    ),
    Fault(
        "a take-over keeps the epoch",
        "outbox/lease.py",
        "THEN l.epoch ELSE l.epoch + 1 END",
        "THEN l.epoch ELSE l.epoch END",
        f"{_DELIVERY}::test_every_take_over_raises_the_epoch_and_no_renewal_does",
    ),
    Fault(
        "a renewal raises the epoch",
        "outbox/lease.py",
        "THEN l.epoch ELSE l.epoch + 1 END",
        "THEN l.epoch + 1 ELSE l.epoch + 1 END",
        f"{_DELIVERY}::test_every_take_over_raises_the_epoch_and_no_renewal_does",
    ),
    Fault(
        "of two relays that ask at once the second takes what the first has got",
        "outbox/lease.py",
        "WHERE (l.owner = excluded.owner OR l.expires_at < now()) ",
        "WHERE true ",
        f"{_DELIVERY}::test_of_two_relays_that_ask_at_once_one_holds_the_shards",
    ),
    Fault(
        "who has not heard of a move gets a shard that is free",
        "outbox/lease.py",
        "IS NULL OR l.generation <= CAST(:generation AS bigint)",
        "IS NULL OR true",
        f"{_DELIVERY}::test_who_has_heard_of_a_move_gets_the_shards_and_who_has_not_never_again",
    ),
    Fault(
        "the number of a move is not written",
        "outbox/lease.py",
        "generation = greatest(l.generation, excluded.generation) ",
        "generation = l.generation ",
        f"{_DELIVERY}::test_a_new_generation_is_written_before_anything_is_sent",
    ),
    Fault(
        "a relay that ends releases the shards of all",
        "outbox/lease.py",
        "WHERE owner = :owner AND expires_at > now()",
        "WHERE expires_at > now()",
        f"{_DELIVERY}::test_a_release_ends_the_own_lease_alone",
    ),
    Fault(
        "the lease counts from the answer, not from the question",
        "outbox/lease.py",
        "self._asked = asked",
        "self._asked = self._clock()",
        "unit/test_relay_parts::test_a_lease_is_sure_for_less_than_the_database_grants",
    ),
    Fault(
        "rows are published as they lie in the table",
        "outbox/polling.py",
        "{where}ORDER BY position LIMIT :limit",
        "{where}LIMIT :limit",
        f"{_DELIVERY}::test_rows_are_published_by_position_wherever_they_lie",
    ),
    Fault(
        "rows are published by the age of their ids",
        "outbox/polling.py",
        "{where}ORDER BY position LIMIT :limit",
        "{where}ORDER BY message_id LIMIT :limit",
        f"{_DELIVERY}::test_rows_are_published_by_position_wherever_they_lie",
    ),
    Fault(
        "a relay publishes the shards of others",
        "outbox/polling.py",
        "shard = ANY(CAST(:shards AS smallint[]))",
        "CAST(:shards AS smallint[]) IS NOT NULL",
        f"{_DELIVERY}::test_a_relay_publishes_its_own_shards_alone",
    ),
    Fault(
        "a stopped key hides what is behind it",
        "outbox/polling.py",
        "AS s (c, k) WHERE s.c = channel AND s.k = key)",
        "AS s (c, k) WHERE false)",
        f"{_DELIVERY}::test_a_stopped_key_hides_nothing_behind_it",
    ),
    # -- duplicates and dead letters -------------------------------------------------------------------------------
    Fault(
        "a known id is new",
        "consumer/duplicates.py",
        "AND NOT excluded.sources = ANY(string_to_array(known.sources, ' ')) ",
        "",
        f"{_TRANSACTIONS}::test_a_batch_takes_effect_once_and_answers_every_command",
    ),
    Fault(
        "an id that the release before has recorded is new",
        "consumer/duplicates.py",
        "WHERE known.sources <> '' AND NOT",
        "WHERE NOT",
        f"{_LETTERS}::test_releases_with_and_without_sources_know_each_others_duplicates",
    ),
    Fault(
        "ids are claimed in the order of the batch",
        "consumer/duplicates.py",
        "AS u(id, source) ORDER BY id ",
        "AS u(id, source) ",
        f"{_SHARED}::test_ids_are_claimed_in_one_order",
    ),
    Fault(
        "what one consumer has handled is a duplicate for all",
        "consumer/duplicates.py",
        '{"consumer": consumer, "ids"',
        '{"consumer": "all", "ids"',
        f"{_SHARED}::test_two_consumers_of_a_database_know_nothing_of_each_other",
    ),
    Fault(
        "whether keys are parked is not asked again after waiting",
        "consumer/duplicates.py",
        "return new, look or len(new) < len(claims)",
        "return new, look",
        f"{_LETTERS}::test_a_previous_owner_that_parks_late_is_waited_for",
    ),
    Fault(
        "a key that one consumer has parked waits in all",
        "consumer/dead_letters.py",
        "WHERE d.consumer = CAST(:consumer AS text) ",
        "WHERE CAST(:consumer AS text) IS NOT NULL ",
        f"{_SHARED}::test_two_consumers_of_a_database_know_nothing_of_each_other",
    ),
    Fault(
        "a key is parked behind a letter that is being resolved",
        "consumer/dead_letters.py",
        "ORDER BY d.id DESC LIMIT 1 FOR SHARE)",
        "ORDER BY d.id DESC LIMIT 1)",
        f"{_LETTERS}::test_a_message_that_comes_while_the_last_letter_is_redriven_is_not_forgotten",
    ),
    Fault(
        "the newest letter of a key follows first",
        "consumer/dead_letters.py",
        "state = 'PARKED' AND id = (\"  # noqa: S608\n    f\"SELECT min(id)",
        "state = 'PARKED' AND id = (\"  # noqa: S608\n    f\"SELECT max(id)",
        f"{_LETTERS}::test_a_redrive_handles_the_letter_once_and_its_followers_in_order",
    ),
    Fault(
        "a dead letter follows by itself",
        "consumer/dead_letters.py",
        "SET state = 'REDRIVE' WHERE state = 'PARKED' AND id = (",
        "SET state = 'REDRIVE' WHERE id = (",
        f"{_LETTERS}::test_a_letter_behind_another_of_its_key_cannot_be_redriven",
    ),
    Fault(
        "a letter is taken without its lock",
        "consumer/dead_letters.py",
        "FROM dead_letters WHERE id = :id FOR UPDATE",
        "FROM dead_letters WHERE id = :id",
        f"{_LETTERS}::test_a_redrive_handles_the_letter_once_and_its_followers_in_order",
    ),
    Fault(
        "a letter is redriven before those in front of it",
        "consumer/dead_letters.py",
        "AND parks_key AND resolved_at IS NULL AND id < :id",
        "AND parks_key AND resolved_at IS NULL AND id < :id AND false",
        f"{_LETTERS}::test_a_letter_behind_another_of_its_key_cannot_be_redriven",
    ),
    Fault(
        "a record without an id is kept each time that it comes",
        "consumer/dead_letters.py",
        "WHERE CAST(:identified AS boolean) OR NOT EXISTS (",
        "WHERE CAST(:identified AS boolean) OR true OR NOT EXISTS (",
        f"{_LETTERS}::test_no_sort_of_rubbish_stops_a_consumer_or_is_kept_twice",
    ),
    Fault(
        "two owners keep a record without an id at the same moment",
        "consumer/dead_letters.py",
        "    if not identified:\n        await connection.execute(_LOCK_ORIGIN, parameters)\n",
        "",
        f"{_SHARED}::test_two_owners_of_a_partition_keep_a_record_without_an_id_once",
    ),
    Fault(
        "in a topic that was made anew a record is taken for its predecessor at that place",
        "consumer/dead_letters.py",
        "AND body IS NOT DISTINCT FROM CAST(:body AS bytea))",
        ")",
        f"{_SHARED}::test_another_record_at_the_same_place_is_kept_too",
    ),
    # -- the consumer ----------------------------------------------------------------------------------------------
    Fault(
        "two workers handle a letter",
        "consumer/redrive.py",
        "if letter.state is not State.REDRIVE:\n                return False",
        "if False:\n                return False",
        f"{_LETTERS}::test_a_redrive_handles_the_letter_once_and_its_followers_in_order",
    ),
    Fault(
        "a consumer redrives the letters of another",
        "consumer/redrive.py",
        "AND consumer = :consumer ORDER BY",
        "AND CAST(:consumer AS text) IS NOT NULL ORDER BY",
        f"{_SHARED}::test_two_consumers_of_a_database_know_nothing_of_each_other",
    ),
    Fault(
        "a command is answered where its sender wants",
        "consumer/tasks.py",
        "        check_return_address(kind, message)\n",
        "",
        "unit/test_envelope::test_a_forged_return_address_is_a_dead_letter",
    ),
    Fault(
        "a key that is not the message's own is believed",
        "consumer/tasks.py",
        "if received.key is None or key != message.key:",
        "if received.key is None:",
        "unit/test_envelope::test_a_key_that_is_not_the_messages_own_is_not_believed",
    ),
    Fault(
        "a refused handler's own statements are committed",
        "consumer/tasks.py",
        "                if uow.touched_database:\n                    raise\n",
        "",
        f"{_LETTERS}::test_a_refusal_after_a_statement_of_ones_own_leaves_nothing_but_the_answer",
    ),
    Fault(
        "only the first partition of a batch is taken again",
        "transports/kafka/positions.py",
        "for partition, offset in _first(records).items():\n        try:",
        "for partition, offset in _first(records[:1]).items():\n        try:",
        "unit/test_offsets::test_a_failed_batch_is_taken_again_in_every_partition_of_it",
    ),
    Fault(
        "offsets of partitions that were given up are kept",
        "transports/kafka/subscription.py",
        "        self._offsets.forget()\n",
        "",
        "unit/test_offsets::test_what_was_pending_of_the_old_assignment_is_not_committed_in_the_new_one",
    ),
    Fault(
        "places of partitions that were given up are kept",
        "transports/kafka/subscription.py",
        "        self.positions.clear()\n",
        "",
        "unit/test_offsets::test_what_was_pending_of_the_old_assignment_is_not_committed_in_the_new_one",
    ),
    # -- one transaction -------------------------------------------------------------------------------------------
    Fault(
        "a stale aggregate is ignored",
        "transaction/unit_of_work.py",
        "if count != len(write.rows):",
        "if False:",
        f"{_SHARED}::test_an_aggregate_that_went_away_meanwhile_ends_the_transaction",
    ),
    Fault(
        "what a refused step wrote is kept",
        "transaction/unit_of_work.py",
        "            yield\n            self._collect(self._operation)\n        finally:\n",
        "            yield\n        finally:\n            self._collect(self._operation)\n",
        f"{_TRANSACTIONS}::test_a_refusal_discards_only_its_own_writes_and_is_answered",
    ),
    Fault(
        "aggregates are locked as they lie in the table",
        "transaction/rows.py",
        "f\"ORDER BY {key}{' FOR UPDATE' if lock else ''}\"",
        "f\"{' FOR UPDATE' if lock else ''}\"",
        f"{_SHARED}::test_aggregates_are_locked_in_the_order_of_their_keys",
    ),
    Fault(
        "aggregates are not locked",
        "transaction/rows.py",
        "f\"ORDER BY {key}{' FOR UPDATE' if lock else ''}\"",
        'f"ORDER BY {key}"',
        f"{_SHARED}::test_aggregates_are_locked_in_the_order_of_their_keys",
    ),
    Fault(
        "an answer to a client that has gone ends a worker",
        "transaction/transactions.py",
        "    if future.done():  # the caller went away\n        return\n",
        "",
        f"{_SHARED}::test_a_caller_that_has_gone_takes_no_answer_from_the_others",
    ),
    Fault(
        "a refused step's own statements are committed",
        "transaction/transactions.py",
        "if uow.touched_database:\n                        raise MustRunAlone",
        "if False:\n                        raise MustRunAlone",
        f"{_SHARED}::test_a_request_that_is_refused_after_its_own_statement_leaves_nothing",
    ),
    # -- sagas -----------------------------------------------------------------------------------------------------
    Fault(
        "any reply moves the saga",
        "sagas/orchestrator.py",
        "if message.headers.get(m.IN_REPLY_TO) != instance.awaited_command or",
        "if",
        f"{_SAGAS}::test_a_late_or_doubled_reply_changes_nothing",
    ),
    Fault(
        "the next command keeps the deadline of the one before",
        "sagas/steps.py",
        "            due_in=definition.patience.total_seconds(),\n",
        "",
        f"{_SAGAS}::test_every_command_has_a_time_of_its_own",
    ),
    Fault(
        "the next command keeps the reminders of the one before",
        "sagas/steps.py",
        "            attempts=1,\n",
        "",
        f"{_SAGAS}::test_every_command_has_a_time_of_its_own",
    ),
    Fault(
        "a step that was refused is taken back",
        "sagas/orchestrator.py",
        '", self._steps.now())\n            await self._steps.go_back(definition, instance, data, index - 1, uow)',
        '", self._steps.now())\n            await self._steps.go_back(definition, instance, data, index, uow)',
        f"{_SAGAS}::test_a_refused_first_step_undoes_only_what_was_before_it",
    ),
    Fault(
        "a step that was not answered is not taken back",
        "sagas/orchestrator.py",
        "definition.index(step.name), uow)",
        "definition.index(step.name) - 1, uow)",
        f"{_SAGAS}::test_without_an_answer_it_turns_back_and_takes_back_what_it_does_not_know",
    ),
    Fault(
        "the first step is never taken back",
        "sagas/steps.py",
        "while index >= 0:",
        "while index > 0:",
        f"{_SAGAS}::test_a_refused_pivot_undoes_everything_backwards",
    ),
    Fault(
        "a refused compensation counts as done",
        "sagas/orchestrator.py",
        '        if isinstance(reply, Failure):\n            log.warning("saga.compensation_refused"',
        '        if False:\n            log.warning("saga.compensation_refused"',
        f"{_SAGAS}::test_what_cannot_be_refused_is_asked_again_with_a_new_id",
    ),
    Fault(
        "past the pivot a saga turns back",
        "sagas/orchestrator.py",
        "return instance.state is SagaState.RUNNING and step.can_time_out",
        "return instance.state is SagaState.RUNNING",
        f"{_SAGAS}::test_past_the_pivot_nobody_turns_back",
    ),
    Fault(
        "an overdue saga that somebody holds is waited for",
        "upkeep/overdue.py",
        "FOR UPDATE SKIP LOCKED",
        "FOR UPDATE",
        f"{_DATABASE_SAGAS}::test_a_saga_that_somebody_holds_delays_no_other",
    ),
    Fault(
        "a saga that cannot be reminded is the first of the queue for ever",
        "upkeep/overdue.py",
        '                await connection.execute(postpone, {"key": row_key})\n',
        "                pass\n",
        f"{_DATABASE_SAGAS}::test_a_saga_without_its_definition_delays_no_other_and_is_seen",
    ),
    # -- retention -------------------------------------------------------------------------------------------------
    Fault(
        "an id is forgotten by its age, whenever it was handled",
        "upkeep/retention.py",
        '    "AND processed_at < now() - make_interval(secs => :seconds) "\n',
        "",
        "integration/test_retention::test_an_old_id_that_was_handled_lately_and_a_late_look_alike_stay",
    ),
    Fault(
        "sagas that have not ended are deleted",
        "upkeep/retention.py",
        "AND finished AND deadline <",
        "AND deadline <",
        "integration/test_retention::test_sagas_go_when_they_have_ended_and_are_old",
    ),
    Fault(
        "ids of one consumer are forgotten",
        "upkeep/retention.py",
        "names = [row[0] for row in await connection.execute(_CONSUMERS)]",
        "names = [row[0] for row in await connection.execute(_CONSUMERS)][:1]",
        "integration/test_retention::test_old_ids_of_every_consumer_go",
    ),
)
