"""What Redis does in one step: a script in Lua for each method of the store.

A record is a hash:

====  ==============================================================================================
b     what the codec made
d     until when it lives, in milliseconds of Redis's clock
o     the token of whoever has it; empty or not there if nobody has
u     until when, even if its worker lives
q     the tokens of those who wait for it, the first one first
l     the workers that have callbacks of it which could not be stored
====  ==============================================================================================

A token begins with the id of its worker, so that everybody can see from a token whether its worker
lives: its heartbeat is there, and at least one of its two connections, each of which has subscribed
to a channel. So one that was killed is known to be dead at once, and one that stands still, or
whose machine is gone, a moment later. Who gives a record back hands it to the first of
those who wait, and tells that one's worker by the worker's channel: nobody has to ask again and
again, nobody is passed over, and no two get it. A message that is lost costs a moment only, as
those who wait look again four times a second.

Redis forbids commands that need memory when there is none left, but not after a script has written
something. So a script either fails at its first write, or does all that it has to do.

The names of the keys, with ``rpy`` as the prefix: ``rpy:{7f}:s:KEY`` a record, ``rpy:{7f}:e:KEY``
one whose time is over and that a worker has claimed, ``rpy:{7f}:due`` the deadlines of all that
begin with the byte 7f, ``rpy:w:ID`` a worker's heartbeat and its channel, ``rpy:h:ID`` the channel
of the thread that sets the heartbeat, to which nobody sends anything, ``rpy:workers`` all ids,
``rpy:endings:ID`` what a worker has claimed, ``rpy:inbox:ID`` what it has been told.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

WORKER_ID: Final = 16
"""Characters of a worker's id."""

TOKEN: Final = 32
"""Characters of a token: the id of its worker, and a number."""

NEVER: Final = 9_000_000_000_000_000
"""The deadline of what never ends, in milliseconds; Lua's numbers hold it exactly."""

LOOK: Final = 250
"""Milliseconds after which whoever waits looks again."""

BROOM: Final = 3_600_000
"""Milliseconds after its deadline at which Redis drops a record that no worker has claimed."""

_COMMON: Final = f"""
local PREFIX, NEVER, TOKEN, ID = '@PREFIX@', {NEVER}, {TOKEN}, {WORKER_ID}

local function text(number) return string.format('%.0f', number) end

local function clock()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function heartbeat(token) return PREFIX .. ':w:' .. string.sub(token, 1, ID) end

local function lives(token)
  if redis.call('EXISTS', heartbeat(token)) == 0 then return false end
  local thread = PREFIX .. ':h:' .. string.sub(token, 1, ID)
  local counts = redis.call('PUBSUB', 'NUMSUB', heartbeat(token), thread)
  return counts[2] + counts[4] > 0
end

local function has(token) return token and token ~= '' end

-- Lets all in the queue look again.
local function wake(queue)
  for at = 1, #(queue or ''), TOKEN do
    local token = string.sub(queue, at, at + TOKEN - 1)
    redis.call('PUBLISH', heartbeat(token), token)
  end
end

-- Gives the record to the first in the queue whose worker lives. Returns its token.
local function hand_over(record, queue, till)
  local owner = ''
  while owner == '' and queue ~= '' do
    local first = string.sub(queue, 1, TOKEN)
    queue = string.sub(queue, TOKEN + 1)
    if lives(first) then owner = first end
  end
  redis.call('HSET', record, 'o', owner, 'u', text(till), 'q', queue)
  if owner ~= '' then redis.call('PUBLISH', heartbeat(owner), owner) end
  return owner
end

-- Until when a record lives: for ever without lives_for, and as until now without an access.
local function deadline(now, lives_for, until_now)
  if lives_for == '' then return NEVER end
  if lives_for == '-' then return tonumber(until_now) end
  return now + lives_for
end

local function schedule(record, deadlines, member, due)
  redis.call('ZADD', deadlines, text(due), member)
  if due == NEVER then
    redis.call('PERSIST', record)
  else
    redis.call('PEXPIREAT', record, text(due + {BROOM}))
  end
end
"""

_TAKE: Final = f"""
local token, lease, may_take_over = ARGV[1], ARGV[2], ARGV[3] == '1'
local create, waits = ARGV[4] == '1', ARGV[5] == '1'
local found = redis.call('HMGET', KEYS[1], 'b', 'o', 'u', 'q', 'd')
local blob, owner, till, queue, due = found[1], found[2], found[3], found[4] or '', found[5]
local now = clock()
if not blob then
  if not create then return {{0}} end
  redis.call('HSET', KEYS[1], 'b', '', 'o', token, 'u', text(now + lease), 'd', text(NEVER))
  return {{1, ''}}
end
if owner == token then return {{1, blob}} end
if not has(owner) then
  if tonumber(due) <= now then return {{0}} end
  redis.call('HSET', KEYS[1], 'o', token, 'u', text(now + lease))
  return {{1, blob}}
end
local is_over = tonumber(till) <= now or (may_take_over and not lives(owner))
if not waits and (not is_over or queue ~= '') then return {{2, 0}} end
if not string.find(queue, token, 1, true) then queue = queue .. token end
if is_over then
  if tonumber(due) <= now then return {{0}} end
  till = now + lease
  owner = hand_over(KEYS[1], queue, till)
  if owner == token then return {{1, blob}} end
else
  redis.call('HSET', KEYS[1], 'q', queue)
end
-- When to look again: its worker may have died then, or the lease may have ended.
return {{2, math.min({LOOK}, till - now)}}
"""

_CREATE: Final = """
local token, lease, lives_for, member, blob, listeners = unpack(ARGV)
local now = clock()
local due = deadline(now, lives_for)
redis.call('HSET', KEYS[1], 'b', blob, 'o', token, 'u', text(now + lease), 'd', text(due))
if has(listeners) then redis.call('HSET', KEYS[1], 'l', listeners) end
schedule(KEYS[1], KEYS[2], member, due)
return 1
"""

_WRITE: Final = """
local token, lease, lives_for, member, blob = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
if redis.call('HGET', KEYS[1], 'o') ~= token then return 0 end
local now = clock()
local due = deadline(now, lives_for)
redis.call('HSET', KEYS[1], 'b', blob, 'u', text(now + lease), 'd', text(due))
schedule(KEYS[1], KEYS[2], member, due)
return 1
"""

_GIVE: Final = """
local token, lease, lives_for, member = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local listens, blob = ARGV[5] == '1', ARGV[6]
local found = redis.call('HMGET', KEYS[1], 'o', 'q', 'l', 'd')
local owner, queue, listeners = found[1], found[2], found[3] or ''
if owner ~= token then return 0 end
local now = clock()
local due = deadline(now, lives_for, found[4])
if blob then
  redis.call('HSET', KEYS[1], 'o', '', 'd', text(due), 'b', blob)
else
  redis.call('HSET', KEYS[1], 'o', '', 'd', text(due))
end
if listens or listeners ~= '' then
  local id = string.sub(token, 1, ID)
  local others = string.gsub(listeners, id, '')
  redis.call('HSET', KEYS[1], 'l', listens and others .. id or others)
end
if has(queue) then hand_over(KEYS[1], queue, now + lease) end
schedule(KEYS[1], KEYS[2], member, due)
return 1
"""

_RELEASE: Final = """
local token, lease = ARGV[1], ARGV[2]
local found = redis.call('HMGET', KEYS[1], 'o', 'q')
local owner, queue = found[1], found[2] or ''
if owner == token then
  redis.call('HDEL', KEYS[1], 'o') -- needs no memory, so this is done in any case
  if queue ~= '' then hand_over(KEYS[1], queue, clock() + lease) end
elseif string.find(queue, token, 1, true) then
  redis.call('HDEL', KEYS[1], 'q')
  redis.call('HSET', KEYS[1], 'q', (string.gsub(queue, token, '')))
end
return redis.call('EXISTS', KEYS[1])
"""

_MOVE: Final = """
local token, lease, lives_for, member, blob, old_member = unpack(ARGV)
local found = redis.call('HMGET', KEYS[1], 'o', 'q')
if found[1] ~= token then return 0 end
local now = clock()
local due = deadline(now, lives_for)
redis.call('HSET', KEYS[1], 'b', blob, 'u', text(now + lease), 'd', text(due), 'q', '')
redis.call('RENAME', KEYS[1], KEYS[3])
redis.call('ZREM', KEYS[2], old_member)
schedule(KEYS[3], KEYS[4], member, due)
wake(found[2])
return 1
"""

_LISTENERS: Final = """
if redis.call('HGET', KEYS[1], 'o') ~= ARGV[1] then return false end
return redis.call('HGET', KEYS[1], 'l') or ''
"""

_END: Final = """
local token, member = ARGV[1], ARGV[2]
local found = redis.call('HMGET', KEYS[1], 'o', 'q', 'l')
if found[1] ~= token then return false end
redis.call('DEL', KEYS[1])
redis.call('ZREM', KEYS[2], member)
wake(found[2])
return found[3] or ''
"""

# Claims a record for the worker *id*, and puts it into the list *claimed*.
_CLAIM: Final = """
local id = ARGV[1]
local claimed = {}

local function claim(bucket, deadlines, member, blob, listeners, queue)
  redis.call('ZREM', deadlines, member)
  redis.call('RENAME', bucket .. 's:' .. member, bucket .. 'e:' .. member)
  redis.call('SADD', PREFIX .. ':endings:' .. id, member)
  wake(queue)
  claimed[#claimed + 1] = {member, blob, listeners or ''}
end
"""

_DUE: Final = (
    _CLAIM
    + """
local most = tonumber(ARGV[2])
-- Needs no memory, and from here on nothing else does: what is due is to go above all then.
redis.call('DEL', PREFIX .. ':nothing')
-- Whichever worker comes first; together they look no more often than this.
if not redis.call('SET', PREFIX .. ':swept', id, 'NX', 'PX', 50) then return {} end
local now = clock()

local function look(bucket, deadlines, member)
  local record = bucket .. 's:' .. member
  local found = redis.call('HMGET', record, 'b', 'o', 'u', 'l', 'q', 'd')
  local blob, owner, till, listeners, queue, due = unpack(found)
  if not blob then
    redis.call('ZREM', deadlines, member)
  elseif has(owner) and tonumber(till) > now and lives(owner) then
    -- It is in use, and lives on when it is given back.
    redis.call('ZADD', deadlines, text(now + 250), member)
  elseif tonumber(due) > now then
    redis.call('ZADD', deadlines, due, member)
  else
    claim(bucket, deadlines, member, blob, listeners, queue)
  end
end

for number = 0, 255 do
  local bucket = string.format('%s:{%02x}:', PREFIX, number)
  local deadlines = bucket .. 'due'
  local room = most - #claimed
  if room <= 0 then
    redis.call('DEL', PREFIX .. ':swept')
    return claimed
  end
  local members = redis.call('ZRANGEBYSCORE', deadlines, 0, text(now), 'LIMIT', 0, room)
  for _, member in ipairs(members) do look(bucket, deadlines, member) end
end
return claimed
"""
)

# Finds the session that is due first: *first* is its bucket and member, *score* its deadline.
_FIRST: Final = """
local first, score
for number = 0, 255 do
  local bucket = string.format('%s:{%02x}:', PREFIX, number)
  local found = redis.call('ZRANGE', bucket .. 'due', 0, 0, 'WITHSCORES')
  if found[1] and (not score or tonumber(found[2]) < score) then
    first, score = {bucket, found[1]}, tonumber(found[2])
  end
end
"""

_PEEK: Final = _FIRST + "return score and text(score)"

_EVICT: Final = (
    _CLAIM
    + _FIRST
    + """
if first then
  local bucket, member = unpack(first)
  local record = bucket .. 's:' .. member
  local found = redis.call('HMGET', record, 'b', 'o', 'u', 'l', 'q')
  local blob, owner, till, listeners, queue = unpack(found)
  local now = clock()
  if not blob then
    redis.call('ZREM', bucket .. 'due', member)
  elseif not has(owner) or tonumber(till) <= now or not lives(owner) then
    claim(bucket, bucket .. 'due', member, blob, listeners, queue)
  end
end
return claimed
"""
)

_ENDED: Final = """
redis.call('DEL', KEYS[1])
redis.call('SREM', PREFIX .. ':endings:' .. ARGV[1], ARGV[2])
return 1
"""

_ADOPT: Final = """
local id = ARGV[1]
redis.call('DEL', PREFIX .. ':nothing')
if not redis.call('SET', PREFIX .. ':adopted', id, 'NX', 'PX', 200) then return {} end
local adopted = {}

local function adopt(dead)
  local endings, inbox = PREFIX .. ':endings:' .. dead, PREFIX .. ':inbox:' .. dead
  for _, member in ipairs(redis.call('SMEMBERS', endings)) do
    local ending = PREFIX .. ':{' .. string.sub(member, 1, 2) .. '}:e:' .. member
    local found = redis.call('HMGET', ending, 'b', 'l')
    if found[1] then
      redis.call('SADD', PREFIX .. ':endings:' .. id, member)
      adopted[#adopted + 1] = {member, found[1], found[2] or ''}
    end
  end
  -- What it had been told and has not done: of that, only its callbacks are lost.
  for _, member in ipairs(redis.call('LRANGE', inbox, 0, -1)) do
    adopted[#adopted + 1] = {member, '', dead}
  end
  redis.call('DEL', endings, inbox)
  redis.call('SREM', PREFIX .. ':workers', dead)
end

for _, worker in ipairs(redis.call('SMEMBERS', PREFIX .. ':workers')) do
  if worker ~= id and not lives(worker) then adopt(worker) end
end
return adopted
"""

_TELL: Final = """
local worker, member = ARGV[1], ARGV[2]
if not lives(worker) then return 0 end
redis.call('RPUSH', PREFIX .. ':inbox:' .. worker, member)
redis.call('PUBLISH', heartbeat(worker), '')
return 1
"""

_WORKERS: Final = """
local living = 0
for _, worker in ipairs(redis.call('SMEMBERS', PREFIX .. ':workers')) do
  if lives(worker) then living = living + 1 end
end
return living
"""

_COUNT: Final = """
local known = redis.call('GET', PREFIX .. ':live')
if known and ARGV[1] == '0' then return tonumber(known) end
local live = 0
for number = 0, 255 do
  live = live + redis.call('ZCARD', string.format('%s:{%02x}:due', PREFIX, number))
end
redis.call('SET', PREFIX .. ':live', live, 'PX', 900)
return live
"""


@dataclass(frozen=True, slots=True)
class Script:
    """A script, and the hash under which Redis knows it once it has been loaded."""

    text: str
    sha: str

    @classmethod
    def of(cls, text: str, prefix: str) -> Script:
        text = (_COMMON + text).replace("@PREFIX@", prefix)
        return cls(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


class Scripts:
    """All scripts, for keys that begin with *prefix*."""

    def __init__(self, prefix: str) -> None:
        self.take = Script.of(_TAKE, prefix)
        self.create = Script.of(_CREATE, prefix)
        self.write = Script.of(_WRITE, prefix)
        self.give = Script.of(_GIVE, prefix)
        self.release = Script.of(_RELEASE, prefix)
        self.move = Script.of(_MOVE, prefix)
        self.listeners = Script.of(_LISTENERS, prefix)
        self.end = Script.of(_END, prefix)
        self.due = Script.of(_DUE, prefix)
        self.peek = Script.of(_PEEK, prefix)
        self.evict = Script.of(_EVICT, prefix)
        self.ended = Script.of(_ENDED, prefix)
        self.adopt = Script.of(_ADOPT, prefix)
        self.tell = Script.of(_TELL, prefix)
        self.workers = Script.of(_WORKERS, prefix)
        self.count = Script.of(_COUNT, prefix)

    def __iter__(self) -> Iterator[Script]:
        return iter(vars(self).values())
