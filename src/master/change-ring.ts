/**
 * The last changes of the namespace, for watchers that come late. Many are made and few are ever asked for: so their numbers
 * stand in typed arrays, and an event is only made when somebody wants it. As objects they were a fifth of all that the
 * garbage collector had to carry along while files were created.
 */

import type { InodeId } from "../base/ids.ts";
import type { Path } from "../base/path.ts";
import type { ChangeEvent } from "../rpc/master-service.ts";

export class ChangeRing {
  readonly #keptMax: number;
  readonly #indexes: Float64Array;
  readonly #times: Float64Array;
  /** 0: of no inode. */
  readonly #inodeIds: Float64Array;
  readonly #kinds: string[] = [];
  readonly #paths: Path[] = [];
  readonly #toPaths: (Path | undefined)[] = [];
  #next = 0;

  constructor(keptMax: number) {
    this.#keptMax = keptMax;
    this.#indexes = new Float64Array(keptMax);
    this.#times = new Float64Array(keptMax);
    this.#inodeIds = new Float64Array(keptMax);
  }

  /** Returns the index of the change that had to go, or 0. */
  push(index: number, timeMs: number, kind: string, path: Path, to: Path | undefined, inodeId: number): number {
    const at = this.#next;
    this.#next = at + 1 === this.#keptMax ? 0 : at + 1;
    const gone = this.#indexes[at] as number;
    this.#indexes[at] = index;
    this.#times[at] = timeMs;
    this.#inodeIds[at] = inodeId;
    this.#kinds[at] = kind;
    this.#paths[at] = path;
    this.#toPaths[at] = to;
    return gone;
  }

  /** Those from `fromIndex` on, in order. */
  since(fromIndex: number): ChangeEvent[] {
    const events: ChangeEvent[] = [];
    for (let at = 0; at < this.#paths.length; at++) {
      const index = this.#indexes[at] as number;
      if (index < fromIndex) continue;
      const [timeMs, kind] = [this.#times[at] as number, this.#kinds[at] as string];
      const inodeId = this.#inodeIds[at] as number;
      events.push(changeEvent(index, timeMs, kind, this.#paths[at] as Path, this.#toPaths[at], inodeId));
    }
    return events.sort((a, b) => a.index - b.index);
  }
}

export function changeEvent(
  index: number,
  timeMs: number,
  kind: string,
  path: Path,
  to: Path | undefined,
  inodeId: number,
): ChangeEvent {
  const event: ChangeEvent = { index, timeMs, kind, path };
  if (to !== undefined) event.to = to;
  if (inodeId !== 0) event.inodeId = inodeId as InodeId;
  return event;
}
