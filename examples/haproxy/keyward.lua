-- Asks Keyward about the call at hand, for `http-request lua.keyward`. A call that is not allowed is answered here; one that is
-- goes on with the identity that Keyward gives it, in place of whatever the client called itself.

local ENDPOINT = "http://127.0.0.1:8700/v1/forward-auth"
local TIMEOUT_MS = 5000

-- The values of a header, each as it came.
local function all(headers, name)
  local values, found = {}, headers[name] or {}
  local at = 0
  while found[at] do
    values[at + 1] = found[at]
    at = at + 1
  end
  return values
end

-- The first value of a header of an answer.
local function first(headers, name)
  return headers[name] and headers[name][0]
end

local function refuse(txn, status, headers, body)
  local reply = txn:reply({ status = status, body = body })
  for name, value in pairs(headers) do
    reply:add_header(name, value)
  end
  txn:done(reply)
end

core.register_action("keyward", { "http-req" }, function(txn)
  local headers = txn.http:req_get_headers()
  -- Any name that a framework could take for one of Keyward's.
  for name in pairs(headers) do
    if name:gsub("_", "-"):find("^x%-keyward") then
      txn.http:req_del_header(name)
    end
  end
  local question = {
    ["authorization"] = all(headers, "authorization"),
    ["x-forwarded-method"] = { txn.sf:method() },
    ["x-forwarded-uri"] = { txn.sf:pathq() },
  }
  -- As haproxy.cfg has set them.
  for _, name in ipairs({ "x-forwarded-proto", "x-forwarded-for", "x-request-id" }) do
    question[name] = all(headers, name)
  end
  local answer = core.httpclient():get({ url = ENDPOINT, headers = question, timeout = TIMEOUT_MS })
  local told = answer and answer.headers or {}
  if answer and answer.status == 200 then
    for name, values in pairs(told) do
      if name:find("^x%-keyward%-") then
        txn.http:req_set_header(name, values[0])
      end
    end
  elseif answer and (answer.status == 401 or answer.status == 403) then
    local kept = {}
    for _, name in ipairs({ "content-type", "cache-control", "www-authenticate", "x-keyward-reason", "x-request-id" }) do
      kept[name] = first(told, name)
    end
    refuse(txn, answer.status, kept, answer.body)
  else
    -- Without a decision nothing is served.
    local body = '{"type":"about:blank","title":"Service Unavailable","status":503,"code":"authorization_unavailable",'
      .. '"detail":"The call could not be authorized just now. Try again."}'
    local kept = { ["content-type"] = "application/problem+json", ["cache-control"] = "no-store", ["retry-after"] = "1" }
    refuse(txn, 503, kept, body)
  end
end)
