/**
 * Whether the file system under a shared directory can keep the promises of a shared store: a name that one machine has created
 * must be there for every other one that asks. Client caches of names break it: with NFS's usual `lookupcache=all` a machine
 * may remember for seconds that a name is *absent*, and a deposed primary would go on to acknowledge.
 *
 * The kernel's table of mounts is read as it is; where there is none (other systems, simulations) nothing is refused.
 */

import { HeadpondError } from "../base/errors.ts";
import type { Disk } from "../io/disk.ts";

export type Mount = {
  readonly point: string;
  /** `nfs4`, `ext4`, `fuse.sshfs`, ... */
  readonly type: string;
  readonly source: string;
  readonly options: readonly string[];
};

const tablePath = "/proc/self/mountinfo";
/** A machine with more mounts than fit has other troubles; what is behind the limit is not looked at. */
const tableBytesMax = 4 * 1024 * 1024;

/** The file system that holds `path` (absolute, links resolved); `undefined`: this system does not say. */
export async function mountOf(disk: Disk, path: string): Promise<Mount | undefined> {
  const table = await readTable(disk);
  let found: Mount | undefined;
  for (const line of table.split("\n")) {
    const mount = parseMount(line);
    if (mount === undefined || !holds(mount.point, path)) continue;
    // Of two at one place the later one lies on top.
    if (found === undefined || mount.point.length >= found.point.length) found = mount;
  }
  return found;
}

/** Throws `unsupported`, saying why and what to do. */
export function checkMount({ point, type, source, options }: Mount, path: string): void {
  const where = `${path} is on ${type} (${source} at ${point})`;
  if (type === "nfs" || type === "nfs4") {
    const lookupCache = options.find((option) => option.startsWith("lookupcache="))?.slice("lookupcache=".length);
    // The kernel says `pos` where people write `positive`.
    if (lookupCache === "none" || lookupCache === "pos" || lookupCache === "positive") return;
    throw refusal(
      `${where}, mounted with lookupcache=${lookupCache ?? "all"}: this machine may remember for seconds that a name is absent, and miss that another master has taken over`,
      "mount it with -o lookupcache=positive (or none) on every master",
    );
  }
  if (unfitTypes.has(type) || type.startsWith("fuse")) {
    throw refusal(
      `${where}, of which it is not known that every machine sees at once which names exist, and that one of several links of a name succeeds`,
      "use NFS with lookupcache=positive, a cluster file system or an S3 bucket; option mount=trusted uses it nevertheless",
    );
  }
}

const unfitTypes: ReadonlySet<string> = new Set(["cifs", "smb3", "smbfs", "9p", "afs", "ncpfs", "vboxsf", "davfs"]);

/** Whether what is written there is gone after a reboot. */
export function isVolatileMount({ type }: Mount): boolean {
  return type === "tmpfs" || type === "ramfs";
}

function refusal(why: string, instead: string): HeadpondError {
  return new HeadpondError("unsupported", `a shared journal cannot be kept here: ${why}: ${instead}`);
}

/** `36 35 98:0 /root /mnt rw,noatime master:1 - ext3 /dev/root rw,errors=continue`; fields before the dash vary in number. */
function parseMount(line: string): Mount | undefined {
  const [before, after] = line.split(" - ", 2);
  if (before === undefined || after === undefined) return undefined;
  const [, , , , point, pointOptions = ""] = before.split(" ");
  const [type, source = "", superOptions = ""] = after.split(" ");
  if (point === undefined || type === undefined) return undefined;
  return {
    point: unescape(point),
    type,
    source: unescape(source),
    options: [pointOptions, superOptions].join(",").split(","),
  };
}

/** Blanks and the like are written as three octal digits. */
function unescape(text: string): string {
  return text.replace(/\\([0-7]{3})/g, (_, digits: string) => String.fromCharCode(Number.parseInt(digits, 8)));
}

function holds(point: string, path: string): boolean {
  return point === "/" || path === point || path.startsWith(`${point}/`);
}

async function readTable(disk: Disk): Promise<string> {
  try {
    const file = await disk.open(tablePath, "read");
    try {
      const parts: Uint8Array[] = [];
      for (let position = 0; position < tableBytesMax; ) {
        // Its size is told as 0: it ends where a read gives nothing.
        const part = new Uint8Array(64 * 1024);
        const count = await file.read(part, position);
        if (count === 0) break;
        parts.push(part.subarray(0, count));
        position += count;
      }
      return new TextDecoder().decode(Buffer.concat(parts));
    } finally {
      await file.close();
    }
  } catch (error) {
    if ((error as { readonly code?: string }).code === "ENOENT") return "";
    throw error;
  }
}
