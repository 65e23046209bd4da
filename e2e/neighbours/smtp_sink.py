"""A mail server that keeps what it gets: SMTP on one port, a small HTTP interface on another.

Usage: python smtp_sink.py            prints {"ready": true, "smtp": PORT, "http": PORT}
  GET /mails                          [{id, from, to, subject, text, html, headers, message_id}]
  DELETE /mails                       forgets them
  POST /fault?code=451&times=2        answers the next two mails with 451
  POST /fault?delay=3                 takes three seconds per mail
"""

import asyncio
import email
import email.policy
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlparse

from aiosmtpd.smtp import SMTP

LIMIT = 1000
lock = threading.Lock()
mails = []
fault = {"code": 0, "times": 0, "delay": 0}


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
                "headers": dict(message.items()),
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
            self.answer(mails)

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


async def main():
    control = ThreadingHTTPServer(("127.0.0.1", 0), Control)
    threading.Thread(target=control.serve_forever, daemon=True).start()
    loop = asyncio.get_running_loop()
    # aiosmtpd's Controller cannot take port 0; the protocol on a server of our own can.
    server = await loop.create_server(lambda: SMTP(Handler(), hostname="sink.test", loop=loop), "127.0.0.1", 0)
    ports = {"smtp": server.sockets[0].getsockname()[1], "http": control.server_address[1]}
    print(json.dumps({"ready": True, **ports}), flush=True)
    await server.serve_forever()


asyncio.run(main())
