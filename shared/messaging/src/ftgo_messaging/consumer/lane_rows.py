"""The statements of lane leases. All but ``CHECK`` and ``JOIN`` leave out what others have locked, and these two lock
in one order, so members cannot deadlock.

The database's clock decides, so that hosts need not agree on the time.
"""

from sqlalchemy import text

SEED = text(
    "INSERT INTO lane_lease (consumer, lane, owner, epoch) SELECT :consumer, lane, '', 0 "
    "FROM unnest(CAST(:lanes AS text[])) AS lane ORDER BY lane ON CONFLICT DO NOTHING"
)
# Rows that an earlier process of the same instance has left go in the same statement (none without an instance): nobody
# has seen their lanes free and us not there. One that renews at this moment is waited for: it loses its row, too.
JOIN = text(
    "WITH earlier AS (SELECT member FROM lane_member WHERE consumer = :consumer "
    "AND starts_with(member, CAST(:returns AS text) || '/') AND member <> :owner ORDER BY member FOR UPDATE), "
    "gone AS (DELETE FROM lane_member WHERE consumer = :consumer AND member IN (SELECT member FROM earlier)) "
    "INSERT INTO lane_member (consumer, member, wants, expires_at) "
    "VALUES (:consumer, :owner, CAST(:lanes AS text[]), now() + make_interval(secs => :ttl)) ON CONFLICT DO NOTHING"
)
RENEW = text(
    "WITH me AS (UPDATE lane_member SET expires_at = now() + make_interval(secs => :ttl) "
    "WHERE consumer = :consumer AND member = :owner RETURNING 1) "
    "SELECT member, wants, member <> :owner AND expires_at < now() AS late, EXISTS (SELECT FROM me) AS renewed "
    "FROM lane_member WHERE consumer = :consumer"
)
# A row that is locked is being renewed at this moment, or deleted by another member.
SWEEP = text(
    "DELETE FROM lane_member WHERE consumer = :consumer AND member IN (SELECT member FROM lane_member "
    "WHERE consumer = :consumer AND member <> :owner AND expires_at < now() FOR UPDATE SKIP LOCKED)"
)
# Leases and members of one snapshot: who owns a lane had its row before.
LOOK = text(
    "SELECT lane, epoch, owner = :owner AS mine, NOT EXISTS "
    "(SELECT FROM lane_member m WHERE m.consumer = l.consumer AND m.member = l.owner) AS free "
    "FROM lane_lease l WHERE consumer = :consumer AND lane = ANY(CAST(:lanes AS text[])) ORDER BY lane"
)
# The lanes of which nobody else has become the owner since, always in the same order.
_UNCHANGED = (
    "SELECT o.lane FROM lane_lease o "
    "JOIN unnest(CAST(:lanes AS text[]), CAST(:epochs AS bigint[])) AS seen (lane, epoch) "
    "ON o.lane = seen.lane AND o.epoch = seen.epoch WHERE o.consumer = :consumer ORDER BY o.lane "
)
# A lane with whose records a transaction is under way is left for the next time.
CHANGE = text(
    f"WITH unused AS ({_UNCHANGED}FOR NO KEY UPDATE OF o SKIP LOCKED) "  # noqa: S608 - constants
    "UPDATE lane_lease l SET owner = :to, epoch = l.epoch + 1 FROM unused "
    "WHERE l.consumer = :consumer AND l.lane = unused.lane RETURNING l.lane, l.epoch"
)
CHECK = text(f"{_UNCHANGED}FOR SHARE OF o")
LEAVE = text("DELETE FROM lane_member WHERE consumer = :consumer AND member = :owner")
