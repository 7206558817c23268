/**
 * Metadata through one master with the local journal: durable creates and stats over RPC, beside etcd on the same disk.
 *
 * Conditions: master and client are two processes that share the machine; every create is one inode, one request, fsynced
 * before it is acknowledged, with a parent drawn at random from 1,000 directories; 256 outstanding on one connection.
 */

import { Random } from "../src/base/random.ts";
import { connect, type HeadpondClient } from "../src/client/client.ts";
import { applyCpuUs } from "./lib/apply-alone.ts";
import { type Benchmark, type BenchmarkContext, bySize, median, round, runOutstanding } from "./lib/benchmark.ts";
import { type Etcd, startEtcd } from "./lib/etcd.ts";
import { cpuSeconds, startMaster, withDirectory } from "./lib/processes.ts";
import { rpcEchoes } from "./lib/rpc-echo.ts";

const outstanding = 256;
const directoryCount = 1000;
const etcdValueBytes = 200;

export const metaLocal: Benchmark = {
  name: "meta-local",
  description: "creates, stats and latency of one master with the local journal, beside etcd",
  run: (context) => withDirectory((directory) => run(context, directory)),
};

async function run(context: BenchmarkContext, directory: string): Promise<void> {
  const { size, emit, note } = context;
  const creates = bySize(size, { full: 1_000_000, quick: 300_000, smoke: 3000 });
  const stats = bySize(size, { full: 1_000_000, quick: 500_000, smoke: 3000 });
  const singles = bySize(size, { full: 3000, quick: 2000, smoke: 50 });
  const etcdPuts = bySize(size, { full: 60_000, quick: 30_000, smoke: 300 });
  const runs = bySize(size, { full: 3, quick: 1, smoke: 1 });

  const etcd = await startEtcd(directory);
  if (etcd === undefined) note("etcd is not installed: nothing to compare with");
  const { process: master, address, ready } = await startMaster(directory);
  const client = connect({ masters: [address] });
  try {
    const random = new Random(1);
    await runOutstanding(directoryCount, outstanding, (i) => client.mkdir(`/d${i}`));
    const pathOf = (i: number): string => `/d${(Math.imul(i, 2654435761) >>> 0) % directoryCount}/file-${i}`;
    await runOutstanding(Math.min(20_000, creates), outstanding, (i) =>
      client.create(`/d${i % directoryCount}/warm-${i}`),
    );

    const createRates: number[] = [];
    const etcdRates: number[] = [];
    const perRun = Math.floor(creates / runs);
    let cpuPerCreateUs = 0;
    for (let round_ = 0; round_ < runs; round_++) {
      note(`creates, run ${round_ + 1} of ${runs}`);
      const cpuBegan = cpuSeconds(master);
      const seconds = await runOutstanding(perRun, outstanding, (i) => client.create(pathOf(round_ * perRun + i)));
      cpuPerCreateUs = ((cpuSeconds(master) - cpuBegan) / perRun) * 1e6;
      createRates.push(perRun / seconds);
      if (etcd !== undefined) etcdRates.push(await etcdPutRate(etcd, Math.floor(etcdPuts / runs)));
    }
    const conditions = `durable (fsync), ${outstanding} outstanding on one connection, parents at random among ${directoryCount} directories, ${creates} inodes`;
    const against =
      etcdRates.length === 0 ? {} : { ratio: round(median(createRates) / median(etcdRates)), against: "etcd" };
    emit({
      system: "headpond",
      metric: "creates_per_s",
      value: round(median(createRates)),
      unit: "1/s",
      ...against,
      runs,
      conditions,
    });
    emit({
      system: "headpond",
      metric: "create_cpu_us",
      value: round(cpuPerCreateUs),
      unit: "us",
      runs: 1,
      conditions: "CPU of the master a create, last run",
    });
    if (etcdRates.length > 0) {
      emit({
        system: "etcd",
        metric: "creates_per_s",
        value: round(median(etcdRates)),
        unit: "1/s",
        runs,
        conditions: `put of ${etcdValueBytes} B over gRPC, one node, fsync on, ${outstanding} outstanding`,
      });
    }

    const made = perRun * runs;
    await statRates(
      context,
      client,
      made,
      stats,
      (i) => pathOf(i),
      random,
      () => cpuSeconds(master),
      String(ready.endpoints["http"]),
    );
    await limits(context);

    note("one at a time");
    const latencies = await latenciesUs(singles, (i) => client.create(`/d${i % directoryCount}/single-${i}`));
    const etcdLatencies =
      etcd === undefined
        ? []
        : await latenciesUs(singles, (i) => etcd.put(`single-${i}`, Buffer.alloc(etcdValueBytes)));
    emit({
      system: "headpond",
      metric: "create_latency_us",
      value: round(median(latencies)),
      unit: "us",
      ...(etcdLatencies.length === 0
        ? {}
        : { ratio: round(median(latencies) / median(etcdLatencies)), against: "etcd" }),
      runs: singles,
      conditions: "median, one outstanding, durable",
    });
    if (etcdLatencies.length > 0) {
      emit({
        system: "etcd",
        metric: "create_latency_us",
        value: round(median(etcdLatencies)),
        unit: "us",
        runs: singles,
        conditions: "median, one outstanding, durable",
      });
    }
  } finally {
    await client.close();
    await master.stop();
    await etcd?.close();
  }
}

async function statRates(
  context: BenchmarkContext,
  client: HeadpondClient,
  made: number,
  count: number,
  pathOf: (i: number) => string,
  random: Random,
  cpuNow: () => number,
  status: string,
): Promise<void> {
  context.note("stats");
  const missesBefore = await cacheMisses(status);
  const cpuBegan = cpuNow();
  const seconds = await runOutstanding(count, outstanding, () => client.stat(pathOf(random.between(0, made - 1))));
  const cpuUs = ((cpuNow() - cpuBegan) / count) * 1e6;
  const fromMemory = 100 * Math.max(0, 1 - ((await cacheMisses(status)) - missesBefore) / count);
  const conditions = `linearizable, ${outstanding} outstanding on one connection, at random among ${made} paths, ${cpuUs.toFixed(1)} us of the master's CPU each, ${fromMemory.toFixed(1)}% without a look into the state's file`;
  context.emit({
    system: "headpond",
    metric: "stats_per_s",
    value: round(count / seconds),
    unit: "1/s",
    runs: 1,
    conditions,
  });
}

/** What a slow machine shows in: nothing of these is the master's doing, save what an entry costs those who only apply it. */
async function limits({ size, emit, note }: BenchmarkContext): Promise<void> {
  note("empty requests");
  const echoes = bySize(size, { full: 1_000_000, quick: 400_000, smoke: 2000 });
  const { perSecond, serverCpuUs } = await rpcEchoes(echoes, outstanding);
  emit({
    system: "headpond",
    metric: "rpc_echo_per_s",
    value: round(perSecond),
    unit: "1/s",
    runs: 1,
    conditions: `an empty method through the same client and server, ${outstanding} outstanding, ${serverCpuUs.toFixed(1)} us of the server's CPU each`,
  });
  note("applying alone");
  const applied = bySize(size, { full: 900_000, quick: 300_000, smoke: 3000 });
  emit({
    system: "headpond",
    metric: "apply_cpu_us",
    value: round(await applyCpuUs(applied)),
    unit: "us",
    runs: 1,
    conditions:
      "CPU a create of a process that only applies, as a follower does: state, flushes and the store's thread",
  });
}

/** Inodes and names that the master had to look up in its file. */
async function cacheMisses(status: string): Promise<number> {
  const text = await (await fetch(new URL("/metrics", status))).text();
  return Number(/^headpond_master_inode_cache_misses_total\S* ([0-9.e+]+)$/m.exec(text)?.[1]);
}

async function etcdPutRate(etcd: Etcd, count: number): Promise<number> {
  const value = Buffer.alloc(etcdValueBytes, 7);
  return count / (await runOutstanding(count, outstanding, (i) => etcd.put(`d${i % directoryCount}/file-${i}`, value)));
}

async function latenciesUs(count: number, task: (i: number) => Promise<unknown>): Promise<number[]> {
  const latencies: number[] = [];
  for (let i = 0; i < count; i++) {
    const began = performance.now();
    await task(i);
    latencies.push((performance.now() - began) * 1000);
  }
  return latencies;
}
