/** Children of a directory, or a whole tree. A listing of children goes on behind the last name when a master fails in the middle. */

import { toHeadpondError } from "../base/errors.ts";
import type { FileStatus } from "../base/file.ts";
import { type MasterMethods, masterService } from "../rpc/master-service.ts";
import type { RequestOf } from "../rpc/method.ts";
import type { MasterCalls } from "./master-calls.ts";
import { type ReadOptions, told } from "./read-options.ts";

type Request = RequestOf<MasterMethods["list"]>;

/** Breaks in a row without a row in between: then it is not one master that fails. */
const breaksMax = 10;

export async function* listRows(
  masters: MasterCalls,
  request: Request,
  options: ReadOptions,
): AsyncGenerator<FileStatus, void, undefined> {
  let { afterName, limit } = request;
  let breaks = 0;
  for (;;) {
    const rest: Request = { ...request };
    if (afterName !== undefined) rest.afterName = afterName;
    if (limit !== undefined) rest.limit = limit;
    try {
      for await (const page of masters.openStream(masterService.methods.list, rest, options)) {
        for (const row of told(page, options).entries) {
          yield row;
          breaks = 0;
          afterName = row.path.slice(row.path.lastIndexOf("/") + 1);
          if (limit !== undefined) limit--;
          // A file is its own listing.
          if (row.path === request.path) return;
        }
      }
      return;
    } catch (error) {
      // Where a tree goes on is not told by a name; what has not begun was tried again below already.
      const canGoOn = request.recursive !== true && afterName !== request.afterName && ++breaks <= breaksMax;
      if (!canGoOn || !toHeadpondError(error).retryable || options.signal?.aborted === true) throw error;
      if (limit === 0) return;
    }
  }
}
