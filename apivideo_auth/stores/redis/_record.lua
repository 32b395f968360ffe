-- The transitions of `_record.py` for Redis: on one hash per account, dated by the server's clock.
--
-- KEYS[1]: the record's key, which is also the name of the channel on which commits and releases are published.
-- ARGV:    the operation; the time, or "" for the server's; "1" to treat a damaged record as empty; then the arguments
--          of the operation.
-- Answers: a flat array of strings: a word, the record's stamp, and the items that belong to the word.
--
-- Arrays in Lua end at the first nil, so "" stands for nil, and "=" precedes a value that may be nil. Numbers are passed
-- and kept as "%.17g", which loses no digit. A script runs as one atomic step.

local key = KEYS[1]

local NUMBERS = {
  'lifetime', 'ends_at', 'claim_until', 'not_before', 'failures', 'failing_since', 'throttle', 'throttled_until',
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

-- Return the record; or nil and the reason why it cannot be read.
local function read_record()
  local found = redis.pcall('HGETALL', key)
  if found.err then return nil, string.match(found.err, '%u+') or 'ERR' end
  if #found == 0 then return empty() end
  local fields, record = {}, {}
  for i = 1, #found, 2 do fields[found[i]] = found[i + 1] end
  for _, name in ipairs(NUMBERS) do
    record[name] = finite(fields[name])
    if not record[name] then return nil, 'FIELDS' end
  end
  for _, name in ipairs(NUMBERS_OR_NONE) do
    record[name] = finite(fields[name])
    if fields[name] and not record[name] then return nil, 'FIELDS' end
  end
  for _, name in ipairs(TEXTS_OR_NONE) do record[name] = fields[name] end
  if record.failures < 0 or record.failures ~= math.floor(record.failures) then return nil, 'FIELDS' end
  for _, name in ipairs({ 'version', 'claim_id' }) do
    if record[name] and string.find(record[name], '[^\33-\126]') then return nil, 'FIELDS' end
  end
  return record
end

local record, damage = read_record()
if damage then
  if ARGV[3] ~= '1' then return { 'damaged', 'damaged', damage } end
  record = empty()
end

local function save()
  if damage then
    redis.call('DEL', key)
    damage = nil
  end
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
  local stamp = damage and 'damaged'
    or (record.version or '') .. ' ' .. (record.claim_id or '') .. ' ' .. exact(record.failures)
  return { word, stamp, ... }
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

local function was_trusted()
  if not (record.rejected_at and record.unrejected_since) then return false end
  return record.rejected_at - record.unrejected_since >= REJECTION_RESET_AFTER
end

local function shared_token()
  if not (record.version and record.access) then return nil end
  local lifetime = math.min(record.lifetime, MAX_LIFETIME)
  local remaining = math.min(record.ends_at - now, lifetime)
  if not (remaining > 0) then return nil end
  return record.version, record.access, exact(lifetime), exact(remaining)
end

local operations = {}

function operations.read()
  if shared_token() then return answer('token', shared_token()) end
  return answer('none')
end

function operations.claim(id, seen, lease, rejected)
  seen, lease, rejected = unmarked(seen), tonumber(lease), rejected == '1'
  local version = shared_token()
  if version and version ~= seen then return answer('changed', shared_token()) end
  local busy = record.claim_id and ahead(record.claim_until, MAX_LEASE) or 0
  if busy > 0 then return answer('busy', exact(busy)) end
  if rejected and not record.rejected_at then record.rejected_at = now end
  local backoff = ahead(record.not_before, MAX_BACKOFF)
  if backoff > 0 and record.failure then
    if rejected then save() end
    return answer('backoff', exact(backoff), record.failure, exact(record.failures), exact(failing_for()))
  end
  if rejected then
    local young = record.committed_at and ahead(record.committed_at + MIN_REJECTION_AGE, MIN_REJECTION_AGE) or 0
    local throttled = math.max(ahead(record.throttled_until, MAX_THROTTLE), young)
    if throttled > 0 then
      save()
      return answer('throttled', exact(throttled))
    end
    local grown = was_trusted() and INITIAL_THROTTLE or math.max(INITIAL_THROTTLE, 2 * record.throttle)
    record.throttle = math.min(grown, MAX_THROTTLE)
    record.throttled_until = now + record.throttle
  end
  local refresh = record.refresh
  record.refresh, record.claim_id, record.claim_until = nil, id, now + lease
  save()
  return answer(
    'granted', marked(refresh), marked(record.version), exact(record.ends_at - now), exact(record.failures),
    exact(failing_for())
  )
end

function operations.commit(id, access, refresh, lifetime, remaining)
  if record.claim_id ~= id then return answer('claim_lost', shared_token()) end
  record.version, record.access, record.refresh = id, access, unmarked(refresh)
  record.lifetime, record.committed_at, record.ends_at = tonumber(lifetime), now, now + tonumber(remaining)
  record.claim_id, record.claim_until = nil, 0
  record.not_before, record.failure, record.failures, record.failing_since = 0, nil, 0, 0
  record.unrejected_since, record.rejected_at = unrejected_since(), nil
  save()
  publish('commit ' .. id)
  return answer('done')
end

function operations.release(id, backoff, failure, refresh)
  if record.claim_id ~= id then return answer('claim_lost', shared_token()) end
  record.refresh, record.claim_id, record.claim_until = unmarked(refresh), nil, 0
  failure = unmarked(failure)
  if failure then
    if record.failures == 0 then record.failing_since = now end
    record.failures = record.failures + 1
    record.not_before, record.failure = now + tonumber(backoff), failure
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
  record, damage = empty(), nil
  return answer('done')
end

return operations[ARGV[1]](unpack(ARGV, 4))
