/**
 * A cold file through a worker from an origin that gives 1 GB/s: one reader against reading the origin directly, and 64
 * readers at once. The origin counts what it sent.
 */

import { once } from "node:events";
import { fileURLToPath } from "node:url";
import { MiB } from "../src/base/units.ts";
import { ServerProcess } from "../src/cli/role-process.ts";
import { connect } from "../src/client/client.ts";
import { HttpClient } from "../src/io/http-client.ts";
import { NodeClock } from "../src/io/node-clock.ts";
import { type Benchmark, type BenchmarkContext, bySize, median, round } from "./lib/benchmark.ts";
import { cpuSeconds, startMaster, startWorker, withDirectory } from "./lib/processes.ts";

const originBytesPerSecond = 1e9;
const readers = 64;

export const readMiss: Benchmark = {
  name: "read-miss",
  description: "a cold file through a worker, one reader and 64, beside reading its origin directly",
  run: (context) => withDirectory((directory) => run(context, directory)),
};

async function run(context: BenchmarkContext, directory: string): Promise<void> {
  const { size, emit, note } = context;
  const fileBytes = bySize(size, { full: 1024, quick: 512, smoke: 16 }) * MiB;
  const runs = bySize(size, { full: 3, quick: 2, smoke: 1 });
  const script = fileURLToPath(new URL("lib/limited-origin.ts", import.meta.url));
  const origin = new ServerProcess("origin", process.execPath, [
    script,
    String(fileBytes),
    String(originBytesPerSecond),
  ]);
  const [line] = (await once(origin.stdout, "data")) as [Buffer];
  const originUrl = `http://127.0.0.1:${Number(line.toString())}`;
  const master = await startMaster(directory);
  const { address } = master;
  const worker = await startWorker(directory, address);
  const client = connect({ masters: [address] });
  const http = new HttpClient({ clock: new NodeClock(), limits: { connectionsPerOriginMax: readers + 1 } });
  try {
    await client.mount("/origin", `${originUrl}/`, { readOnly: true });
    const direct: number[] = [];
    const through: number[] = [];
    const cpu: number[] = [];
    for (let i = 0; i < runs; i++) {
      note(`one reader, run ${i + 1} of ${runs}`);
      direct.push(fileBytes / (await timed(() => readAll(http, `${originUrl}/direct-${i}`, fileBytes))));
      const cpuBegan = cpuSeconds(worker.process);
      through.push(fileBytes / (await timed(() => readThrough(`/origin/one-${i}`))));
      cpu.push((cpuSeconds(worker.process) - cpuBegan) / (fileBytes / 1e9));
    }
    const conditions = `cold, ${fileBytes / MiB} MiB, origin limited to 1 GB/s, three processes share the machine`;
    emit({
      system: "headpond",
      metric: "bytes_per_s",
      value: round(median(through)),
      unit: "B/s",
      ratio: round(median(through) / median(direct)),
      against: "direct",
      runs,
      conditions: `one reader, ${conditions}`,
    });
    emit({
      system: "headpond",
      metric: "cpu_s_per_gb",
      value: round(median(cpu)),
      unit: "s/GB",
      runs,
      conditions: `of the worker, one reader, ${conditions}`,
    });
    emit({
      system: "direct",
      metric: "bytes_per_s",
      value: round(median(direct)),
      unit: "B/s",
      runs,
      conditions: `one reader of the origin, ${conditions}`,
    });

    note(`${readers} readers at once`);
    const before = await originCount(originUrl);
    const seconds = await timed(async () => {
      await Promise.all(Array.from({ length: readers }, () => readThrough("/origin/many")));
    });
    const sent = (await originCount(originUrl)) - before;
    emit({
      system: "headpond",
      metric: "origin_amplification",
      value: round(sent / fileBytes),
      unit: "1",
      runs: 1,
      conditions: `${readers} readers at once of one cold file; counted by the origin`,
    });
    emit({
      system: "headpond",
      metric: "bytes_per_s_readers_64",
      value: round((readers * fileBytes) / seconds),
      unit: "B/s",
      runs: 1,
      conditions: `summed over ${readers} readers, ${conditions}`,
    });
  } finally {
    await http.close();
    await client.close();
    await worker.process.stop();
    await master.process.stop();
    await origin.stop();
  }

  async function readThrough(path: string): Promise<void> {
    const { id } = (await client.open(path)).descriptor;
    const data = (await client.workers()).workers[0]?.data ?? "";
    await readAll(http, `http://${data}/v1/files/${id}`, fileBytes);
  }
}

async function timed(task: () => Promise<unknown>): Promise<number> {
  const began = performance.now();
  await task();
  return (performance.now() - began) / 1000;
}

/** With the client that workers and gateways use themselves: with node:http the reader would be what is measured (1.8 CPU s/GB). */
async function readAll(http: HttpClient, url: string, bytes: number): Promise<void> {
  const response = await http.request({ method: "GET", url });
  let count = 0;
  await response.consume((chunk) => {
    count += chunk.length;
  });
  if (count !== bytes) throw new Error(`${url}: status ${response.status}, ${count} bytes, not ${bytes}`);
}

async function originCount(url: string): Promise<number> {
  const response = await fetch(`${url}/count`);
  return ((await response.json()) as { sentBytes: number }).sentBytes;
}
