/**
 * The namespace as the simplest thing that could be right: a tree of plain objects. The property test runs the same random
 * commands on it and on the real one, and compares answers and trees.
 */

export type ModelNode = {
  readonly id: number;
  readonly children: Map<string, ModelNode> | undefined;
  attributes: Record<string, string>;
};

export type ModelAnswer = { readonly code: string; readonly id?: number };

export class NamespaceModel {
  #nextId = 2;
  readonly root: ModelNode = { id: 1, children: new Map(), attributes: {} };

  create(path: string, exclusive: boolean, recursive: boolean): ModelAnswer {
    return this.#make(path, false, exclusive, recursive);
  }

  mkdir(path: string, exclusive: boolean, recursive: boolean): ModelAnswer {
    return this.#make(path, true, exclusive, recursive);
  }

  remove(path: string, recursive: boolean): ModelAnswer {
    const node = this.find(path);
    if (node === undefined) return { code: this.#missing(path) };
    if (node === this.root) return { code: "invalid" };
    if (node.children !== undefined && node.children.size > 0 && !recursive) return { code: "not-empty" };
    const names = split(path);
    const name = names.pop() as string;
    this.find(join(names))?.children?.delete(name);
    return { code: "ok", id: node.id };
  }

  rename(from: string, to: string, replace: boolean): ModelAnswer {
    const node = this.find(from);
    if (node === undefined) return { code: this.#missing(from) };
    if (from === "/" || to === "/") return { code: "invalid" };
    const names = split(to);
    const name = names.pop() as string;
    const parent = this.find(join(names));
    if (parent?.children === undefined) return { code: this.#missing(join(names)) };
    if (from === to) return replace ? { code: "ok", id: node.id } : { code: "already-exists" };
    if (to.startsWith(`${from}/`)) return { code: "invalid" };
    const target = parent.children.get(name);
    if (target !== undefined) {
      if (!replace) return { code: "already-exists" };
      if (node.children !== undefined && target.children === undefined) return { code: "not-a-directory" };
      if (node.children === undefined && target.children !== undefined) return { code: "is-a-directory" };
      if (target.children !== undefined && target.children.size > 0) return { code: "not-empty" };
    }
    const fromNames = split(from);
    const fromName = fromNames.pop() as string;
    this.find(join(fromNames))?.children?.delete(fromName);
    parent.children.set(name, node);
    return { code: "ok", id: node.id };
  }

  set(path: string, key: string, value: string): ModelAnswer {
    const node = this.find(path);
    if (node === undefined) return { code: this.#missing(path) };
    node.attributes = { ...node.attributes, [key]: value };
    return { code: "ok", id: node.id };
  }

  find(path: string): ModelNode | undefined {
    let at: ModelNode | undefined = this.root;
    for (const name of split(path)) at = at?.children?.get(name);
    return at;
  }

  /** Every path with what can be compared, in order. */
  snapshot(): string[] {
    const lines: string[] = [];
    const visit = (node: ModelNode, path: string): void => {
      const names = [...(node.children?.keys() ?? [])].sort((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)));
      for (const name of names) {
        const child = node.children?.get(name) as ModelNode;
        const childPath = `${path}/${name}`;
        lines.push(
          `${childPath} ${child.children === undefined ? "file" : "directory"} ${child.id} ${JSON.stringify(child.attributes)}`,
        );
        visit(child, childPath);
      }
    };
    visit(this.root, "");
    return lines;
  }

  #make(path: string, isDirectory: boolean, exclusive: boolean, recursive: boolean): ModelAnswer {
    const existing = this.find(path);
    if (existing !== undefined) {
      if (isDirectory) {
        if (existing.children === undefined || exclusive || !recursive) return { code: "already-exists" };
        return { code: "ok", id: existing.id };
      }
      if (existing.children !== undefined) return { code: exclusive ? "already-exists" : "is-a-directory" };
      return exclusive ? { code: "already-exists" } : { code: "ok", id: existing.id };
    }
    const names = split(path);
    const name = names.pop() as string;
    let at = this.root;
    for (const part of names) {
      if (at.children === undefined) return { code: "not-a-directory" };
      let next = at.children.get(part);
      if (next === undefined) {
        if (!recursive) return { code: this.#missing(join(names)) };
        next = { id: this.#nextId++, children: new Map(), attributes: {} };
        at.children.set(part, next);
      }
      at = next;
    }
    if (at.children === undefined) return { code: "not-a-directory" };
    const node: ModelNode = { id: this.#nextId++, children: isDirectory ? new Map() : undefined, attributes: {} };
    at.children.set(name, node);
    return { code: "ok", id: node.id };
  }

  #missing(path: string): string {
    let at: ModelNode | undefined = this.root;
    for (const name of split(path)) {
      if (at.children === undefined) return "not-a-directory";
      at = at.children.get(name);
      if (at === undefined) return "not-found";
    }
    return "not-a-directory";
  }
}

function split(path: string): string[] {
  return path.split("/").filter((name) => name !== "");
}

function join(names: readonly string[]): string {
  return `/${names.join("/")}`;
}
