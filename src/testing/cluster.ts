/**
 * A real cluster of processes for end-to-end tests: one master or several, and workers, on loopback in a temporary directory, the command
 * line against it, and a clean end whatever happens.
 */

import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { freePorts, headpondBin, type StartedRole, startConfiguredRole } from "../cli/role-process.ts";
import { MasterGroup, type MasterGroupOptions } from "./master-group.ts";

export type CliResult = {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
  readonly bytes: Buffer;
};

export type TestCluster = {
  readonly directory: string;
  readonly master: StartedRole;
  readonly masterAddress: string;
  readonly workers: readonly StartedRole[];
  /** Runs `headpond ARGS --masters ...`. */
  readonly run: (...args: readonly string[]) => Promise<CliResult>;
  /** As `run` with `--json`; the parsed document. */
  readonly json: <T = unknown>(...args: readonly string[]) => Promise<T>;
  /** Kills and starts a role again, with the files and ports that it had. */
  restartMaster(signal?: NodeJS.Signals): Promise<void>;
  restartWorker(index: number, signal?: NodeJS.Signals): Promise<void>;
};

/** What a test wants otherwise than the rest. */
export type ClusterOptions = {
  /** Settings of the section `master`, beside or instead of those that every test cluster has. */
  readonly master?: Readonly<Record<string, unknown>>;
  readonly worker?: (index: number, directory: string) => Readonly<Record<string, unknown>>;
  /** Of all roles, beside that of this process. */
  readonly environment?: Readonly<Record<string, string>>;
};

export async function withCluster<T>(
  workerCount: number,
  use: (cluster: TestCluster) => Promise<T>,
  options: ClusterOptions = {},
): Promise<T> {
  const directory = await mkdtemp(join(tmpdir(), "headpond-test-"));
  const environment = { ...process.env, ...options.environment };
  const ports = await freePorts(2 + workerCount * 4);
  const [rpc, http] = [ports[0], ports[1]];
  const masterAddress = `127.0.0.1:${rpc}`;
  const startMaster = (): Promise<StartedRole> =>
    startConfiguredRole(
      "master",
      "master",
      directory,
      {
        cluster: { name: "test" },
        master: {
          dir: join(directory, "master"),
          rpc: masterAddress,
          http: `127.0.0.1:${http}`,
          workerTimeout: "2s",
          ...options.master,
        },
      },
      { environment },
    );
  const startWorker = (index: number): Promise<StartedRole> => {
    const [data, workerHttp, hf, files] = ports.slice(2 + index * 4, 6 + index * 4);
    return startConfiguredRole(
      `worker-${index}`,
      "worker",
      directory,
      {
        worker: {
          id: `w${index}`,
          masters: [masterAddress],
          place: `local/local/local/host-${index}`,
          advertise: "127.0.0.1",
          dirs: [{ path: join(directory, `worker-${index}`), capacity: "10GiB" }],
          data: `127.0.0.1:${data}`,
          http: `127.0.0.1:${workerHttp}`,
          ...options.worker?.(index, directory),
        },
        gateways: { hf: `127.0.0.1:${hf}`, files: `127.0.0.1:${files}` },
      },
      { environment },
    );
  };
  let master: StartedRole | undefined;
  const workers: StartedRole[] = [];
  try {
    master = await startMaster();
    for (let index = 0; index < workerCount; index++) workers.push(await startWorker(index));
    const run = (...args: readonly string[]): Promise<CliResult> =>
      runCli([...args, "--masters", masterAddress], directory);
    return await use({
      directory,
      get master() {
        return master as StartedRole;
      },
      masterAddress,
      workers,
      run,
      json: jsonOf(run),
      restartMaster: async (signal = "SIGKILL") => {
        await master?.process.stop(signal);
        master = await startMaster();
      },
      restartWorker: async (index, signal = "SIGKILL") => {
        await workers[index]?.process.stop(signal);
        workers[index] = await startWorker(index);
      },
    });
  } finally {
    await Promise.all(
      [...workers, ...(master === undefined ? [] : [master])].map((role) => role.process.stop("SIGKILL")),
    );
    await rm(directory, { recursive: true, force: true });
  }
}

export type TestMasters = Pick<TestCluster, "directory" | "workers" | "run" | "json"> & {
  readonly masters: MasterGroup;
  /** As `run`, of what must succeed: what it wrote to stdout. */
  ok(...args: readonly string[]): Promise<string>;
  /** Starts one more worker, which knows all masters. */
  startWorker(): Promise<StartedRole>;
};

export type MastersOptions = Omit<MasterGroupOptions, "directory"> & {
  readonly workers?: number;
  readonly worker?: ClusterOptions["worker"];
};

/** As `withCluster`, with `count` masters that replicate their journal by Raft. One leads when `use` is called. */
export async function withMasters<T>(
  count: number,
  use: (cluster: TestMasters) => Promise<T>,
  options: MastersOptions = {},
): Promise<T> {
  const directory = await mkdtemp(join(tmpdir(), "headpond-masters-"));
  const masters = new MasterGroup({ ...options, directory });
  const workers: StartedRole[] = [];
  const startWorker = async (): Promise<StartedRole> => {
    const index = workers.length;
    const [data, http, hf, files] = await freePorts(4);
    const worker = await startConfiguredRole(`worker-${index}`, "worker", directory, {
      worker: {
        id: `w${index}`,
        masters: masters.addresses,
        place: `local/local/local/host-${index}`,
        advertise: "127.0.0.1",
        dirs: [{ path: join(directory, `worker-${index}`), capacity: "10GiB" }],
        data: `127.0.0.1:${data}`,
        http: `127.0.0.1:${http}`,
        ...options.worker?.(index, directory),
      },
      gateways: { hf: `127.0.0.1:${hf}`, files: `127.0.0.1:${files}` },
    });
    workers.push(worker);
    return worker;
  };
  try {
    await masters.found(count);
    for (let index = 0; index < (options.workers ?? 0); index++) await startWorker();
    const run = (...args: readonly string[]): Promise<CliResult> =>
      runCli([...args, "--masters", masters.addresses.join(",")], directory);
    const ok = async (...args: readonly string[]): Promise<string> => {
      const { code, stdout, stderr } = await run(...args);
      if (code !== 0) throw new Error(`headpond ${args.join(" ")} ended with ${code}: ${stdout}${stderr}`);
      return stdout;
    };
    return await use({ directory, masters, workers, startWorker, run, ok, json: jsonOf(run) });
  } finally {
    await Promise.all([masters.close(), ...workers.map((role) => role.process.stop("SIGKILL"))]);
    await rm(directory, { recursive: true, force: true });
  }
}

function jsonOf(run: TestCluster["run"]): TestCluster["json"] {
  return async <Document>(...args: readonly string[]) => {
    const { stdout, stderr, code } = await run(...args, "--json");
    if (stdout === "") throw new Error(`headpond ${args.join(" ")} ended with ${code} and no JSON: ${stderr}`);
    return JSON.parse(stdout) as Document;
  };
}

/** Runs the command line as a user would; never rejects for an exit code. */
export async function runCli(args: readonly string[], directory: string, input?: Uint8Array): Promise<CliResult> {
  const child = spawn(process.execPath, [headpondBin, ...args], {
    cwd: directory,
    stdio: ["pipe", "pipe", "pipe"],
    env: { ...process.env, NO_COLOR: "1", HEADPOND_MASTERS: undefined },
  });
  child.stdin.on("error", () => {});
  child.stdin.end(input);
  const out: Buffer[] = [];
  const err: Buffer[] = [];
  child.stdout.on("data", (chunk: Buffer) => out.push(chunk));
  child.stderr.on("data", (chunk: Buffer) => err.push(chunk));
  const code = await new Promise<number>((done) => child.once("close", (status) => done(status ?? -1)));
  const bytes = Buffer.concat(out);
  return { code, bytes, stdout: bytes.toString(), stderr: Buffer.concat(err).toString() };
}

/** A directory that looks like a model; the files by relative path. */
export async function writeModel(
  directory: string,
  files: Readonly<Record<string, Uint8Array | string>>,
): Promise<void> {
  for (const [name, content] of Object.entries(files)) {
    await mkdir(dirname(join(directory, name)), { recursive: true });
    await writeFile(join(directory, name), content);
  }
}

export function sha256(bytes: Uint8Array | string): string {
  return createHash("sha256").update(bytes).digest("hex");
}
