/** A call from its request to its response: credentials, deadline, retries, pages, and watches that resume. */

import type {
  DescMessage,
  DescMethodServerStreaming,
  DescMethodUnary,
  MessageInitShape,
  MessageShape,
} from "@bufbuild/protobuf";
import { MethodOptions_IdempotencyLevel } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError, type Transport } from "@connectrpc/connect";
import { TicketsError } from "./errors.js";
import { toChange, toMessage } from "./members.js";

/** A secret, or a function that returns a fresh one, for each attempt. */
export type Credential = string | (() => string | Promise<string>);

/** What all calls of a client share. */
export interface ClientOptions {
  /** `grpc(…)` of `@tickets-service/client/node`, `grpcWeb(…)` of `@tickets-service/client/web`, or any of Connect. */
  transport: Transport;
  /** The JWT that helpdesk and handoff calls need. */
  token?: Credential;
  /** The key that ITSM calls need. */
  apiKey?: Credential;
  /** How long all attempts of a call may take together, and each page of a list; 10,000 unless it is given. */
  timeoutMs?: number;
  /** What differs from four attempts, with waits of up to 100 milliseconds that double, at most 5 seconds. */
  retries?: Partial<Retries>;
}

/** How many attempts a call has in all, and how long it waits between them, beside what the service asks for. */
export interface Retries {
  attempts: number;
  firstMs: number;
  longestMs: number;
}

/** The options of a call. */
export interface CallOptions {
  /** Instead of the client's. */
  timeoutMs?: number;
  /** Ends the call, which then fails with the signal's reason. */
  signal?: AbortSignal;
  /** Further metadata, such as `x-request-id`. */
  headers?: HeadersInit;
  /** Gets the trailing metadata of the response, such as `x-request-id` and `idempotent-replayed`. */
  onTrailer?: (trailer: Headers) => void;
}

/** The options of a call that writes. */
export interface WriteOptions extends CallOptions {
  /** A fresh one unless it is given; all attempts of the call have the same, so that it is safe to retry. */
  idempotencyKey?: string;
}

/** The options of a watch. */
export interface WatchOptions extends Pick<CallOptions, "signal" | "headers"> {
  /** How long it tries to resume, once the service has gone away; 60,000 unless it is given. */
  resumeTimeoutMs?: number;
}

/** The items of a list: `for await` fetches page after page. */
export class List<Page, Item> implements AsyncIterable<Item> {
  constructor(
    /** The pages instead, as the service sends them, with what else is in them. */
    readonly pages: () => AsyncGenerator<Page, void, void>,
    private readonly itemsOf: (page: Page) => readonly Item[],
    private readonly filter: () => (item: Item) => boolean = () => () => true,
  ) {}

  async *[Symbol.asyncIterator](): AsyncGenerator<Item, void, void> {
    const keep = this.filter();
    for await (const page of this.pages()) {
      yield* this.itemsOf(page).filter(keep);
    }
  }
}

const PAGE_SIZE = 100;
const TIMEOUT_MS = 10_000;
const RESUME_TIMEOUT_MS = 60_000;
const NO_TIMEOUT = 0; // not even a default of the transport
const LONGEST_MS = 99_999_999; // more than a day: the header of a timeout has eight digits, and a timer of 32 bits would fire at once
const RETRIES: Retries = { attempts: 4, firstMs: 100, longestMs: 5000 };

/** A transport, and what all calls over it share. */
export class Session {
  private readonly retries: Retries;

  constructor(private readonly client: ClientOptions) {
    this.retries = { ...RETRIES, ...client.retries };
  }

  /** The response. Throws TicketsError when no time or no attempt is left, or another attempt would not help. */
  async call<I extends DescMessage, O extends DescMessage>(
    method: DescMethodUnary<I, O>,
    members: object,
    options: WriteOptions = {},
  ): Promise<MessageShape<O>> {
    return this.send(method, toMessage(method.input, members), options);
  }

  /** The response to a change of some members. */
  async update<I extends DescMessage, O extends DescMessage>(
    method: DescMethodUnary<I, O>,
    ids: object,
    changes: object,
    options: WriteOptions = {},
  ): Promise<MessageShape<O>> {
    return this.send(method, toChange(method.input, ids, changes), options);
  }

  /** The pages of a list; `next` has the members of the request for the page after this one, undefined at the end. */
  async *pages<I extends DescMessage, O extends DescMessage>(
    method: DescMethodUnary<I, O>,
    members: object,
    options: CallOptions,
    next: (page: MessageShape<O>) => object | undefined,
  ): AsyncGenerator<MessageShape<O>, void, void> {
    let turned: object | undefined = {};
    while (turned !== undefined) {
      const page: MessageShape<O> = await this.call(method, { limit: PAGE_SIZE, ...members, ...turned }, options);
      yield page;
      turned = next(page);
    }
  }

  /**
   * The responses of a watch, which resumes after the last one when the service goes away, or once with a fresh token.
   * Throws TicketsError: what else ends it, or `unavailable` when it could not resume in time.
   */
  async *watch<I extends DescMessage, O extends DescMessage>(
    method: DescMethodServerStreaming<I, O>,
    members: object,
    cursorOf: (response: MessageShape<O>) => string,
    options: WatchOptions = {},
  ): AsyncGenerator<MessageShape<O>, void, void> {
    let request = toMessage(method.input, members);
    let attempt = 0;
    let giveUpAt = 0;
    for (;;) {
      let failed = new TicketsError(new ConnectError("The watch ended", Code.Unavailable));
      try {
        for await (const response of this.stream(method, request, options)) {
          request = toMessage(method.input, { ...members, cursor: cursorOf(response) });
          attempt = 0;
          yield response;
        }
      } catch (thrown) {
        failed = asFailure(thrown, options.signal, true);
      }
      attempt += 1;
      if (attempt === 1) {
        giveUpAt = now() + (options.resumeTimeoutMs ?? RESUME_TIMEOUT_MS);
      }
      const wait = this.wait(failed, attempt);
      if (!mayResume(failed, attempt) || now() + wait >= giveUpAt) {
        throw failed;
      }
      await sleep(wait, options.signal);
    }
  }

  private async send<I extends DescMessage, O extends DescMessage>(
    method: DescMethodUnary<I, O>,
    request: MessageShape<I>,
    options: WriteOptions,
  ): Promise<MessageShape<O>> {
    const { signal } = options;
    const deadline = now() + (options.timeoutMs ?? this.client.timeoutMs ?? TIMEOUT_MS);
    const key = isRead(method) ? undefined : (options.idempotencyKey ?? newKey());
    for (let attempt = 1; ; attempt += 1) {
      signal?.throwIfAborted();
      try {
        const headers = await this.headers(options.headers, key);
        const left = Math.min(LONGEST_MS, Math.max(1, Math.ceil(deadline - now())));
        const response = await this.client.transport.unary(
          method,
          signal,
          left,
          headers,
          request as MessageInitShape<I>,
        );
        options.onTrailer?.(response.trailer);
        return response.message;
      } catch (thrown) {
        const failed = asFailure(thrown, signal);
        const wait = this.wait(failed, attempt);
        if (attempt >= this.retries.attempts || now() + wait >= deadline || !mayRetry(failed)) {
          throw failed;
        }
        await sleep(wait, signal);
      }
    }
  }

  /** One stream of responses; who leaves the loop over it cancels the call. */
  private async *stream<I extends DescMessage, O extends DescMessage>(
    method: DescMethodServerStreaming<I, O>,
    request: MessageShape<I>,
    { signal, headers }: WatchOptions,
  ): AsyncGenerator<MessageShape<O>, void, void> {
    signal?.throwIfAborted();
    const left = new AbortController();
    const ended = signal === undefined ? left.signal : AbortSignal.any([signal, left.signal]);
    const sent = await this.headers(headers);
    try {
      const requests = only(request as MessageInitShape<I>);
      const response = await this.client.transport.stream(method, ended, NO_TIMEOUT, sent, requests);
      yield* response.message;
    } finally {
      left.abort();
    }
  }

  private async headers(further: HeadersInit | undefined, key?: string): Promise<Headers> {
    const { token, apiKey } = this.client;
    const headers = new Headers(further);
    if (token !== undefined) {
      headers.set("authorization", `Bearer ${plain("token", await secretOf(token))}`);
    }
    if (apiKey !== undefined) {
      headers.set("x-api-key", plain("apiKey", await secretOf(apiKey)));
    }
    if (key !== undefined) {
      headers.set("idempotency-key", plain("idempotencyKey", key));
    }
    return headers;
  }

  /** The milliseconds to wait after this attempt, from 1: what the service asked for, and up to the whole backoff. */
  private wait(failed: TicketsError, attempt: number): number {
    const backoff = Math.min(this.retries.longestMs, this.retries.firstMs * 2 ** (attempt - 1));
    return (failed.retryAfter ?? 0) * 1000 + Math.random() * backoff;
  }
}

/** The members of the next page's request, of a list whose pages have a cursor. */
export function byCursor(page: { nextCursor?: string }): object | undefined {
  return page.nextCursor ? { cursor: page.nextCursor } : undefined;
}

/** What a response always has, by its documents; protobuf cannot say so. */
export function always<T>(member: T | undefined): T {
  if (member === undefined) {
    throw new TicketsError(new ConnectError("The response lacks what it always has", Code.Internal));
  }
  return member;
}

/** What a caller gets for what was thrown: the signal's reason if that was it. */
function asFailure(thrown: unknown, signal: AbortSignal | undefined, isWatch = false): TicketsError {
  signal?.throwIfAborted();
  if (!(thrown instanceof ConnectError)) {
    throw thrown; // by a function of the caller
  }
  return TicketsError.from(thrown, isWatch);
}

/** Whether another attempt may help, and cannot apply a write twice: all attempts have one key. */
function mayRetry({ code, retryAfter }: TicketsError): boolean {
  return (
    code === Code.Unavailable ||
    code === Code.DeadlineExceeded ||
    (code === Code.ResourceExhausted && retryAfter !== undefined)
  );
}

function mayResume({ code, reason }: TicketsError, attempt: number): boolean {
  return reason === "token_expired" ? attempt === 1 : code === Code.Unavailable || code === Code.ResourceExhausted;
}

function isRead(method: { idempotency: MethodOptions_IdempotencyLevel }): boolean {
  return method.idempotency === MethodOptions_IdempotencyLevel.NO_SIDE_EFFECTS;
}

/** (`randomUUID` is not there on pages without TLS.) */
function newKey(): string {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** The text of a header. Throws TypeError, as Headers would: but their words quote it, secrets too. */
function plain(name: string, text: string): string {
  const trimmed = text.trim(); // a file's last line break, say
  if (!/^[\x20-\x7e]*$/.test(trimmed)) {
    throw new TypeError(`${name}: it has characters that are not printable ASCII`);
  }
  return trimmed;
}

function secretOf(credential: Credential): string | Promise<string> {
  return typeof credential === "string" ? credential : credential();
}

function now(): number {
  return performance.now();
}

async function* only<T>(item: T): AsyncGenerator<T, void, void> {
  yield item;
}

function sleep(milliseconds: number, signal: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve, reject) => {
    const abort = (): void => {
      clearTimeout(timer);
      reject(signal?.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", abort);
      resolve();
    }, milliseconds);
    signal?.addEventListener("abort", abort, { once: true });
  });
}
