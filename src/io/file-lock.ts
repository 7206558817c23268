/**
 * An exclusive lock on a file that the kernel drops when its holder dies, however it dies. Node has no flock(2), so two
 * things that the kernel owns are held together:
 *
 * - an abstract unix socket named after the file's device and inode (Linux): needs nothing installed, but reaches only
 *   as far as one network namespace, so two containers over one volume do not see each other by it;
 * - a flock(2), taken by the command `flock` on a descriptor that it inherits from us: such a lock belongs to the open
 *   file, not to the process that asked for it, so it stays here when the command ends. Reaches as far as the file
 *   system's own locks do, but needs util-linux or busybox.
 *
 * What it does not do: where the command `flock` is missing it does not see holders in other network namespaces, and
 * where neither exists (no Linux, no `flock`) it throws `unsupported` rather than pretend.
 */

import { type SpawnSyncReturns, spawnSync } from "node:child_process";
import fs from "node:fs";
import net from "node:net";
import { HeadpondError } from "../base/errors.ts";
import type { DiskLock } from "./disk.ts";

/** `flock -n` answers at once; a file system that hangs must not hang the start for ever. */
const flockTimeoutMs = 5000;
/** The answer of `flock -n` when somebody else holds the lock. */
const flockHeldStatus = 1;

export async function takeFileLock(path: string, mode: number): Promise<DiskLock | undefined> {
  const descriptor = fs.openSync(path, fs.constants.O_RDWR | fs.constants.O_CREAT, mode);
  let socket: net.Server | undefined;
  try {
    const hasSockets = process.platform === "linux";
    if (hasSockets) {
      const { dev, ino } = fs.fstatSync(descriptor);
      socket = await holdName(`\0headpond-lock-${dev}-${ino}`);
      if (socket === undefined) {
        fs.closeSync(descriptor);
        return undefined;
      }
    }
    const flock = runFlock(descriptor);
    if (flock === "held") {
      socket?.close();
      fs.closeSync(descriptor);
      return undefined;
    }
    if (flock === "missing" && !hasSockets) {
      throw new HeadpondError("unsupported", `${path}: cannot be locked: the command "flock" is not installed`);
    }
  } catch (error) {
    socket?.close();
    fs.closeSync(descriptor);
    throw error;
  }
  let held = true;
  return {
    release: async () => {
      if (!held) return;
      held = false;
      fs.closeSync(descriptor);
      await new Promise<void>((resolve) => (socket === undefined ? resolve() : socket.close(() => resolve())));
    },
  };
}

/** `undefined`: somebody else has the name. */
function holdName(name: string): Promise<net.Server | undefined> {
  return new Promise((resolve, reject) => {
    const server = net.createServer((socket) => socket.destroy());
    server.once("error", (error: NodeJS.ErrnoException) =>
      error.code === "EADDRINUSE" ? resolve(undefined) : reject(error),
    );
    server.listen({ path: name, exclusive: true }, () => {
      server.unref();
      resolve(server);
    });
  });
}

function runFlock(descriptor: number): "taken" | "held" | "missing" {
  const result: SpawnSyncReturns<Buffer> = spawnSync("flock", ["-x", "-n", "3"], {
    stdio: ["ignore", "ignore", "ignore", descriptor],
    timeout: flockTimeoutMs,
  });
  if ((result.error as NodeJS.ErrnoException | undefined)?.code === "ENOENT") return "missing";
  if (result.error !== undefined) throw result.error;
  if (result.status === 0) return "taken";
  if (result.status === flockHeldStatus) return "held";
  throw new HeadpondError("internal", `flock ended with status ${result.status} and signal ${result.signal}`);
}
