/** What a history is made of, and what a sequential model of the operations in it must tell: the words of the checker. */

export type Outcome<Output> =
  | { readonly kind: "returned"; readonly at: number; readonly output: Output }
  /** It may have happened, or may yet. */
  | { readonly kind: "unknown" }
  /** It did not happen and will not. */
  | { readonly kind: "refused" };

export type Operation<Input, Output> = {
  readonly client: string;
  readonly input: Input;
  /** By any clock or counter that all clients share. What returned at the same time as another was called is not before it. */
  readonly calledAt: number;
  readonly outcome: Outcome<Output>;
};

export interface Model<State, Input, Output> {
  /** Before the first operation, whatever the keys. States are values: `step` makes new ones. */
  readonly initial: State;
  /** What the operation touches. Operations that share a key, directly or by others, are searched together. */
  keysOf(input: Input): readonly string[];
  /**
   * The state afterwards if the operation may answer `output` in `state`, else `undefined`. An `output` of `undefined` is one that nobody
   * saw: the operation takes effect, whatever it answers. Returns `state` itself if nothing changes.
   */
  step(state: State, input: Input, output: Output | undefined): State | undefined;
  /** Different for states that can ever answer differently. */
  fingerprint(state: State): string;
  describe(input: Input, output: Output | undefined): string;
}
