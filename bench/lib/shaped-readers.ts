/**
 * Many readers of one URL at once, in a process of their own on the host of the worker they ask. One JSON line: when each had the
 * whole, and how many of them got something else than they should.
 *
 *   shaped-readers.ts URL READERS SHA256
 */

import { createHash } from "node:crypto";
import { HttpClient } from "../../src/io/http-client.ts";
import { NodeClock } from "../../src/io/node-clock.ts";

const [url = "", readers = "", expected = ""] = process.argv.slice(2);
const count = Number(readers);
const http = new HttpClient({ clock: new NodeClock(), limits: { connectionsPerOriginMax: count + 1 } });
const began = performance.now();
let wrong = 0;

async function read(isHashed: boolean): Promise<number> {
  const response = await http.request({ method: "GET", url });
  const hash = createHash("sha256");
  await response.consume((chunk) => {
    if (isHashed) hash.update(chunk);
  });
  const seconds = (performance.now() - began) / 1000;
  if (isHashed && hash.digest("hex") !== expected) wrong++;
  return seconds;
}

// To hash 64 streams would be most of the machine's work: two of them stand for all.
const seconds = await Promise.all(Array.from({ length: count }, (_, index) => read(index % (count >> 1) === 0)));
await http.close();
process.stdout.write(`${JSON.stringify({ seconds, wrong })}\n`);
