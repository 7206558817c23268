/** `fs cat|head|tail|checksum`: bytes of a file, to standard output. */

import { once } from "node:events";
import { parsePath } from "../base/path.ts";
import { formatBytes, parseSizeBytes } from "../base/units.ts";
import { Digest } from "../io/hash.ts";
import { action, type Commands, leaf } from "./command.ts";
import type { Context } from "./context.ts";

export function addFsRead({ fs, signal }: Commands): void {
  leaf(fs, "cat <path>", "write a file to standard output", "headpond fs cat /models/org/name/config.json").action(
    action(signal, async (context, _flags, word: string) => print(context, word, () => ({}))),
  );
  leaf(fs, "head <path>", "the first bytes of a file", "headpond fs head /models/org/name/README.md -c 2KiB")
    .option("-c, --bytes <size>", "how many", "1KiB")
    .action(
      action(signal, async (context, flags, word: string) => {
        const length = parseSizeBytes(String(flags["bytes"]));
        return print(context, word, (sizeBytes) => ({ position: 0, length: Math.min(length, sizeBytes) }));
      }),
    );
  leaf(fs, "tail <path>", "the last bytes of a file", "headpond fs tail /logs/train.log -c 4KiB")
    .option("-c, --bytes <size>", "how many", "1KiB")
    .action(
      action(signal, async (context, flags, word: string) => {
        const length = parseSizeBytes(String(flags["bytes"]));
        return print(context, word, (sizeBytes) => {
          const position = Math.max(0, sizeBytes - length);
          return { position, length: sizeBytes - position };
        });
      }),
    );
  leaf(
    fs,
    "checksum <path>",
    "SHA-256 of a file, read through the cache",
    "headpond fs checksum /models/org/name/model.safetensors",
  ).action(
    action(signal, async (context, _flags, word: string) => {
      const path = parsePath(word);
      const file = await context.client().open(path, { signal });
      const hash = new Digest("sha256");
      for await (const chunk of file.stream({ signal })) hash.update(chunk);
      await file.close();
      const document = { path, algorithm: "sha256", value: hash.hex(), sizeBytes: file.descriptor.sizeBytes };
      context.output.result(document, () => context.output.line(`${document.value}  ${path}`));
      return 0;
    }),
  );
}

/** Streams the part of the file that `choose` picks; waits for the reader of our output. */
async function print(
  context: Context,
  word: string,
  choose: (sizeBytes: number) => { position?: number; length?: number },
): Promise<number> {
  const file = await context.client().open(parsePath(word), { signal: context.signal });
  for await (const chunk of file.stream({ ...choose(file.descriptor.sizeBytes), signal: context.signal })) {
    if (!process.stdout.write(chunk)) await once(process.stdout, "drain");
  }
  await file.close();
  if (context.flags.verbose === true) context.output.note(`${formatBytes(file.descriptor.sizeBytes)} in the file`);
  return 0;
}
