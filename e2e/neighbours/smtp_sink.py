"""A mail server that keeps what it gets: SMTP on one port, a small HTTP interface on another.

Usage: python smtp_sink.py            prints {"ready": true, "smtp": PORT, "http": PORT}
  --cert FILE --key FILE              demands STARTTLS; with --implicit, speaks TLS from the first byte
  --auth USER:PASSWORD                takes mails from this user alone
  GET /mails                          [{id, from, to, subject, text, html, types, headers, message_id, tls, user}]
  GET /logins                         [{user, ok, tls}], each attempt
  DELETE /mails                       forgets them
  POST /fault?code=451&times=2        answers the next two mails with 451
  POST /fault?delay=3                 takes three seconds per mail
"""

import argparse
import asyncio
import email
import email.policy
import json
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlparse

from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword

LIMIT = 1000
lock = threading.Lock()
mails = []
logins = []
fault = {"code": 0, "times": 0, "delay": 0}


def is_tls(server):
    return server.transport.get_extra_info("ssl_object") is not None


class Handler:
    async def handle_DATA(self, server, session, envelope):
        with lock:
            delay = fault["delay"]
            refused = fault["times"] > 0
            if refused:
                fault["times"] -= 1
        await asyncio.sleep(delay)
        if refused:
            return f"{fault['code']} refused by the test"
        message = email.message_from_bytes(envelope.content, policy=email.policy.default)

        def part(kind):
            body = message.get_body((kind,))
            return body.get_content() if body else None

        with lock:
            mails.append({
                "id": len(mails) + 1,
                "from": envelope.mail_from,
                "to": envelope.rcpt_tos,
                "subject": message["subject"],
                "message_id": message["message-id"],
                "text": part("plain"),
                "html": part("html"),
                "types": [part.get_content_type() for part in message.walk()],
                "headers": dict(message.items()),
                "tls": is_tls(server),
                "user": session.auth_data.login.decode() if session.authenticated else None,
            })
            del mails[:-LIMIT]
        return "250 taken"


class Control(BaseHTTPRequestHandler):
    def answer(self, value):
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        with lock:
            self.answer(logins if self.path == "/logins" else mails)

    def do_DELETE(self):
        with lock:
            mails.clear()
        self.answer({"ok": True})

    def do_POST(self):
        query = parse_qs(urlparse(self.path).query)
        with lock:
            fault.update({key: int(values[0]) for key, values in query.items()})
            self.answer(fault)

    def log_message(self, *args):
        pass


def authenticator(expected):
    def check(server, session, envelope, mechanism, data):
        ok = isinstance(data, LoginPassword) and f"{data.login.decode()}:{data.password.decode()}" == expected
        with lock:
            logins.append({"user": data.login.decode(), "ok": ok, "tls": is_tls(server)})
        return AuthResult(success=ok, auth_data=data, handled=ok)

    return check


async def main():
    options = argparse.ArgumentParser()
    for name in ("--cert", "--key", "--auth"):
        options.add_argument(name)
    options.add_argument("--implicit", action="store_true")
    options = options.parse_args()
    settings = {"hostname": "sink.test"}
    context = None
    if options.cert:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(options.cert, options.key)
    if context and not options.implicit:
        settings |= {"tls_context": context, "require_starttls": True}
    if options.auth:
        # With TLS from the first byte aiosmtpd sees none begin.
        settings |= {"authenticator": authenticator(options.auth), "auth_required": True,
                     "auth_require_tls": bool(context) and not options.implicit}
    control = ThreadingHTTPServer(("127.0.0.1", 0), Control)
    threading.Thread(target=control.serve_forever, daemon=True).start()
    loop = asyncio.get_running_loop()
    # aiosmtpd's Controller cannot take port 0; the protocol on a server of our own can.
    implicit = context if options.implicit else None
    server = await loop.create_server(lambda: SMTP(Handler(), loop=loop, **settings), "127.0.0.1", 0, ssl=implicit)
    ports = {"smtp": server.sockets[0].getsockname()[1], "http": control.server_address[1]}
    print(json.dumps({"ready": True, **ports}), flush=True)
    await server.serve_forever()


asyncio.run(main())
