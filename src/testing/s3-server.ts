/**
 * A real S3 server for tests: versitygw (Apache-2.0) on a directory of its own. It is taken from the PATH, from Go's own
 * place for programs, or built once with Go into the repository's cache. Without Go and without it, `findS3Server`
 * says why there is none, and the tests that want it say so by name.
 */

import { execFile, spawn } from "node:child_process";
import fs from "node:fs";
import net from "node:net";
import os from "node:os";
import path from "node:path";
import { promisify } from "node:util";

const version = "v1.8.0";
const modulePath = `github.com/versity/versitygw/cmd/versitygw@${version}`;
const repository = path.resolve(import.meta.dirname, "../..");
const cachedBinary = path.join(repository, ".cache/bin/versitygw");
/** A cold build downloads and compiles about two hundred modules. */
const buildTimeoutMs = 15 * 60_000;
const startTimeoutMs = 20_000;

export type S3Server = {
  readonly endpoint: string;
  readonly region: string;
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
  /** Where the objects of a bucket are files, to look at and to damage. */
  readonly directory: string;
  readonly makeBucket: (name: string) => void;
  readonly close: () => Promise<void>;
};

export type FoundS3Server = { readonly binary: string } | { readonly missing: string };

/** Looks for the server, and builds it if Go is here. Two processes that build at once are no harm: the last rename wins. */
export async function findS3Server(): Promise<FoundS3Server> {
  const directories = [
    ...(process.env["PATH"] ?? "").split(":"),
    path.join(os.homedir(), "go/bin"),
    path.dirname(cachedBinary),
  ];
  for (const directory of directories) {
    const binary = path.join(directory, "versitygw");
    if (directory !== "" && isExecutable(binary)) return { binary };
  }
  const go = ["/usr/local/go/bin/go", ...(process.env["PATH"] ?? "").split(":").map((d) => path.join(d, "go"))].find(
    isExecutable,
  );
  if (go === undefined) return { missing: "no versitygw on the PATH, and no Go to build it with" };
  const directory = path.dirname(cachedBinary);
  fs.mkdirSync(directory, { recursive: true });
  const building = fs.mkdtempSync(path.join(directory, "build-"));
  try {
    const env = { ...process.env, GOBIN: building, GOFLAGS: "-mod=mod" };
    await promisify(execFile)(go, ["install", modulePath], { env, cwd: building, timeout: buildTimeoutMs });
    fs.renameSync(path.join(building, "versitygw"), cachedBinary);
    return { binary: cachedBinary };
  } catch (error) {
    return { missing: `versitygw could not be built: ${(error as Error).message.slice(-400)}` };
  } finally {
    fs.rmSync(building, { recursive: true, force: true });
  }
}

export async function startS3Server({ binary }: { readonly binary: string }): Promise<S3Server> {
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), "headpond-s3-"));
  const port = await freePort();
  const [accessKeyId, secretAccessKey, region] = ["headpond-test", "headpond-test-secret", "us-east-1"];
  const child = spawn(
    binary,
    ["-q", "--keep-alive", "--port", `127.0.0.1:${port}`, "--region", region, "posix", directory],
    {
      env: { ...process.env, ROOT_ACCESS_KEY: accessKeyId, ROOT_SECRET_KEY: secretAccessKey },
      stdio: ["ignore", "ignore", "pipe"],
    },
  );
  let complaints = "";
  child.stderr.on("data", (chunk: Buffer) => {
    complaints = (complaints + chunk.toString()).slice(-4000);
  });
  const exited = new Promise<void>((resolve) => child.once("exit", () => resolve()));
  // A test that dies must not leave a server behind.
  const kill = (): void => void child.kill("SIGKILL");
  process.once("exit", kill);
  const close = async (): Promise<void> => {
    process.removeListener("exit", kill);
    child.kill("SIGKILL");
    await exited;
    fs.rmSync(directory, { recursive: true, force: true });
  };
  const startedMs = Date.now();
  while (!(await accepts(port))) {
    if (child.exitCode !== null || Date.now() - startedMs > startTimeoutMs) {
      await close();
      throw new Error(`versitygw did not start: ${complaints}`);
    }
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  return {
    endpoint: `http://127.0.0.1:${port}`,
    region,
    accessKeyId,
    secretAccessKey,
    directory,
    // A directory is a bucket to this server.
    makeBucket: (name) => fs.mkdirSync(path.join(directory, name)),
    close,
  };
}

function isExecutable(file: string): boolean {
  try {
    fs.accessSync(file, fs.constants.X_OK);
    return fs.statSync(file).isFile();
  } catch {
    return false;
  }
}

async function freePort(): Promise<number> {
  const server = net.createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as net.AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}

function accepts(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = net.connect(port, "127.0.0.1");
    socket.once("connect", () => {
      socket.destroy();
      resolve(true);
    });
    socket.once("error", () => resolve(false));
  });
}
