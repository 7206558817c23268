/** `fs ls|stat|tree|find|du|location`: looks, changes nothing. */

import { HeadpondError } from "../base/errors.ts";
import type { FileStatus } from "../base/file.ts";
import { baseName, parsePath, relativePath } from "../base/path.ts";
import { formatBytes, parseSizeBytes } from "../base/units.ts";
import { action, type Commands, leaf } from "./command.ts";
import type { Column } from "./output.ts";

const treeDepthMax = 64;

const rowColumns: readonly Column<FileStatus>[] = [
  { title: "MODE", value: (row) => formatMode(row) },
  { title: "OWNER", value: (row) => row.owner || "-" },
  { title: "SIZE", value: (row) => (row.kind === "directory" ? "-" : formatBytes(row.sizeBytes)), align: "right" },
  { title: "CACHED", value: (row) => cachedShare(row), align: "right" },
  { title: "MODIFIED", value: (row) => formatTime(row.modifiedMs) },
  { title: "NAME", value: (row) => (row.kind === "directory" ? `${baseName(row.path)}/` : baseName(row.path)) },
];

export function addFsList({ fs, signal }: Commands): void {
  leaf(fs, "ls [path]", "list a directory", "headpond fs ls /models --json")
    .option("-R, --recursive", "the whole tree")
    .option("--limit <n>", "at most so many rows")
    .action(
      action(signal, async (context, flags, word: string | undefined) => {
        const path = parsePath(word ?? "/");
        const { recursive, limit } = flags;
        let shown = 0;
        const most = limit === undefined ? Number.POSITIVE_INFINITY : parseCount(String(limit), "--limit");
        const rows: FileStatus[] = [];
        for await (const row of context.client().list(path, { recursive: recursive === true, signal })) {
          if (shown++ >= most) break;
          if (context.output.json) context.output.item(row, () => {});
          else rows.push(row);
        }
        if (context.output.json) return 0;
        context.output.table(
          rows,
          recursive === true
            ? [...rowColumns.slice(0, -1), { title: "PATH", value: (row) => relativePath(row.path, path) }]
            : rowColumns,
        );
        return 0;
      }),
    );

  leaf(
    fs,
    "stat <path>",
    "all that is known of a file or directory",
    "headpond fs stat /models/org/name/config.json",
  ).action(
    action(signal, async (context, _flags, word: string) => {
      const status = await context.client().stat(parsePath(word), { signal });
      context.output.result(status, () => context.output.facts(describeStatus(status)));
      return 0;
    }),
  );

  leaf(fs, "tree [path]", "the tree below a directory", "headpond fs tree /models")
    .option("--depth <n>", "levels to show", "3")
    .action(
      action(signal, async (context, flags, word: string | undefined) => {
        const depth = Math.min(treeDepthMax, parseCount(String(flags["depth"]), "--depth"));
        const path = parsePath(word ?? "/");
        context.output.result({ path }, () => context.output.line(path));
        const visit = async (directory: FileStatus["path"], level: number): Promise<void> => {
          for await (const row of context.client().list(directory, { signal })) {
            context.output.item(row, () => {
              const size = row.kind === "directory" ? "/" : `  ${formatBytes(row.sizeBytes)}`;
              context.output.line(`${"  ".repeat(level)}${baseName(row.path)}${size}`);
            });
            if (row.kind === "directory" && level < depth) await visit(row.path, level + 1);
          }
        };
        await visit(path, 1);
        return 0;
      }),
    );

  leaf(
    fs,
    "find <path>",
    "files below a directory that match",
    "headpond fs find /models --name '*.safetensors' --min-size 1GiB",
  )
    .option("--name <pattern>", "of the last name; * and ? stand for any text and any character")
    .option("--min-size <size>", "at least so large")
    .option("--type <kind>", "file or directory")
    .action(
      action(signal, async (context, flags, word: string) => {
        const pattern = flags["name"] === undefined ? undefined : globPattern(String(flags["name"]));
        const least = flags["minSize"] === undefined ? 0 : parseSizeBytes(String(flags["minSize"]));
        for await (const row of context.client().list(parsePath(word), { recursive: true, signal })) {
          if (pattern !== undefined && !pattern.test(baseName(row.path))) continue;
          if (row.sizeBytes < least || (flags["type"] !== undefined && row.kind !== flags["type"])) continue;
          context.output.item(row, () => context.output.line(row.path));
        }
        return 0;
      }),
    );

  leaf(fs, "du [path]", "files, bytes and cached bytes below a path", "headpond fs du /models/org/name").action(
    action(signal, async (context, _flags, word: string | undefined) => {
      const path = parsePath(word ?? "/");
      const sum = { path, files: 0, directories: 0, sizeBytes: 0, cachedBytes: 0 };
      const add = (row: FileStatus): void => {
        if (row.kind === "directory") sum.directories++;
        else sum.files++;
        sum.sizeBytes += row.sizeBytes;
        sum.cachedBytes += row.cachedBytes;
      };
      const status = await context.client().stat(path, { signal });
      add(status);
      if (status.kind === "directory") {
        for await (const row of context.client().list(path, { recursive: true, signal })) add(row);
      }
      context.output.result(sum, () =>
        context.output.line(
          `${formatBytes(sum.sizeBytes)} in ${sum.files} files, ${formatBytes(sum.cachedBytes)} cached  ${path}`,
        ),
      );
      return 0;
    }),
  );

  leaf(
    fs,
    "location <path>",
    "which workers hold a file's blocks",
    "headpond fs location /models/org/name/model.safetensors",
  ).action(
    action(signal, async (context, _flags, word: string) => {
      const location = await context.client().location(parsePath(word), { signal });
      context.output.result(location, () =>
        context.output.table(location.holders, [
          { title: "WORKER", value: (row) => row.worker.id },
          { title: "PLACE", value: (row) => row.worker.place },
          { title: "BLOCKS", value: (row) => String(row.blocks), align: "right" },
          { title: "BYTES", value: (row) => formatBytes(row.bytes), align: "right" },
          { title: "WHOLE", value: (row) => (row.complete ? "yes" : "no") },
        ]),
      );
      return 0;
    }),
  );
}

function describeStatus(status: FileStatus): readonly (readonly [string, string])[] {
  const facts: (readonly [string, string])[] = [
    ["path", status.path],
    ["kind", status.kind],
    ["inode", String(status.inodeId)],
    ["version", String(status.version)],
    ["mode", `${formatMode(status)} ${status.owner || "-"}:${status.group || "-"}`],
    ["modified", formatTime(status.modifiedMs)],
  ];
  if (status.kind === "file") {
    facts.push(
      ["size", `${formatBytes(status.sizeBytes)} (${status.sizeBytes} bytes)`],
      ["cached", cachedShare(status)],
    );
    if (!status.complete) facts.push(["state", "being written"]);
  } else facts.push(["children", String(status.childCount ?? 0)]);
  if (status.mount !== undefined) facts.push(["mount", status.mount]);
  if (status.etag !== undefined) facts.push(["etag", status.etag]);
  if (status.pinned) facts.push(["pinned", "yes"]);
  if (status.ttl !== undefined) facts.push(["ttl", `${status.ttl.action} at ${formatTime(status.ttl.expiresMs)}`]);
  if (status.replicas !== undefined) facts.push(["replicas", `${status.replicas.min} to ${status.replicas.max}`]);
  for (const [name, value] of Object.entries(status.attributes)) facts.push([`@${name}`, value]);
  return facts;
}

function cachedShare(row: FileStatus): string {
  if (row.kind === "directory") return "-";
  return row.sizeBytes === 0 ? "100 %" : `${Math.floor((row.cachedBytes / row.sizeBytes) * 100)} %`;
}

function formatMode({ kind, mode }: FileStatus): string {
  const letters = ["r", "w", "x"];
  const bits = Array.from({ length: 9 }, (_, i) => ((mode >> (8 - i)) & 1 ? (letters[i % 3] as string) : "-"));
  return (kind === "directory" ? "d" : "-") + bits.join("");
}

export function formatTime(timeMs: number): string {
  return new Date(timeMs).toISOString().replace("T", " ").slice(0, 19);
}

export function parseCount(text: string, flag: string): number {
  if (!/^[0-9]{1,9}$/.test(text)) throw new HeadpondError("invalid", `${flag} ${text}: write a whole number`);
  return Number(text);
}

function globPattern(glob: string): RegExp {
  const source = glob
    .replace(/[.+^${}()|[\]\\]/g, "\\$&")
    .replaceAll("*", ".*")
    .replaceAll("?", ".");
  return new RegExp(`^${source}$`, "su");
}
