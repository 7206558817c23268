/**
 * How soon a master serves again with a large namespace, after a clean stop and after kill -9; what an inode costs in
 * memory; and what a checkpoint costs those who go on creating.
 *
 * `open_s` runs from the start of the process to the first answered stat, so it holds Node's own start as well.
 */

import type { ServerProcess } from "../src/cli/role-process.ts";
import { connect } from "../src/client/client.ts";
import { type Benchmark, type BenchmarkContext, bySize, percentile, round, runOutstanding } from "./lib/benchmark.ts";
import { anonymousBytes, startMaster, withDirectory } from "./lib/processes.ts";

const outstanding = 256;
const directoryCount = 1000;

export const metaRestart: Benchmark = {
  name: "meta-restart",
  description: "start with a large namespace after stop and kill -9, memory an inode, checkpoints under load",
  run: (context) => withDirectory((directory) => run(context, directory)),
};

async function run(context: BenchmarkContext, directory: string): Promise<void> {
  const { size, emit, note } = context;
  const inodes = bySize(size, { full: 10_000_000, quick: 1_000_000, smoke: 5000 });
  const pathOf = (i: number): string => `/d${i % directoryCount}/file-${i}`;
  let master: ServerProcess;
  const start = async (): Promise<{ seconds: number; address: string }> => {
    const began = performance.now();
    const started = await startMaster(directory);
    master = started.process;
    const { address } = started;
    const client = connect({ masters: [address] });
    await client.stat("/d1");
    const seconds = (performance.now() - began) / 1000;
    await client.stat(pathOf(inodes >> 1));
    await client.close();
    return { seconds, address };
  };

  const first = await startMaster(directory);
  master = first.process;
  const client = connect({ masters: [first.address] });
  note(`creating ${inodes} inodes`);
  await runOutstanding(directoryCount, outstanding, (i) => client.mkdir(`/d${i}`));
  await runOutstanding(inodes, outstanding, (i) => client.create(pathOf(i)));
  await client.close();
  await master.stop();

  const conditions = `${inodes} inodes, process start to first answered stat`;
  note("after a clean stop");
  const clean = await start();
  emit({
    system: "headpond",
    metric: "open_s",
    value: round(clean.seconds),
    unit: "s",
    runs: 1,
    conditions: `${conditions}, after a clean stop`,
  });
  emit({
    system: "headpond",
    metric: "anonymous_bytes_per_inode",
    value: round(anonymousBytes(master) / inodes),
    unit: "B",
    runs: 1,
    conditions: `whole process after the restart, ${inodes} inodes`,
  });

  note("a checkpoint while creates go on");
  await checkpointUnderLoad(context, clean.address, inodes);
  const busy = connect({ masters: [clean.address] });
  const filling = runOutstanding(bySize(size, { full: 200_000, quick: 50_000, smoke: 500 }), outstanding, (i) =>
    busy.create(`/d${i % directoryCount}/late-${i}`),
  ).catch(() => {});
  await new Promise((done) => setTimeout(done, 300));
  await master.stop("SIGKILL");
  await busy.close().catch(() => {});
  await filling;
  note("after kill -9");
  const killed = await start();
  emit({
    system: "headpond",
    metric: "open_s",
    value: round(killed.seconds),
    unit: "s",
    runs: 1,
    conditions: `${conditions}, after kill -9 under creates`,
  });
  emit({
    system: "headpond",
    metric: "anonymous_bytes_per_inode",
    value: round(anonymousBytes(master) / inodes),
    unit: "B",
    runs: 1,
    conditions: `whole process after kill -9 and restart, ${inodes} inodes`,
  });
  await master.stop();
}

/** Creates at a steady rate; their p99 while nothing else happens, and while a checkpoint is made. */
async function checkpointUnderLoad(context: BenchmarkContext, address: string, inodes: number): Promise<void> {
  const { size, emit } = context;
  const client = connect({ masters: [address] });
  const quietMs = bySize(size, { full: 4000, quick: 2000, smoke: 200 });
  let stopped = false;
  let latencies: number[] = [];
  let next = 0;
  const lane = async (): Promise<void> => {
    while (!stopped) {
      const began = performance.now();
      const i = next++;
      await client.create(`/d${i % directoryCount}/checkpoint-${i}`);
      latencies.push(performance.now() - began);
    }
  };
  const lanes = Array.from({ length: 32 }, lane);
  await new Promise((done) => setTimeout(done, quietMs / 2));
  latencies = [];
  await new Promise((done) => setTimeout(done, quietMs));
  const before = percentile(latencies, 0.99);
  latencies = [];
  const { durationMs } = await client.journalCheckpoint({ timeoutMs: 120_000 });
  const during = percentile(latencies, 0.99);
  stopped = true;
  await Promise.all(lanes);
  await client.close();
  emit({
    system: "headpond",
    metric: "checkpoint_s",
    value: round(durationMs / 1000),
    unit: "s",
    runs: 1,
    conditions: `${inodes} inodes, creates going on (32 outstanding)`,
  });
  emit({
    system: "headpond",
    metric: "checkpoint_p99_ratio",
    value: round(during / before),
    unit: "1",
    runs: 1,
    conditions: `p99 of creates during the checkpoint ${during.toFixed(2)} ms over ${before.toFixed(2)} ms before it`,
  });
}
