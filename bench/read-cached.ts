/**
 * One stream of one cached file from a worker, beside nginx and iperf3 on the same loopback with the same kind of client
 * (a socket that reads into one buffer and throws the bytes away). The file is in the page cache.
 */

import { spawn } from "node:child_process";
import { once } from "node:events";
import { connect as connectSocket } from "node:net";
import { join } from "node:path";
import { MiB } from "../src/base/units.ts";
import { ServerProcess } from "../src/cli/role-process.ts";
import { connect } from "../src/client/client.ts";
import { type Benchmark, type BenchmarkContext, bySize, median, round } from "./lib/benchmark.ts";
import { startNginx } from "./lib/nginx.ts";
import { cpuSeconds, freePort, startMaster, startWorker, withDirectory } from "./lib/processes.ts";
import { writeRandomFile } from "./lib/random-file.ts";

export const readCached: Benchmark = {
  name: "read-cached",
  description: "one stream of a cached file from a worker, beside nginx and iperf3",
  run: (context) => withDirectory((directory) => run(context, directory)),
};

async function run(context: BenchmarkContext, directory: string): Promise<void> {
  const { size, emit, note } = context;
  const fileBytes = bySize(size, { full: 4096, quick: 1024, smoke: 16 }) * MiB;
  const runs = bySize(size, { full: 5, quick: 3, smoke: 1 });
  const store = join(directory, "store");
  await writeRandomFile(store, "model.safetensors", fileBytes);

  const master = await startMaster(directory);
  const { address } = master;
  const worker = await startWorker(directory, address);
  const nginx = await startNginx(directory, store);
  if (nginx === undefined) note("nginx is not installed: nothing to compare with");
  const client = connect({ masters: [address] });
  try {
    await client.mount("/store", `file://${store}`, { readOnly: true });
    const job = await client.load("/store/model.safetensors", { to: "all" });
    const done = await job.done();
    if (done.state !== "succeeded") throw new Error(`load ${done.state}: ${JSON.stringify(done.failed)}`);
    const { file, holders } = await client.location("/store/model.safetensors");
    const [dataHost, dataPort] = (holders[0]?.worker.data ?? "").split(":");
    const path = `/v1/files/${file.id}`;

    const headpond: Sample[] = [];
    const peer: Sample[] = [];
    const wire: number[] = [];
    // Interleaved, so that a slow moment of the machine hits all alike; the first round warms up.
    for (let i = 0; i <= runs; i++) {
      note(`run ${i} of ${runs}`);
      const mine = await measure(Number(dataPort), dataHost ?? "", path, fileBytes, () => cpuSeconds(worker.process));
      const other =
        nginx && (await measure(nginx.port, "127.0.0.1", "/model.safetensors", fileBytes, () => nginx.cpuSeconds()));
      const iperf = await iperfRate(size === "smoke" ? 1 : 2);
      if (i === 0) continue;
      headpond.push(mine);
      if (other) peer.push(other);
      if (iperf !== undefined) wire.push(iperf);
    }
    const conditions = `one HTTP stream, ${fileBytes / MiB} MiB in page cache, server and client share the machine`;
    const rate = median(headpond.map((sample) => sample.rate));
    const cpu = median(headpond.map((sample) => sample.cpuPerGb));
    const nginxRate = peer.length === 0 ? undefined : median(peer.map((sample) => sample.rate));
    const nginxCpu = peer.length === 0 ? undefined : median(peer.map((sample) => sample.cpuPerGb));
    emit({
      system: "headpond",
      metric: "bytes_per_s",
      value: round(rate),
      unit: "B/s",
      ...(nginxRate === undefined ? {} : { ratio: round(rate / nginxRate), against: "nginx" }),
      runs,
      conditions,
    });
    emit({
      system: "headpond",
      metric: "cpu_s_per_gb",
      value: round(cpu),
      unit: "s/GB",
      ...(nginxCpu === undefined ? {} : { ratio: round(cpu / nginxCpu), against: "nginx" }),
      runs,
      conditions,
    });
    if (nginxRate !== undefined && nginxCpu !== undefined) {
      emit({ system: "nginx", metric: "bytes_per_s", value: round(nginxRate), unit: "B/s", runs, conditions });
      emit({ system: "nginx", metric: "cpu_s_per_gb", value: round(nginxCpu), unit: "s/GB", runs, conditions });
    }
    if (wire.length > 0) {
      emit({
        system: "iperf3",
        metric: "bytes_per_s",
        value: round(median(wire)),
        unit: "B/s",
        runs,
        conditions: "one TCP stream on loopback",
      });
      emit({
        system: "headpond",
        metric: "bytes_per_s_of_iperf3",
        value: round(rate / median(wire)),
        unit: "1",
        ratio: round(rate / median(wire)),
        against: "iperf3",
        runs,
        conditions,
      });
    }
  } finally {
    await client.close();
    await nginx?.close();
    await worker.process.stop();
    await master.process.stop();
  }
}

type Sample = { readonly rate: number; readonly cpuPerGb: number };

async function measure(
  port: number,
  host: string,
  path: string,
  bytes: number,
  cpuSeconds: () => number,
): Promise<Sample> {
  const cpuBegan = cpuSeconds();
  const began = performance.now();
  const got = await countBytes(port, host, path);
  const seconds = (performance.now() - began) / 1000;
  if (got < bytes) throw new Error(`GET ${path}: ${got} bytes, not ${bytes}`);
  return { rate: bytes / seconds, cpuPerGb: (cpuSeconds() - cpuBegan) / (bytes / 1e9) };
}

/** GETs `path` and counts what arrives, headers included, in one reused buffer. */
function countBytes(port: number, host: string, path: string): Promise<number> {
  return new Promise((done, fail) => {
    let count = 0;
    const buffer = Buffer.allocUnsafeSlow(MiB);
    const socket = connectSocket({
      port,
      host,
      onread: {
        buffer,
        callback: (length) => {
          count += length;
          return true;
        },
      },
    });
    socket.on("error", fail);
    socket.on("end", () => done(count));
    socket.on("connect", () => socket.write(`GET ${path} HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n`));
  });
}

/** Bytes per second of one stream; undefined where there is no iperf3. */
async function iperfRate(seconds: number): Promise<number | undefined> {
  const port = await freePort();
  const server = new ServerProcess("iperf3", "iperf3", ["-s", "-1", "-B", "127.0.0.1", "-p", String(port)]);
  if (!(await server.spawned())) return undefined;
  // A probing connection would use up the one test that -1 grants: wait for the listener's own line instead.
  await Promise.race([once(server.stdout, "data"), new Promise((done) => setTimeout(done, 300))]);
  const client = spawn("iperf3", ["-c", "127.0.0.1", "-p", String(port), "-t", String(seconds), "-J"], {
    stdio: ["ignore", "pipe", "ignore"],
  });
  let text = "";
  for await (const chunk of client.stdout) text += String(chunk);
  await server.stop();
  const report = JSON.parse(text) as { end?: { sum_received?: { bits_per_second?: number } } };
  const bits = report.end?.sum_received?.bits_per_second;
  return bits === undefined ? undefined : bits / 8;
}
