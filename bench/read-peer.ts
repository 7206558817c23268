/**
 * A warm file as a peer takes it: block by block over one kept connection, each summed as it arrives and compared with the checksum
 * that came with it. Beside nginx, asked for the same ranges by the same client, which sums them, too. And the memory of a worker that serves
 * 64 streams of it, which take their bytes slowly.
 */

import { connect as connectSocket, type Socket } from "node:net";
import { join } from "node:path";
import { MiB } from "../src/base/units.ts";
import { connect } from "../src/client/client.ts";
import { alignedBuffer } from "../src/io/aligned-buffer.ts";
import { HttpClient } from "../src/io/http-client.ts";
import type { HttpClientResponse } from "../src/io/http-client-response.ts";
import { InPlaceHash } from "../src/io/in-place-hash.ts";
import { NodeClock } from "../src/io/node-clock.ts";
import { type Benchmark, type BenchmarkContext, bySize, median, round } from "./lib/benchmark.ts";
import { startNginx } from "./lib/nginx.ts";
import { cpuSeconds, residentBytes, startMaster, startWorker, withDirectory } from "./lib/processes.ts";
import { writeRandomFile } from "./lib/random-file.ts";

const streams = 64;

export const readPeer: Benchmark = {
  name: "read-peer",
  description: "a warm file as a peer takes it, beside nginx; memory of a worker that serves 64 streams",
  run: (context) => withDirectory((directory) => run(context, directory)),
};

async function run(context: BenchmarkContext, directory: string): Promise<void> {
  const { size, emit, note } = context;
  const fileBytes = bySize(size, { full: 2048, quick: 512, smoke: 16 }) * MiB;
  const runs = bySize(size, { full: 5, quick: 3, smoke: 1 });
  const store = join(directory, "store");
  await writeRandomFile(store, "model.safetensors", fileBytes);
  const master = await startMaster(directory);
  const { address } = master;
  const worker = await startWorker(directory, address);
  const nginx = await startNginx(directory, store);
  if (nginx === undefined) note("nginx is not installed: nothing to compare with");
  const client = connect({ masters: [address] });
  const http = new HttpClient({ clock: new NodeClock(), limits: { connectionsPerOriginMax: 1 } });
  try {
    await client.mount("/store", `file://${store}`, { readOnly: true });
    const done = await (await client.load("/store/model.safetensors", { to: "all" })).done();
    if (done.state !== "succeeded") throw new Error(`load ${done.state}: ${JSON.stringify(done.failed)}`);
    const { file, holders } = await client.location("/store/model.safetensors");
    const data = holders[0]?.worker.data ?? "";
    const blockBytes = file.blockSizeBytes;
    const blocks = Math.ceil(fileBytes / blockBytes);
    const buffer = alignedBuffer(blockBytes);

    const fromWorker = (block: number): Promise<void> =>
      takeBlock(http, `http://${data}/v1/blocks/${file.id}/${block}?by=bench`, {}, buffer, true);
    const fromNginx = (block: number): Promise<void> => {
      const end = Math.min((block + 1) * blockBytes, fileBytes) - 1;
      const headers = { range: `bytes=${block * blockBytes}-${end}` };
      return takeBlock(http, `http://127.0.0.1:${nginx?.port}/model.safetensors`, headers, buffer, false);
    };
    const mine: Sample[] = [];
    const peer: Sample[] = [];
    // Interleaved; the first round warms up: the worker compares each block with its checksum once.
    for (let i = 0; i <= runs; i++) {
      note(`run ${i} of ${runs}`);
      const ours = await measure(blocks, fileBytes, fromWorker, () => cpuSeconds(worker.process));
      const other = nginx && (await measure(blocks, fileBytes, fromNginx, () => nginx.cpuSeconds()));
      if (i === 0) continue;
      mine.push(ours);
      if (other !== undefined) peer.push(other);
    }
    const conditions = `${fileBytes / MiB} MiB in page cache, block by block over one kept connection, summed by the asker; loopback, server and asker share the machine`;
    for (const [metric, unit, pick] of [
      ["bytes_per_s", "B/s", (sample: Sample) => sample.rate],
      ["cpu_s_per_gb", "s/GB", (sample: Sample) => sample.cpuPerGb],
    ] as const) {
      const value = median(mine.map(pick));
      const against = peer.length === 0 ? undefined : median(peer.map(pick));
      const beside = against === undefined ? {} : { ratio: round(value / against), against: "nginx" };
      emit({ system: "headpond", metric, value: round(value), unit, ...beside, runs, conditions });
      if (against !== undefined) emit({ system: "nginx", metric, value: round(against), unit, runs, conditions });
    }

    note(`${streams} streams`);
    emit({
      system: "headpond",
      metric: "worker_rss_bytes",
      value: round(await peakMemory(data, `/v1/files/${file.id}`, () => residentBytes(worker.process))),
      unit: "B",
      runs: 1,
      conditions: `the most while it serves ${streams} streams whose readers take 8 MiB/s each, and then all they can`,
    });
  } finally {
    await http.close();
    await client.close();
    await nginx?.close();
    await worker.process.stop();
    await master.process.stop();
  }
}

type Sample = { readonly rate: number; readonly cpuPerGb: number };

async function measure(
  blocks: number,
  bytes: number,
  take: (block: number) => Promise<void>,
  cpuSeconds: () => number,
): Promise<Sample> {
  const cpuBegan = cpuSeconds();
  const began = performance.now();
  for (let block = 0; block < blocks; block++) await take(block);
  const seconds = (performance.now() - began) / 1000;
  return { rate: bytes / seconds, cpuPerGb: (cpuSeconds() - cpuBegan) / (bytes / 1e9) };
}

async function takeBlock(
  http: HttpClient,
  url: string,
  headers: Readonly<Record<string, string>>,
  into: Uint8Array,
  hasChecksum: boolean,
): Promise<void> {
  const response: HttpClientResponse = await http.request({ method: "GET", url, headers });
  if (response.status >= 300) throw new Error(`${url}: ${response.status}`);
  const hash = new InPlaceHash(into);
  let count = 0;
  await response.consume(
    (piece) => {
      count += piece.length;
      hash.update(count);
    },
    { into },
  );
  const sum = Buffer.from(hash.digest(count)).toString("hex");
  const claimed = response.trailers["x-headpond-xxh64"] ?? response.headers["x-headpond-xxh64"];
  if (hasChecksum && sum !== claimed) throw new Error(`${url}: the block has the sum ${sum}, not ${claimed}`);
}

/** While readers take a little at a time, for a while, and then all at once. */
async function peakMemory(data: string, path: string, resident: () => number): Promise<number> {
  const [host = "", port = ""] = data.split(":");
  let peak = resident();
  const sockets = Array.from({ length: streams }, () => slowReader(host, Number(port), path));
  const began = performance.now();
  const ended = Promise.all(sockets.map(({ ended: one }) => one));
  while (performance.now() - began < 3000) {
    await new Promise((done) => setTimeout(done, 50));
    peak = Math.max(peak, resident());
  }
  for (const { hurry } of sockets) hurry();
  // They would take minutes for the whole file.
  setTimeout(() => {
    for (const { leave } of sockets) leave();
  }, 4000);
  const sampling = setInterval(() => {
    peak = Math.max(peak, resident());
  }, 50);
  await ended;
  clearInterval(sampling);
  return peak;
}

/** Takes at most 400 KiB every 50 ms, until it is told to hurry. */
function slowReader(
  host: string,
  port: number,
  path: string,
): { readonly ended: Promise<void>; readonly hurry: () => void; readonly leave: () => void } {
  const pieceBytes = 400 * 1024;
  let isHurried = false;
  let taken = 0;
  let socket: Socket;
  const ended = new Promise<void>((done, fail) => {
    socket = connectSocket({
      host,
      port,
      onread: {
        buffer: Buffer.allocUnsafeSlow(pieceBytes),
        callback: (count) => {
          taken += count;
          if (isHurried || taken < pieceBytes) return true;
          taken = 0;
          setTimeout(() => socket.resume(), 50);
          return false;
        },
      },
    });
    socket.on("error", fail);
    socket.on("close", () => done());
    socket.on("connect", () => socket.write(`GET ${path} HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n`));
  });
  return {
    ended,
    hurry: () => {
      isHurried = true;
    },
    leave: () => socket.destroy(),
  };
}
