/** The JSON that Hub clients read: no more than they need, and no hint of Xet, which would lead them past the mirror. */

import { digestHex } from "../io/hash.ts";
import type { HubCommit, HubEntry, HubFile } from "./hub-commit.ts";
import type { Repository } from "./hub-routes.ts";

/** Length of the pointer text that Git would keep instead of an LFS file. */
function pointerSize(file: HubFile): number {
  const lines = [
    "version https://git-lfs.github.com/spec/v1",
    `oid sha256:${file.sha256}`,
    `size ${file.file.sizeBytes}`,
  ];
  return lines.join("\n").length + 1;
}

function lfs(file: HubFile): object {
  if (file.sha256 === undefined) return {};
  return { lfs: { oid: file.sha256, size: file.file.sizeBytes, pointerSize: pointerSize(file) } };
}

/** Git's id of an LFS file is that of its pointer; 40 digits in any case, as clients expect here. */
function blobId(file: HubFile): string {
  return file.sha256 === undefined ? file.oid : digestHex("sha1", `pointer\0${file.sha256}\0${file.file.sizeBytes}`);
}

export function treeEntry(entry: HubEntry, commit: HubCommit, expand: boolean): object {
  const lastCommit = expand
    ? { lastCommit: { id: commit.commit, title: "headpond", date: isoDate(commit.modifiedMs) } }
    : {};
  if (entry.kind === "directory")
    return { type: "directory", oid: entry.oid, size: 0, path: entry.path, ...lastCommit };
  const { path, file } = entry;
  return { type: "file", oid: blobId(entry), size: file.sizeBytes, ...lfs(entry), path, ...lastCommit };
}

export function repositoryDocument(repository: Repository, commit: HubCommit, blobs: boolean): object {
  const sibling = (file: HubFile): object => {
    if (!blobs) return { rfilename: file.path };
    const { oid, ...rest } = { oid: file.sha256, size: file.file.sizeBytes };
    const lfsOf = oid === undefined ? {} : { lfs: { sha256: oid, size: rest.size, pointerSize: pointerSize(file) } };
    return { rfilename: file.path, size: rest.size, blobId: blobId(file), ...lfsOf };
  };
  const date = isoDate(commit.modifiedMs);
  return {
    ...summaryDocument(repository),
    sha: commit.commit,
    lastModified: date,
    createdAt: date,
    usedStorage: commit.sizeBytes,
    siblings: commit.files.map(sibling),
  };
}

/** What a listing of repositories says of each. */
export function summaryDocument(repository: Repository): object {
  const { kind, name } = repository;
  const author = name.includes("/") ? { author: name.slice(0, name.indexOf("/")) } : {};
  return {
    _id: digestHex("sha1", `${kind}\0${name}`).slice(0, 24),
    id: name,
    ...(kind === "model" ? { modelId: name } : {}),
    ...author,
    private: false,
    gated: false,
    disabled: false,
    downloads: 0,
    likes: 0,
    tags: [],
    // The JavaScript client wants these to be there.
    createdAt: isoDate(0),
    lastModified: isoDate(0),
    updatedAt: isoDate(0),
  };
}

export function refsDocument(commit: HubCommit): object {
  return {
    branches: [{ name: "main", ref: "refs/heads/main", targetCommit: commit.commit }],
    converts: [],
    tags: [],
    pullRequests: [],
  };
}

/** Whoever shows a token: the mirror has no accounts of its own. */
export const whoamiDocument = {
  type: "user",
  id: "headpond",
  name: "headpond",
  fullname: "Headpond",
  isPro: false,
  orgs: [],
  auth: { type: "access_token", accessToken: { displayName: "headpond", role: "read" } },
};

export const agentHarnessesDocument = { standardEnvVars: [], harnesses: {} };

function isoDate(timeMs: number): string {
  return new Date(timeMs).toISOString();
}
