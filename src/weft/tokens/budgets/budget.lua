-- The laws of budgets, run by Redis, one call at a time. See laws.py, which they have to equal.
--
-- Amounts are decimal text: numbers of Lua are exact up to 2^53 only, those of HINCRBY to 2^63. What
-- is left of a cap is kept beside it, so that its sign tells whether there is room.
local P, op, told_now = KEYS[1], ARGV[1], ARGV[2]
local arg = cjson.decode(ARGV[3])

local function neg(a) return a:sub(1, 1) == '-' and a:sub(2) or (a == '0' and a or '-' .. a) end
local function add(key, field, a) return redis.call('HINCRBY', key, field, a) end
local function get(key, field) return redis.call('HGET', key, field) end
local function gt(a, b) -- of amounts of at least 0
  if #a ~= #b then return #a > #b end
  return a > b
end
local function fail(kind, more)
  more = more or {}
  more.err = kind
  error({text = cjson.encode(more)}, 0)
end

local clock = redis.call('GET', P .. 'clock') or '0'
local now = tonumber(told_now) > tonumber(clock) and told_now or clock
local t = tonumber(now)

local function months(at) -- years * 12 + month. Source: Hinnant, days_from_civil inverted.
  local z = math.floor(at / 86400) + 719468
  local era = math.floor(z / 146097)
  local doe = z - era * 146097
  local yoe = math.floor((doe - math.floor(doe / 1460) + math.floor(doe / 36524) - math.floor(doe / 146096)) / 365)
  local mp = math.floor((5 * (doe - (365 * yoe + math.floor(yoe / 4) - math.floor(yoe / 100))) + 2) / 153)
  local month = mp < 10 and mp + 3 or mp - 9
  return (yoe + era * 400 + (month <= 2 and 1 or 0)) * 12 + month
end

local function slice(window, at)
  if window == 'none' then return 0 end
  if window == 'hourly' then return math.floor(at / 3600) end
  if window == 'daily' then return math.floor(at / 86400) end
  if window == 'monthly' then return months(at) end
  return math.floor(at * 60 / tonumber(window:match('%d+')))
end

local function first(window)
  return slice(window, t) - (window:sub(1, 7) == 'rolling' and 60 or 0)
end

local function log(kind, node, handle, amounts, note)
  redis.call('SET', P .. 'clock', now)
  if next(amounts) == nil then amounts = cjson.decode('{}') end
  redis.call('RPUSH', P .. 'log', cjson.encode({now, kind, node, handle, amounts, note}))
end

local forgotten = {} -- to be remembered again by a law that refuses: it leaves the clock as it was, too

local function roll(own)
  if own.window == 'none' then return end
  local oldest, all = first(own.window), redis.call('HGETALL', own.key)
  for i = 1, #all, 2 do
    local number = all[i]:match('^s(%d+)$')
    if number and tonumber(number) < oldest then
      add(own.key, 'spent', neg(all[i + 1]))
      add(own.key, 'left', all[i + 1])
      redis.call('HDEL', own.key, all[i])
      forgotten[#forgotten + 1] = {own.key, all[i], all[i + 1]}
    end
  end
end

local function accounts(path)
  local found = {}
  for i, name in ipairs(redis.call('LRANGE', P .. 'node:' .. path, 0, -1)) do
    local unit, window = name:match('^(.-)\t(.*)$')
    local key = P .. 'account:' .. path .. '\t' .. name
    found[i] = {key = key, node = path, unit = unit, window = window}
  end
  return found
end

local function chain(path, closed)
  local paying, at = {}, path
  if #accounts(path) == 0 then fail('no_node', {node = path}) end
  local stop = false
  while true do
    for _, own in ipairs(accounts(at)) do
      if not closed and get(own.key, 'closed') == '1' then fail('shut_node', {node = at}) end
      if not stop then
        roll(own)
        paying[#paying + 1] = own
      end
    end
    for _, own in ipairs(accounts(at)) do stop = stop or get(own.key, 'carve') ~= '' end
    if at == '' then break end
    at = at:match('^(.*)/[^/]*$') or ''
  end
  table.sort(paying, function(a, b)
    if #a.node ~= #b.node then return #a.node < #b.node end
    return a.key < b.key
  end)
  return paying
end

local function spend(own, a, at)
  if own.window ~= 'none' then
    if slice(own.window, at) < first(own.window) then return end
    add(own.key, 's' .. slice(own.window, at), a)
  end
  add(own.key, 'spent', a)
  add(own.key, 'left', neg(a))
end

local function room(own, a)
  local short = add(own.key, 'left', neg(a)) < 0
  add(own.key, 'left', a)
  if short then
    local now_is = {node = own.node, unit = own.unit, window = own.window, asked = a}
    for _, field in ipairs({'cap', 'held', 'spent', 'flying'}) do now_is[field] = get(own.key, field) end
    fail('no_room', now_is)
  end
end

local function save_hold(hold, new)
  redis.call('SET', P .. 'hold:' .. hold.id, cjson.encode(hold))
  if hold.presumed == '' then
    redis.call('ZADD', P .. 'leases', hold['until'], hold.id)
  else
    redis.call('ZREM', P .. 'leases', hold.id)
  end
  if new and hold.key ~= '' then redis.call('SET', P .. 'key:' .. hold.key, cjson.encode(hold)) end
end

local function load_hold(id)
  local text = redis.call('GET', P .. 'hold:' .. id)
  return text and cjson.decode(text) or nil
end

local function define(path, caps, carve)
  for _, cap in ipairs(caps) do
    local name = cap.unit .. '\t' .. cap.window
    redis.call('RPUSH', P .. 'node:' .. path, name)
    redis.call('HSET', P .. 'account:' .. path .. '\t' .. name, 'cap', cap.cap, 'left', cap.cap, 'held', '0',
      'spent', '0', 'flying', '0', 'carve', carve, 'closed', '0')
    log('node', path, '', {[cap.unit] = cap.cap}, cap.window .. '|' .. carve)
  end
  redis.call('SADD', P .. 'nodes', path)
end

local laws = {}

function laws.define()
  local there = accounts(arg.path)
  if #there > 0 then
    local same = #there == #arg.caps
    for _, cap in ipairs(arg.caps) do
      local key = P .. 'account:' .. arg.path .. '\t' .. cap.unit .. '\t' .. cap.window
      same = same and get(key, 'cap') == cap.cap
    end
    if not same then fail('other_caps', {node = arg.path}) end
    return {}
  end
  if arg.path ~= '' then chain(arg.path:match('^(.*)/[^/]*$') or '', false) end
  define(arg.path, arg.caps, '')
  return {}
end

function laws.raise_cap()
  for _, own in ipairs(accounts(arg.path)) do
    if own.unit == arg.unit and own.window == arg.window and get(own.key, 'carve') == '' then
      add(own.key, 'left', neg(get(own.key, 'cap')))
      add(own.key, 'left', arg.cap)
      redis.call('HSET', own.key, 'cap', arg.cap)
      log('cap', arg.path, '', {[arg.unit] = arg.cap}, arg.window)
      return {}
    end
  end
  fail('no_cap', {node = arg.path})
end

function laws.reserve()
  if arg.key ~= '' then
    local text = redis.call('GET', P .. 'key:' .. arg.key)
    if text then return cjson.decode(text) end
  end
  local paying = chain(arg.node, false)
  if arg.child ~= '' and #accounts(arg.child) > 0 then fail('child_there', {node = arg.child}) end
  local units, asked = {}, {}
  for _, own in ipairs(paying) do units[own.unit] = true end
  if arg.child == '' and units.calls then asked.calls = '1000000000' end
  for unit, a in pairs(arg.asked) do asked[unit] = a end
  for unit in pairs(asked) do if not units[unit] then fail('units', {units = units, asked = asked}) end end
  for unit in pairs(units) do if not asked[unit] then fail('units', {units = units, asked = asked}) end end
  for _, own in ipairs(paying) do room(own, asked[own.unit]) end
  local held = {}
  for unit, least in pairs(asked) do
    local most = arg.most[unit] or least
    for _, own in ipairs(paying) do
      if own.unit == unit then
        local share, flying = get(own.key, 'left'), tonumber(get(own.key, 'flying'))
        if flying > 0 then share = string.format('%.0f', math.floor(tonumber(share) / (flying + 1))) end
        if gt(most, share) then most = share end
      end
    end
    held[unit] = gt(most, least) and most or least
  end
  for _, own in ipairs(paying) do
    add(own.key, 'held', held[own.unit])
    add(own.key, 'left', neg(held[own.unit]))
    add(own.key, 'flying', 1)
  end
  local hold = {id = arg.id, node = arg.node, held = held, asked = arg.asked, key = arg.key, child = arg.child,
    presumed = '', ['until'] = arg['until']}
  save_hold(hold, true)
  log('reserve', arg.node, arg.id, held, arg.child)
  if arg.child ~= '' then
    local caps = {}
    for unit, a in pairs(held) do caps[#caps + 1] = {unit = unit, window = 'none', cap = a} end
    define(arg.child, caps, arg.id)
  end
  return hold
end

function laws.extend()
  local hold = load_hold(arg.id)
  if not hold or hold.presumed ~= '' then fail('no_handle', {id = arg.id}) end
  for unit in pairs(arg.more) do
    if not hold.held[unit] then fail('units', {units = hold.held, asked = arg.more}) end
  end
  local paying = chain(hold.node, true)
  for _, own in ipairs(paying) do
    if arg.more[own.unit] then room(own, arg.more[own.unit]) end
  end
  for _, own in ipairs(paying) do
    add(own.key, 'held', arg.more[own.unit] or '0')
    add(own.key, 'left', neg(arg.more[own.unit] or '0'))
  end
  for _, own in ipairs(hold.child ~= '' and accounts(hold.child) or {}) do
    add(own.key, 'cap', arg.more[own.unit] or '0')
    add(own.key, 'left', arg.more[own.unit] or '0')
  end
  for unit, a in pairs(arg.more) do
    redis.call('HSET', P .. 'sum', 'a', hold.held[unit])
    add(P .. 'sum', 'a', a)
    hold.held[unit] = get(P .. 'sum', 'a')
  end
  save_hold(hold, false)
  log('extend', hold.node, hold.id, arg.more, hold.child)
  return hold
end

local function let_go(own, held)
  add(own.key, 'held', neg(held))
  add(own.key, 'left', held)
  add(own.key, 'flying', -1)
end

local function settle(id, actual, kind)
  local hold = load_hold(id)
  if not hold then fail('no_handle', {id = id}) end
  if hold.child ~= '' and kind ~= 'close' then fail('pays_child', {node = hold.child}) end
  local spent = {}
  for unit, a in pairs(actual or {}) do
    if not hold.held[unit] then fail('units', {units = hold.held, asked = actual}) end
    spent[unit] = a
  end
  if actual and hold.held.calls and not spent.calls then spent.calls = hold.held.calls end
  for unit in pairs(hold.held) do
    if not spent[unit] and actual then fail('units', {units = hold.held, asked = actual}) end
    spent[unit] = spent[unit] or '0'
  end
  if hold.presumed ~= '' then kind = 'correct' end
  local overruns = {}
  for _, own in ipairs(chain(hold.node, true)) do
    local used, held = spent[own.unit], hold.held[own.unit]
    if hold.presumed == '' then
      let_go(own, held)
      spend(own, used, t)
    else
      spend(own, used, tonumber(hold.presumed))
      spend(own, neg(held), tonumber(hold.presumed))
    end
    local left = get(own.key, 'left')
    if gt(used, held) and left:sub(1, 1) == '-' then
      redis.call('HSET', P .. 'sum', 'a', used)
      add(P .. 'sum', 'a', neg(held))
      local more = get(P .. 'sum', 'a')
      if gt(more, neg(left)) then more = neg(left) end
      overruns[#overruns + 1] = {node = own.node, unit = own.unit, over = more}
    end
  end
  redis.call('DEL', P .. 'hold:' .. id)
  redis.call('ZREM', P .. 'leases', id)
  local words = #overruns > 0 and cjson.encode(overruns) or ''
  log(kind, hold.node, id, spent, words)
  return {hold = hold, spent = spent, overruns = words}
end

function laws.settle() return settle(arg.id, arg.actual, arg.actual and 'settle' or 'release') end

local function close(path)
  local own, spent = nil, {}
  for _, each in ipairs(accounts(path)) do
    if get(each.key, 'carve') ~= '' then own = each end
  end
  if not own then fail('not_delegated', {node = path, state = 'not delegated'}) end
  if get(own.key, 'closed') == '1' then fail('not_delegated', {node = path, state = 'closed'}) end
  local flying = get(own.key, 'flying')
  if flying ~= '0' then fail('not_delegated', {node = path, state = flying .. ' in flight'}) end
  for _, each in ipairs(accounts(path)) do
    spent[each.unit] = get(each.key, 'spent')
    redis.call('HSET', each.key, 'closed', '1')
  end
  return settle(get(own.key, 'carve'), spent, 'close')
end

function laws.close() return close(arg.path) end

function laws.renew()
  for _, id in ipairs(arg.ids) do
    local hold = load_hold(id)
    if hold and hold.presumed == '' and tonumber(hold['until']) < tonumber(arg['until']) then
      hold['until'] = arg['until']
      save_hold(hold, false)
    end
  end
  return {}
end

local function presume(hold)
  for _, own in ipairs(chain(hold.node, true)) do
    let_go(own, hold.held[own.unit])
    spend(own, hold.held[own.unit], t)
  end
  hold.presumed = now
  save_hold(hold, false)
  log('presume', hold.node, hold.id, hold.held, '')
end

function laws.recover()
  local done, children = {}, {}
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', P .. 'leases', '-inf', now)) do
    local hold = load_hold(id)
    if hold.child ~= '' then
      children[#children + 1] = hold
    elseif arg.give_back then
      settle(id, nil, 'release')
      done[#done + 1] = {hold, 'release'}
    else
      presume(hold)
      done[#done + 1] = {hold, 'presume'}
    end
  end
  table.sort(children, function(a, b) return #a.child > #b.child end)
  for _, hold in ipairs(children) do
    local flying = false
    for _, own in ipairs(accounts(hold.child)) do flying = flying or get(own.key, 'flying') ~= '0' end
    if not flying then
      close(hold.child)
      done[#done + 1] = {hold, 'close'}
    end
  end
  return done
end

function laws.accounts()
  local found = {}
  for _, path in ipairs(redis.call('SMEMBERS', P .. 'nodes')) do
    for _, own in ipairs(accounts(path)) do
      local state = {node = path, unit = own.unit, window = own.window, slices = {}}
      local all = redis.call('HGETALL', own.key)
      for i = 1, #all, 2 do state[all[i]] = all[i + 1] end
      found[#found + 1] = state
    end
  end
  return {accounts = found, clock = clock, length = redis.call('LLEN', P .. 'log')}
end

local fine, result = pcall(laws[op])
if fine then return cjson.encode(result) end
for _, old in ipairs(forgotten) do
  add(old[1], old[2], old[3])
  add(old[1], 'spent', old[3])
  add(old[1], 'left', neg(old[3]))
end
if type(result) == 'table' then return result.text end
error(result, 0)
