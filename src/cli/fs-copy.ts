/**
 * `fs cp`: files and trees between the local disk, standard input or output, and Headpond. A local file appears whole
 * or not at all: bytes go to a temporary name beside it, which is renamed when the last one is there.
 */

import { once } from "node:events";
import { createReadStream } from "node:fs";
import { mkdir, open, readdir, rename, stat, unlink } from "node:fs/promises";
import { dirname, join, relative } from "node:path";
import { HeadpondError } from "../base/errors.ts";
import { baseName, joinPath, type Path, parsePath, relativePath } from "../base/path.ts";
import type { HeadpondClient } from "../client/client.ts";
import { action, type Commands, leaf } from "./command.ts";
import type { Context } from "./context.ts";
import { type Location, parseLocation } from "./local-path.ts";
import { ProgressBar } from "./progress.ts";

export function addFsCopy({ fs, signal }: Commands): void {
  leaf(fs, "cp <from> <to>", "copy between local and Headpond paths", "headpond fs cp -r ./model /models/org/name")
    .option("-r, --recursive", "a whole tree")
    .option("--exclusive", "fail if the target exists")
    .action(
      action(signal, async (context, flags, from: string, to: string) => {
        const copy = new Copy(context, {
          recursive: flags["recursive"] === true,
          exclusive: flags["exclusive"] === true,
        });
        await copy.run(parseLocation(from), parseLocation(to));
        copy.finish();
        return 0;
      }),
    );
}

class Copy {
  readonly #context: Context;
  readonly #client: HeadpondClient;
  readonly #options: { readonly recursive: boolean; readonly exclusive: boolean };
  readonly #bar: ProgressBar;
  readonly #beganMs: number;
  #files = 0;
  #bytes = 0;
  #bytesTotal = 0;

  constructor(context: Context, options: { readonly recursive: boolean; readonly exclusive: boolean }) {
    this.#context = context;
    this.#client = context.client();
    this.#options = options;
    this.#bar = new ProgressBar(context.output, () => context.clock.monotonicMs());
    this.#beganMs = context.clock.monotonicMs();
  }

  async run(from: Location, to: Location): Promise<void> {
    if (from.kind === "headpond" && to.kind === "local") return this.#download(parsePath(from.path), to.path);
    if (from.kind === "headpond" && to.kind === "standard") return this.#toStandardOutput(parsePath(from.path));
    if (from.kind === "local" && to.kind === "headpond") return this.#upload(from.path, parsePath(to.path));
    if (from.kind === "standard" && to.kind === "headpond") {
      await this.#client.write(parsePath(to.path), this.#counted(process.stdin), this.#writeOptions());
      this.#files++;
      return;
    }
    if (from.kind === "headpond" && to.kind === "headpond")
      return this.#within(parsePath(from.path), parsePath(to.path));
    throw new HeadpondError("invalid", "one side must be a Headpond path: /path is Headpond's, ./path is local");
  }

  finish(): void {
    this.#bar.clear();
    const document = { files: this.#files, bytes: this.#bytes };
    this.#context.output.result(document, () => {
      if (this.#context.flags.verbose === true) this.#context.output.note(`${this.#files} files, ${this.#bytes} bytes`);
    });
  }

  async #download(from: Path, to: string): Promise<void> {
    const status = await this.#client.stat(from, { signal: this.#context.signal });
    const target = (await isDirectory(to)) ? join(to, baseName(from)) : to;
    if (status.kind === "file") return this.#downloadFile(from, target);
    this.#needRecursive(from);
    await mkdir(target, { recursive: true });
    for await (const row of this.#client.list(from, { recursive: true, signal: this.#context.signal })) {
      const local = join(target, relativePath(row.path, from));
      if (row.kind === "directory") await mkdir(local, { recursive: true });
      else await this.#downloadFile(row.path, local);
    }
  }

  async #downloadFile(from: Path, to: string): Promise<void> {
    const file = await this.#client.open(from, { signal: this.#context.signal });
    this.#bytesTotal += file.descriptor.sizeBytes;
    await mkdir(dirname(to), { recursive: true });
    if (this.#options.exclusive && (await exists(to))) throw new HeadpondError("already-exists", `${to} exists`);
    const temporary = `${to}.headpond-${process.pid}.tmp`;
    const handle = await open(temporary, "w");
    try {
      for await (const chunk of this.#counted(file.stream({ signal: this.#context.signal }))) await handle.write(chunk);
      await handle.close();
      await rename(temporary, to);
    } catch (error) {
      await handle.close().catch(() => {});
      await unlink(temporary).catch(() => {});
      throw error;
    } finally {
      await file.close();
    }
    this.#files++;
  }

  async #toStandardOutput(from: Path): Promise<void> {
    const file = await this.#client.open(from, { signal: this.#context.signal });
    for await (const chunk of this.#counted(file.stream({ signal: this.#context.signal }))) {
      if (!process.stdout.write(chunk)) await once(process.stdout, "drain");
    }
    await file.close();
    this.#files++;
  }

  async #upload(from: string, to: Path): Promise<void> {
    const local = await stat(from).catch((error: Error) => {
      throw new HeadpondError("not-found", `${from}: ${error.message}`, { cause: error });
    });
    const target = (await this.#isHeadpondDirectory(to)) ? joinPath(to, from.split("/").at(-1) ?? "") : to;
    if (!local.isDirectory()) return this.#uploadFile(from, target, local.size);
    this.#needRecursive(from);
    await this.#client.mkdir(target, { recursive: true, signal: this.#context.signal });
    for (const entry of await readdir(from, { recursive: true, withFileTypes: true })) {
      const path = join(entry.parentPath, entry.name);
      const remote = parsePath(`${target}/${relative(from, path)}`);
      if (entry.isDirectory()) await this.#client.mkdir(remote, { recursive: true, signal: this.#context.signal });
      else if (entry.isFile()) await this.#uploadFile(path, remote, (await stat(path)).size);
    }
  }

  async #uploadFile(from: string, to: Path, sizeBytes: number): Promise<void> {
    this.#bytesTotal += sizeBytes;
    const body = this.#counted(createReadStream(from, { highWaterMark: 1024 * 1024 }));
    await this.#client.write(to, body, { ...this.#writeOptions(), sizeBytes });
    this.#files++;
  }

  async #within(from: Path, to: Path): Promise<void> {
    const file = await this.#client.open(from, { signal: this.#context.signal });
    const target = (await this.#isHeadpondDirectory(to)) ? joinPath(to, baseName(from)) : to;
    this.#bytesTotal += file.descriptor.sizeBytes;
    await this.#client.write(target, this.#counted(file.stream({ signal: this.#context.signal })), {
      ...this.#writeOptions(),
      sizeBytes: file.descriptor.sizeBytes,
    });
    await file.close();
    this.#files++;
  }

  async *#counted(chunks: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
    for await (const chunk of chunks) {
      this.#bytes += chunk.length;
      const seconds = Math.max(0.001, (this.#context.clock.monotonicMs() - this.#beganMs) / 1000);
      this.#bar.update({
        label: "copying",
        bytesDone: this.#bytes,
        bytesTotal: Math.max(this.#bytesTotal, this.#bytes),
        rate: this.#bytes / seconds,
      });
      yield chunk;
    }
  }

  #writeOptions(): { exclusive: boolean; signal: AbortSignal } {
    return { exclusive: this.#options.exclusive, signal: this.#context.signal };
  }

  #needRecursive(path: string): void {
    if (!this.#options.recursive)
      throw new HeadpondError("is-a-directory", `${path} is a directory: add -r to copy it whole`);
  }

  async #isHeadpondDirectory(path: Path): Promise<boolean> {
    try {
      return (await this.#client.stat(path, { signal: this.#context.signal })).kind === "directory";
    } catch (error) {
      if (error instanceof HeadpondError && error.code === "not-found") return false;
      throw error;
    }
  }
}

async function isDirectory(path: string): Promise<boolean> {
  return (await stat(path).catch(() => undefined))?.isDirectory() === true;
}

async function exists(path: string): Promise<boolean> {
  return (await stat(path).catch(() => undefined)) !== undefined;
}
