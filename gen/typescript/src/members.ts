/** Requests from plain members: what callers may give, and the messages made of it. */

import { create, isMessage } from "@bufbuild/protobuf";
import type { DescField, DescMessage, Message, MessageInitShape, MessageShape } from "@bufbuild/protobuf";
import { type Timestamp, timestampFromDate } from "@bufbuild/protobuf/wkt";

type Value<V> = V extends Timestamp
  ? Timestamp | Date
  : V extends Message
    ? Members<V>
    : V extends readonly (infer Item)[]
      ? readonly Value<Item>[]
      : V;

/** The members of a request, all of them optional; an instant may be a Date. `Left` are those given otherwise. */
export type Members<M extends Message, Left extends string = never> = {
  readonly [K in keyof M as K extends keyof Message | "updateMask" | Left ? never : K]?: Value<M[K]>;
};

/** The same, but these have to be given. */
export type Requiring<M, Names extends keyof M> = M & { readonly [K in Names]-?: NonNullable<M[K]> };

/** The members of a change: what is left out stays, and null clears, where that is possible. */
export type Clearing<M, Names extends keyof M> = Omit<M, Names> & { readonly [K in Names]?: M[K] | null };

/** What a list of requests' members has, for the code that does not know which request it is. */
type Given = Readonly<Record<string, unknown>>;

/** The request with these members; one that is undefined or null is left out. Throws TypeError for an unknown one. */
export function toMessage<D extends DescMessage>(desc: D, members: object): MessageShape<D> {
  const given = Object.entries(members).filter(([, value]) => value !== undefined && value !== null);
  const init = Object.fromEntries(given.map(([name, value]) => [name, toValue(fieldOf(desc, name), value)]));
  return create(desc, init as MessageInitShape<D>);
}

/** The request for a change: its mask names every member that is given, null or not. */
export function toChange<D extends DescMessage>(desc: D, ids: object, changes: object): MessageShape<D> {
  return toMessage(desc, { ...ids, ...changes, updateMask: { paths: [...pathsOf(desc, changes)] } });
}

function fieldOf(desc: DescMessage, name: string): DescField {
  const field = desc.field[name];
  if (field === undefined) {
    throw new TypeError(`${desc.typeName} has no member "${name}"`);
  }
  return field;
}

function toValue(field: DescField, value: unknown): unknown {
  if (field.message === undefined || field.fieldKind === "map") {
    return value;
  }
  const { message } = field;
  return Array.isArray(value) ? value.map((item) => toItem(message, item)) : toItem(message, value);
}

function toItem(desc: DescMessage, value: unknown): unknown {
  if (value instanceof Date) {
    return timestampFromDate(value);
  }
  return isMembers(value) ? toMessage(desc, value) : value;
}

function isMembers(value: unknown): value is Given {
  return typeof value === "object" && value !== null && !isMessage(value);
}

/** The `etag` is a condition of the change, and no part of it. What is null within a member is named too. */
function* pathsOf(desc: DescMessage, changes: object): Generator<string> {
  for (const [name, value] of Object.entries(changes)) {
    if (value === undefined || name === "etag") {
      continue;
    }
    const field = fieldOf(desc, name);
    yield field.name;
    if (field.fieldKind === "message" && isMembers(value)) {
      const cleared = Object.entries(value).filter(([, inner]) => inner === null);
      yield* cleared.map(([inner]) => `${field.name}.${fieldOf(field.message, inner).name}`);
    }
  }
}
