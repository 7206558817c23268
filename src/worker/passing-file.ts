/**
 * A file version for which there is no room: its blocks come as all others do, one fetch at a time however many readers ask, but
 * none is kept. Readers have them out of memory, for as long as nobody else needs it.
 */

import type { FileDescriptor } from "../base/file.ts";
import { emptyIndexState } from "./block-index.ts";
import { CachedFile, type CachedFileDependencies } from "./cached-file.ts";

export class PassingFile extends CachedFile {
  constructor(
    descriptor: FileDescriptor,
    dependencies: Pick<CachedFileDependencies, "directory" | "clock" | "logger" | "limits" | "onIdle">,
  ) {
    super({ ...dependencies, onChange: () => {}, onDamaged: () => {} }, emptyIndexState(descriptor), undefined);
  }

  override get isPassing(): boolean {
    return true;
  }

  /** It does not need its directory. */
  override get isGone(): boolean {
    return false;
  }

  /** Nothing is written, and no block is ever present. */
  override async commit(): Promise<void> {}
}
