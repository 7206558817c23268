/** `fs mkdir|touch|rm|mv|pin|unpin|ttl|replicas|chmod|chown|attr|sync|persist`: changes of the namespace. */

import { HeadpondError } from "../base/errors.ts";
import type { FileStatus } from "../base/file.ts";
import { parsePath } from "../base/path.ts";
import { parseDurationMs } from "../base/units.ts";
import { action, type Commands, leaf } from "./command.ts";
import type { Context } from "./context.ts";
import { parseCount } from "./fs-list.ts";

export function addFsChange(commands: Commands): void {
  addNames(commands);
  addAttributes(commands);
  addCacheWishes(commands);
  addSync(commands);
  addPersist(commands);
}

function addNames({ fs, signal }: Commands): void {
  leaf(fs, "mkdir <path>", "make a directory", "headpond fs mkdir -p /runs/2026/11")
    .option("-p, --parents", "missing parents too; no error if it exists")
    .action(
      action(signal, async (context, flags, word: string) => {
        const ref = await context.client().mkdir(parsePath(word), { recursive: flags["parents"] === true, signal });
        return done(context, ref, `made ${word}`);
      }),
    );
  leaf(fs, "touch <path>", "make an empty file", "headpond fs touch /locks/job-7 --exclusive --attr owner=node-3")
    .option("--exclusive", "fail if it exists")
    .option("--attr <key=value...>", "attributes of the new file")
    .action(
      action(signal, async (context, flags, word: string) => {
        const ref = await context.client().create(parsePath(word), {
          exclusive: flags["exclusive"] === true,
          attributes: parsePairs((flags["attr"] as readonly string[] | undefined) ?? []),
          signal,
        });
        return done(context, ref, `made ${word}`);
      }),
    );
  leaf(
    fs,
    "rm <path>",
    "remove a file or directory (under a mount: in the under store too)",
    "headpond fs rm -r /runs/old",
  )
    .option("-r, --recursive", "a directory with all below it")
    .action(
      action(signal, async (context, flags, word: string) => {
        await context.client().remove(parsePath(word), { recursive: flags["recursive"] === true, signal });
        return done(context, { removed: word }, `removed ${word}`);
      }),
    );
  leaf(fs, "mv <from> <to>", "rename", "headpond fs mv --no-replace /runs/a /runs/b")
    .option("--no-replace", "fail if the target exists")
    .action(
      action(signal, async (context, flags, from: string, to: string) => {
        const replace = flags["replace"] !== false;
        const ref = await context.client().rename(parsePath(from), parsePath(to), { replace, signal });
        return done(context, ref, `renamed ${from} to ${to}`);
      }),
    );
}

function addAttributes({ fs, signal }: Commands): void {
  leaf(fs, "chmod <mode> <path>", "change permission bits", "headpond fs chmod 640 /runs/a").action(
    action(signal, async (context, _flags, mode: string, word: string) => {
      if (!/^[0-7]{3,4}$/.test(mode)) throw new HeadpondError("invalid", `mode ${mode}: write it in octal, e.g. 644`);
      const ref = await context.client().setAttributes(parsePath(word), { mode: Number.parseInt(mode, 8) }, { signal });
      return done(context, ref, `changed ${word}`);
    }),
  );
  leaf(fs, "chown <owner> <path>", "change owner, or owner:group", "headpond fs chown alice:ml /runs/a").action(
    action(signal, async (context, _flags, names: string, word: string) => {
      const [owner, group] = names.split(":");
      const change = { ...(owner ? { owner } : {}), ...(group ? { group } : {}) };
      const ref = await context.client().setAttributes(parsePath(word), change, { signal });
      return done(context, ref, `changed ${word}`);
    }),
  );
  const attr = fs.command("attr").description("user attributes of a file or directory");
  leaf(attr, "set <path> <pairs...>", "set attributes", "headpond fs attr set /runs/a state=done --if-version 3")
    .option("--if-version <n>", "only if the inode still has this version")
    .action(
      action(signal, async (context, flags, word: string, pairs: readonly string[]) => {
        const wanted = flags["ifVersion"];
        const ref = await context
          .client()
          .setAttributes(
            parsePath(word),
            { set: parsePairs(pairs) },
            { ...(wanted === undefined ? {} : { ifVersion: parseCount(String(wanted), "--if-version") }), signal },
          );
        return done(context, ref, `set ${pairs.join(" ")} of ${word}`);
      }),
    );
  leaf(attr, "get <path> [name]", "one attribute, or all", "headpond fs attr get /runs/a state").action(
    action(signal, async (context, _flags, word: string, name: string | undefined) => {
      const { attributes } = await context.client().stat(parsePath(word), { signal });
      if (name === undefined) {
        context.output.result(attributes, () => {
          for (const [key, value] of Object.entries(attributes)) context.output.line(`${key}=${value}`);
        });
        return 0;
      }
      const value = attributes[name];
      if (value === undefined) throw new HeadpondError("not-found", `${word} has no attribute ${name}`);
      context.output.result({ [name]: value }, () => context.output.line(value));
      return 0;
    }),
  );
  leaf(attr, "rm <path> <names...>", "remove attributes", "headpond fs attr rm /runs/a state").action(
    action(signal, async (context, _flags, word: string, names: readonly string[]) => {
      const ref = await context.client().setAttributes(parsePath(word), { remove: names }, { signal });
      return done(context, ref, `removed ${names.join(" ")} of ${word}`);
    }),
  );
}

function addCacheWishes({ fs, signal }: Commands): void {
  for (const [verb, pinned] of [["pin", true] as const, ["unpin", false] as const]) {
    const what = pinned ? "keep the cached bytes of a file or tree" : "let cached bytes be evicted again";
    leaf(fs, `${verb} <path>`, what, `headpond fs ${verb} /models/org/name`).action(
      action(signal, async (context, _flags, word: string) => {
        const ref = await context.client().pin(parsePath(word), pinned, { signal });
        return done(context, ref, `${verb}ned ${word}`);
      }),
    );
  }
  leaf(
    fs,
    "ttl <path> <duration>",
    "free or delete after a while; `none` takes the TTL away",
    "headpond fs ttl /runs/a 7d --action delete",
  )
    .option("--action <action>", "free (cached bytes only) or delete", "free")
    .action(
      action(signal, async (context, flags, word: string, duration: string) => {
        const ttlAction = flags["action"];
        if (ttlAction !== "free" && ttlAction !== "delete") {
          throw new HeadpondError("invalid", `--action ${String(ttlAction)}: there are free and delete`);
        }
        const ttlMs = duration === "none" ? undefined : parseDurationMs(duration);
        const ref = await context.client().ttl(parsePath(word), ttlMs, { action: ttlAction, signal });
        return done(context, ref, ttlMs === undefined ? `${word} has no TTL` : `${ttlAction} ${word} in ${duration}`);
      }),
    );
  leaf(
    fs,
    "replicas <path> <min> <max>",
    "how many workers should hold a file",
    "headpond fs replicas /models/org/name 2 4",
  ).action(
    action(signal, async (context, _flags, word: string, min: string, max: string) => {
      const range = { min: parseCount(min, "min"), max: parseCount(max, "max") };
      const ref = await context.client().replicas(parsePath(word), range, { signal });
      return done(context, ref, `${word}: ${min} to ${max} replicas`);
    }),
  );
}

function addSync({ fs, signal }: Commands): void {
  leaf(fs, "sync <path>", "bring the namespace up to date with the under store", "headpond fs sync -R /models")
    .option("-R, --recursive", "the whole tree")
    .action(
      action(signal, async (context, flags, word: string) => {
        for await (const progress of context
          .client()
          .sync(parsePath(word), { recursive: flags["recursive"] === true, signal })) {
          const { added, changed, removed, files, directories, skipped } = progress;
          const leftOut =
            skipped === 0 ? "" : `; ${skipped} objects are left out: the namespace cannot express their names`;
          if (progress.done || context.output.json) {
            context.output.item(progress, () =>
              context.output.line(
                `${files} files and ${directories} directories: ${added} added, ${changed} changed, ${removed} removed${leftOut}`,
              ),
            );
          } else if (context.output.interactive) context.output.transient(`\r${files} files seen`);
        }
        return 0;
      }),
    );
}

/** Writes go through to the under store before they are answered, so there is only to check that nothing is left over. */
function addPersist({ fs, signal }: Commands): void {
  leaf(
    fs,
    "persist <path>",
    "see that every byte of a file or tree is in its under store (writes go through, so it is unless one is under way)",
    "headpond fs persist /models/org/name",
  ).action(
    action(signal, async (context, _flags, word: string) => {
      const path = parsePath(word);
      const status = await context.client().stat(path, { signal });
      if (status.mount === undefined) {
        throw new HeadpondError("no-mount", `${path} is under no mount: there is no under store to persist it to`);
      }
      const open: string[] = [];
      let files = 0;
      const look = (row: FileStatus): void => {
        if (row.kind !== "file") return;
        files++;
        if (!row.complete) open.push(row.path);
      };
      look(status);
      if (status.kind === "directory") {
        for await (const row of context.client().list(path, { recursive: true, signal })) look(row);
      }
      context.output.result({ path, files, open }, () => {
        context.output.line(`${files - open.length} of ${files} files are in ${status.mount}'s under store`);
        for (const name of open) context.output.line(`being written: ${name}`);
      });
      return open.length === 0 ? 0 : 5;
    }),
  );
}

function done(context: Context, document: unknown, text: string): number {
  context.output.result(document, () => {
    if (context.flags.verbose === true) context.output.line(text);
  });
  return 0;
}

export function parsePairs(pairs: readonly string[]): Record<string, string> {
  const result: Record<string, string> = {};
  for (const pair of pairs) {
    const equals = pair.indexOf("=");
    if (equals < 1) throw new HeadpondError("invalid", `${JSON.stringify(pair)}: write key=value`);
    result[pair.slice(0, equals)] = pair.slice(equals + 1);
  }
  return result;
}
