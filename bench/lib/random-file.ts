/** A file that cannot be compressed. */

import { randomFillSync } from "node:crypto";
import { mkdir, open } from "node:fs/promises";
import { join } from "node:path";
import { MiB } from "../../src/base/units.ts";

export async function writeRandomFile(directory: string, name: string, bytes: number): Promise<void> {
  await mkdir(directory, { recursive: true });
  const file = await open(join(directory, name), "w");
  const buffer = Buffer.alloc(4 * MiB);
  for (let written = 0; written < bytes; written += buffer.length) {
    randomFillSync(buffer);
    await file.write(buffer);
  }
  await file.close();
}
