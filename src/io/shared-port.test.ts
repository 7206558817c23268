/** One port, two protocols, told apart by the first bytes however they are cut. */

import assert from "node:assert/strict";
import { once } from "node:events";
import net from "node:net";
import { type TestContext, test } from "node:test";
import type { HttpLimits } from "./http-limits.ts";
import { HttpServer } from "./http-server.ts";
import { silentLogger } from "./logger.ts";
import { NodeClock } from "./node-clock.ts";
import { listenShared } from "./shared-port.ts";

const clock = new NodeClock();

type SharedOptions = { readonly firstByteTimeoutMs?: number; readonly limits?: Partial<HttpLimits> };

/** Answers HTTP with the path, everything else with an echo. */
async function start(context: TestContext, options: SharedOptions = {}): Promise<number> {
  const http = new HttpServer({
    handler: async (request, response) => response.text(200, `http ${request.path} ${await request.text()}`),
    clock,
    logger: silentLogger,
    limits: options.limits ?? {},
  });
  const listener = await listenShared(
    { host: "127.0.0.1", port: 0 },
    {
      http,
      clock,
      firstByteTimeoutMs: options.firstByteTimeoutMs ?? 20_000,
      onConnection: (connection) => {
        connection.onData = (chunk) => void connection.write(Buffer.from(chunk));
        connection.onClose = () => connection.destroy();
      },
    },
  );
  context.after(async () => {
    await listener.close();
    await http.close(0);
  });
  return listener.address.port;
}

test("HTTP and other bytes reach their own servers, even one byte at a time", async (context) => {
  const port = await start(context);
  for (const pieces of [1, 4, 1000]) {
    const exchange = async (sent: string, expected: string): Promise<void> => {
      const socket = net.connect({ port, host: "127.0.0.1", noDelay: true });
      await once(socket, "connect");
      let answer = "";
      socket.on("data", (chunk) => (answer += chunk.toString("latin1")));
      for (let at = 0; at < sent.length; at += pieces) {
        socket.write(sent.slice(at, at + pieces), "latin1");
        if (at < 20) await clock.sleep(1);
      }
      while (!answer.includes(expected)) await once(socket, "data");
      socket.destroy();
    };
    await exchange("POST /x HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhello", "http /x hello");
    await exchange("GETT not http", "GETT not http");
    await exchange("\x48\x50\x01\x00 a frame", "\x48\x50\x01\x00 a frame");
  }
});

test("a kept connection serves several requests", async (context) => {
  const url = `http://127.0.0.1:${await start(context)}`;
  for (let i = 0; i < 5; i++) assert.equal(await (await fetch(`${url}/${i}`)).text(), `http /${i} `);
});

test("a connection that says nothing, or half a method, or half a head, is closed", async (context) => {
  const port = await start(context, { firstByteTimeoutMs: 50, limits: { headersTimeoutMs: 50 } });
  for (const bytes of ["", "GE", "GET / HTTP/1.1\r\nhost"]) {
    const socket = net.connect(port, "127.0.0.1");
    socket.on("error", () => {});
    socket.resume();
    socket.write(bytes);
    await once(socket, "close");
  }
});
