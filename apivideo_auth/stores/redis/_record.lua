-- The transitions of `_record.py` for Redis: on one hash per account, dated by the server's clock.
--
-- KEYS[1]: the record's key, which is also the name of the channel on which commits and releases are published.
-- ARGV:    the operation; the time, or "" for the server's; then the arguments of the operation.
-- Answers: a flat array of strings: a word, the record's stamp, a digest of the record if it was damaged, and the items
--          that belong to the word.
--
-- A damaged record counts as empty, and the next claim replaces it. A key of another type is an error, and stays.
--
-- Arrays in Lua end at the first nil, so "" stands for nil, and "=" precedes a value that may be nil. Numbers are passed
-- and kept as "%.17g", which loses no digit. A script runs as one atomic step.

local key = KEYS[1]

local NUMBERS = {
  'lifetime', 'ends_at', 'claimed_at', 'claim_until', 'not_before', 'failures', 'failing_since', 'throttle',
  'throttled_until',
}
local NUMBERS_OR_NONE = { 'committed_at', 'rejected_at', 'unrejected_since' }
local TEXTS_OR_NONE = { 'version', 'claim_id', 'access', 'refresh', 'failure' }

local function exact(number)
  return string.format('%.17g', number)
end

local function marked(value)
  return value and '=' .. value or ''
end

local function unmarked(text)
  if text ~= '' then return string.sub(text, 2) end
end

local function finite(text)
  local number = text and tonumber(text)
  if number and number - number == 0 then return number end
end

local function server_time()
  local time = redis.call('TIME')
  return tonumber(time[1]) + tonumber(time[2]) / 1000000
end

local now = finite(ARGV[2]) or server_time()

local function empty()
  local record = {}
  for _, name in ipairs(NUMBERS) do record[name] = 0 end
  return record
end

-- Return the record in these fields, or nil if they are not a record.
local function parsed(fields)
  local record = {}
  for _, name in ipairs(NUMBERS) do
    record[name] = finite(fields[name])
    if not record[name] then return nil end
  end
  for _, name in ipairs(NUMBERS_OR_NONE) do
    record[name] = finite(fields[name])
    if fields[name] and not record[name] then return nil end
  end
  for _, name in ipairs(TEXTS_OR_NONE) do record[name] = fields[name] end
  if record.failures < 0 or record.failures ~= math.floor(record.failures) then return nil end
  for _, name in ipairs({ 'version', 'claim_id' }) do
    if record[name] and string.find(record[name], '[^\33-\126]') then return nil end
  end
  return record
end

local found = redis.pcall('HGETALL', key)
if found.err then return found end
local record, damage, is_damaged = empty(), '', false
if #found > 0 then
  local fields = {}
  for i = 1, #found, 2 do fields[found[i]] = found[i + 1] end
  record = parsed(fields)
  if not record then
    record, damage, is_damaged = empty(), redis.sha1hex(table.concat(found, '\n')), true
  end
end

local function save()
  if is_damaged then redis.call('DEL', key) end
  local set, unset = { 'HSET', key }, { 'HDEL', key }
  local function put(name, value)
    if value then
      set[#set + 1] = name
      set[#set + 1] = value
    else
      unset[#unset + 1] = name
    end
  end
  for _, name in ipairs(NUMBERS) do put(name, exact(record[name])) end
  for _, name in ipairs(NUMBERS_OR_NONE) do put(name, record[name] and exact(record[name])) end
  for _, name in ipairs(TEXTS_OR_NONE) do put(name, record[name]) end
  -- HSET comes first: if Redis refuses it (out of memory, a replica), nothing has been changed.
  redis.call(unpack(set))
  if #unset > 2 then redis.call(unpack(unset)) end
  redis.call('PEXPIRE', key, KEPT_FOR_MS)
end

-- Return an answer. The stamp changes with every claim, commit and release.
local function answer(word, ...)
  local stamp = (record.version or '') .. ' ' .. (record.claim_id or '') .. ' ' .. exact(record.failures)
  return { word, stamp, damage, ... }
end

local function publish(change)
  -- Not `call`: without the right to publish the store works too, since waiters poll.
  redis.pcall('PUBLISH', key, change)
end

-- From here on the functions are those of `_record.py`.

local function ahead(moment, longest)
  local distance = moment - now
  if distance > 0 and distance <= longest + CLOCK_TOLERANCE then return math.min(distance, longest) end
  return 0
end

local function failing_for()
  if record.failures == 0 then return 0 end
  return math.max(0, now - record.failing_since)
end

local function unrejected_since()
  if record.rejected_at or not record.unrejected_since then return now end
  return record.unrejected_since
end

local function throttle_starts_again()
  if not (record.rejected_at and record.unrejected_since) then return false end
  return record.rejected_at - record.unrejected_since >= REJECTION_RESET_AFTER
end

local function shared_token()
  if not (record.version and record.access and record.committed_at) then return nil end
  local lifetime = math.min(record.lifetime, MAX_LIFETIME)
  local remaining = math.min(record.ends_at - now, lifetime)
  local is_from_future = math.max(record.ends_at - lifetime, record.committed_at) > now + CLOCK_TOLERANCE
  if remaining <= 0 or is_from_future then return nil end
  return record.version, record.access, exact(lifetime), exact(remaining), exact(record.committed_at)
end

local operations = {}

function operations.read()
  if shared_token() then return answer('token', shared_token()) end
  return answer('none')
end

local function granted(refresh)
  local committed_at = record.committed_at and exact(record.committed_at)
  return answer('granted', marked(refresh), marked(committed_at), exact(record.failures), exact(failing_for()))
end

function operations.claim(id, seen, lease, may_be_throttled, without_failure)
  seen, lease, may_be_throttled = unmarked(seen), tonumber(lease), may_be_throttled == '1'
  if without_failure == '1' then record.failure = nil end
  local lease_left = record.claim_id and ahead(record.claim_until, MAX_LEASE) or 0
  if lease_left > 0 and record.claim_id == id then return granted(record.refresh) end
  local version = shared_token()
  if version and version ~= seen then return answer('changed', shared_token()) end
  if lease_left > 0 then return answer('busy', exact(lease_left)) end
  local is_first = may_be_throttled and not record.rejected_at
  if is_first then record.rejected_at = now end
  local backoff_left = ahead(record.not_before, MAX_BACKOFF)
  if backoff_left > 0 and record.failure then
    if is_first then save() end
    return answer(
      'backoff', exact(backoff_left), record.failure, exact(record.failures), exact(failing_for()),
      marked(record.committed_at and exact(record.committed_at))
    )
  end
  if may_be_throttled then
    local age_left = record.committed_at and ahead(record.committed_at + MIN_REJECTION_AGE, MIN_REJECTION_AGE) or 0
    local throttle_left = math.max(ahead(record.throttled_until, MAX_THROTTLE), age_left)
    if throttle_left > 0 then
      if is_first then save() end
      return answer('throttled', exact(throttle_left))
    end
    local grown = throttle_starts_again() and INITIAL_THROTTLE or math.max(INITIAL_THROTTLE, 2 * record.throttle)
    record.throttle = math.min(grown, MAX_THROTTLE)
    record.throttled_until = now + record.throttle
  end
  if record.claim_id then record.refresh = nil end
  record.claim_id, record.claimed_at, record.claim_until = id, now, now + lease
  save()
  return granted(record.refresh)
end

function operations.commit(id, access, refresh, lifetime, remaining, ends_after)
  if record.version == id then return answer('done', exact(record.committed_at)) end
  if record.claim_id ~= id then return answer('claim_lost', shared_token()) end
  lifetime, remaining = tonumber(lifetime), tonumber(remaining)
  record.version, record.access, record.refresh = id, access, unmarked(refresh)
  record.lifetime, record.committed_at = lifetime, now
  record.ends_at = math.min(now + remaining, record.claimed_at + tonumber(ends_after))
  record.claim_id, record.claimed_at, record.claim_until = nil, 0, 0
  record.not_before, record.failure, record.failures, record.failing_since = 0, nil, 0, 0
  record.unrejected_since, record.rejected_at = unrejected_since(), nil
  save()
  publish('commit ' .. id)
  return answer('done', exact(now))
end

function operations.release(id, retry_after, failure, refresh)
  if record.claim_id ~= id then return answer('claim_lost', shared_token()) end
  record.refresh, record.claim_id, record.claimed_at, record.claim_until = unmarked(refresh), nil, 0, 0
  failure = unmarked(failure)
  if failure then
    if record.failures == 0 then record.failing_since = now end
    record.failures = record.failures + 1
    record.not_before, record.failure = now + tonumber(retry_after), failure
  end
  save()
  publish('release ' .. id)
  return answer('done')
end

function operations.stamp()
  return answer('stamp')
end

function operations.forget()
  redis.call('DEL', key)
  record, damage = empty(), ''
  return answer('done')
end

return operations[ARGV[1]](unpack(ARGV, 3))
