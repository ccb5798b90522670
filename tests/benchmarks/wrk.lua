-- One operation for wrk: `wrk … -s wrk.lua URL -- METHOD PATH KEY BODIES IDS FRESH`.
--
-- PATH may hold `{id}`, a random line of the file IDS. BODIES is a file with one body a line, taken in turn ("-" for
-- none). FRESH, unless "-", begins the idempotency keys, which end in a running number. The last line printed is JSON.

local method, path, bodies, ids, fresh
local headers = {}
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
  headers["x-api-key"] = args[3]
  bodies, ids = lines(args[4]), lines(args[5])
  fresh = args[6]
  if #bodies > 0 then headers["content-type"] = "application/json" end
  math.randomseed(os.time())
end

function request()
  count = count + 1
  local target = path
  if #ids > 0 then target = path:gsub("{id}", ids[math.random(#ids)]) end
  if fresh ~= "-" then headers["idempotency-key"] = fresh .. count end
  return wrk.format(method, target, headers, bodies[1 + count % #bodies])
end

function done(summary, latency)
  local errors = summary.errors
  print(string.format(
    '\n{"requests": %d, "seconds": %.6f, "failed": %d, "p50_ms": %.3f, "p99_ms": %.3f}',
    summary.requests, summary.duration / 1e6,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout,
    latency:percentile(50) / 1000, latency:percentile(99) / 1000))
end
