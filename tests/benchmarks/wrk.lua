-- One operation for wrk: `wrk … -s wrk.lua URL -- METHOD PATH HEADER VALUE BODIES IDS FRESH CONDITION`.
--
-- HEADER and VALUE say who calls. PATH may hold `{id}`, which is of a line of the file IDS: at random; or where lines
-- have a tab and a condition after it, each once and in order. The condition goes into the header CONDITION, or where
-- that is "-" into the body, for `{condition}`. BODIES is a file with one body a line, taken in turn ("-" for none).
-- FRESH, unless "-", begins the idempotency keys, which end in a running number. The last line printed is JSON.

local method, path, bodies, ids, fresh, condition
local headers, conditions = {}, {}
local count = 0

local function lines(name)
  local all = {}
  if name ~= "-" then
    for line in io.lines(name) do all[#all + 1] = line end
  end
  return all
end

function init(args)
  method, path = args[1], args[2]
  headers[args[3]] = args[4]
  bodies, ids = lines(args[5]), lines(args[6])
  fresh, condition = args[7], args[8]
  for at, line in ipairs(ids) do
    local id, said = line:match("^([^\t]*)\t(.*)$")
    if id then ids[at], conditions[at] = id, said end
  end
  if #bodies > 0 then headers["content-type"] = "application/json" end
  math.randomseed(os.time())
end

function request()
  count = count + 1
  local target, body = path, bodies[1 + count % #bodies]
  if #conditions > 0 then
    -- (To wrk an error here is no failure of the run: a ticket that is not there is one.)
    target = path:gsub("{id}", ids[count] or "none")
    local said = conditions[count] or "null"
    if condition == "-" then body = body:gsub("{condition}", said) else headers[condition] = said end
  elseif #ids > 0 then
    target = path:gsub("{id}", ids[math.random(#ids)])
  end
  if fresh ~= "-" then headers["idempotency-key"] = fresh .. count end
  return wrk.format(method, target, headers, body)
end

function done(summary, latency)
  local errors = summary.errors
  print(string.format(
    '\n{"requests": %d, "seconds": %.6f, "failed": %d, "p50_ms": %.3f, "p99_ms": %.3f}',
    summary.requests, summary.duration / 1e6,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout,
    latency:percentile(50) / 1000, latency:percentile(99) / 1000))
end
