/**
 * An HTTP origin with one shared rate limit: what an object store looks like to a worker. Runs as a process of its own
 * (`node limited-origin.ts FILE_BYTES BYTES_PER_SECOND`), prints its port, answers ranges of one file of pseudo-random bytes,
 * and counts the body bytes it sent: `GET /count`.
 */

import { createServer } from "node:http";
import { Random } from "../../src/base/random.ts";

const fileBytes = Number(process.argv[2]);
const bytesPerSecond = Number(process.argv[3]);
const chunkBytes = 256 * 1024;
const pattern = Buffer.from(new Random(11).bytes(4 * 1024 * 1024 + 7));

let sentBytes = 0;
let requests = 0;
let paidUntilMs = performance.now();

/** Waits until the shared budget allows `bytes` more. */
async function pay(bytes: number): Promise<void> {
  const nowMs = performance.now();
  paidUntilMs = Math.max(paidUntilMs, nowMs - 5) + (bytes / bytesPerSecond) * 1000;
  if (paidUntilMs - nowMs > 1) await new Promise((done) => setTimeout(done, paidUntilMs - nowMs));
}

/** Byte `i` of the file is byte `i % pattern.length` of the pattern. */
function slice(position: number, length: number): Buffer {
  const at = position % pattern.length;
  return pattern.subarray(at, Math.min(pattern.length, at + length));
}

const server = createServer((request, response) => {
  void (async () => {
    if (request.url === "/count") {
      response.end(JSON.stringify({ sentBytes, requests }));
      return;
    }
    if (request.url === "/") {
      response.writeHead(200, { "content-type": "text/html" });
      response.end("<html><body>any name below is the one file</body></html>");
      return;
    }
    const match = /^bytes=([0-9]+)-([0-9]*)$/.exec(request.headers.range ?? "");
    const begin = match === null ? 0 : Number(match[1]);
    const end = match === null || match[2] === "" ? fileBytes : Math.min(fileBytes, Number(match[2]) + 1);
    response.writeHead(match === null ? 200 : 206, {
      "content-length": end - begin,
      etag: '"origin-1"',
      "accept-ranges": "bytes",
      "last-modified": new Date(1_700_000_000_000).toUTCString(),
      ...(match === null ? {} : { "content-range": `bytes ${begin}-${end - 1}/${fileBytes}` }),
    });
    if (request.method === "HEAD") {
      response.end();
      return;
    }
    requests++;
    for (let position = begin; position < end; ) {
      const chunk = slice(position, Math.min(chunkBytes, end - position));
      await pay(chunk.length);
      sentBytes += chunk.length;
      position += chunk.length;
      if (!response.write(chunk)) await new Promise((done) => response.once("drain", done));
      if (response.destroyed) return;
    }
    response.end();
  })();
});
server.listen(0, "127.0.0.1", () => process.stdout.write(`${(server.address() as { port: number }).port}\n`));
