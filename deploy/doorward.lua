-- The action `lua.doorward`: asks Doorward about the request at hand. On 200 it writes the identity headers and sets
-- txn.doorward to "allowed"; on any other answer it sends that answer to the client. Where this script fails, the variable
-- stays unset and haproxy.cfg refuses.

local CHECK = os.getenv("DOORWARD_CHECK")
local TIMEOUT_MS = 5000
-- All of these are written on every allowed request: an empty one replaces what a client may have sent.
local IDENTITY = { "subject", "issuer", "email", "method", "org", "license", "entitlements", "decision", "assertion" }
-- Describe one connection or one body, not the request that is asked about.
local NOT_ASKED = {
    ["connection"] = true, ["content-length"] = true, ["transfer-encoding"] = true, ["te"] = true, ["trailer"] = true,
    ["keep-alive"] = true, ["expect"] = true,
    ["x-forwarded-proto"] = true, -- of another family: HAProxy's is X-Original-* with X-Forwarded-Host
}

-- HAProxy counts the values of a header from 0.
local function values(header)
    local list, i = {}, 0
    while header and header[i] ~= nil do
        list[#list + 1] = header[i]
        i = i + 1
    end
    return list
end

core.register_action("doorward", { "http-req" }, function(txn)
    local question = {}
    for name, header in pairs(txn.http:req_get_headers()) do
        -- Apps take X_Doorward_Subject for X-Doorward-Subject: compare as they do.
        if name:gsub("%W", "-"):find("^x%-doorward") then
            txn.http:req_del_header(name)
        elseif not NOT_ASKED[name] then
            question[name] = values(header)
        end
    end
    question["x-original-method"] = { txn.f:method() }
    question["x-original-url"] = { txn.f:pathq() }

    local answer = core.httpclient():get({ url = CHECK, headers = question, timeout = TIMEOUT_MS })
    if not answer or not answer.status or answer.status == 0 then
        return
    end
    if answer.status == 200 then
        for _, name in ipairs(IDENTITY) do
            local given = values(answer.headers["x-doorward-" .. name])
            txn.http:req_set_header("X-Doorward-" .. name, given[1] or "")
        end
        txn:set_var("txn.doorward", "allowed")
        return
    end

    local refusal = txn:reply({ status = answer.status, body = answer.body or "" })
    for name, header in pairs(answer.headers) do
        if name ~= "connection" and name ~= "content-length" and name ~= "transfer-encoding" and name ~= "date" then
            for _, value in ipairs(values(header)) do
                refusal:add_header(name, value)
            end
        end
    end
    txn:done(refusal)
end)
