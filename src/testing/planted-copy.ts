/**
 * Copies of the product's sources with a bug planted in them (docs/decisions/0103): an edit of the text, so the product has no switch for it; one that no
 * longer applies is an error.
 */

import { cp, mkdtemp, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

export type Edit = { readonly file: string; readonly find: string; readonly replace: string };

export const edit = (file: string, find: string, replace: string): Edit => ({ file, find, replace });

export type PlantedCopy = {
  readonly load: <T>(file: string) => Promise<T>;
  /** To be called when done. */
  readonly discard: () => Promise<void>;
};

/** `folders`: of `src/`. */
export async function plantCopy(
  name: string,
  edits: readonly Edit[],
  folders: readonly string[],
): Promise<PlantedCopy> {
  const sources = join(dirname(fileURLToPath(import.meta.url)), "..");
  const directory = await mkdtemp(join(tmpdir(), "mutation-"));
  const discard = (): Promise<void> => rm(directory, { recursive: true, force: true });
  try {
    const isSource = (path: string): boolean => !/\.test\.ts$|testdata/.test(path);
    for (const folder of folders) {
      await cp(join(sources, folder), join(directory, folder), { recursive: true, filter: isSource });
    }
    await symlink(join(sources, "..", "node_modules"), join(directory, "node_modules"));
    await writeFile(join(directory, "package.json"), '{ "type": "module" }');
    for (const { file, find, replace } of edits) {
      const path = join(directory, `${file}.ts`);
      const text = await readFile(path, "utf8");
      if (!text.includes(find)) throw new Error(`mutation "${name}" does not apply: ${file}.ts has no ${find}`);
      await writeFile(
        path,
        text.replaceAll(find, () => replace),
      );
    }
    const load = async <T>(file: string): Promise<T> => (await import(pathToFileURL(join(directory, file)).href)) as T;
    return { load, discard };
  } catch (error) {
    await discard();
    throw error;
  }
}
